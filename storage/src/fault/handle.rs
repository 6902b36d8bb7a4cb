//! The switchboard of the faults.

use std::sync::{Arc, atomic::Ordering};

use super::{Disk, Machine, Tear};

/// Causes faults in one [`FaultEngine`](super::FaultEngine), from any thread. Clones act on the same engine.
#[derive(Debug, Clone)]
pub struct FaultHandle(Arc<Machine>);

impl FaultHandle {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        Self(machine)
    }

    /// Cuts the power and returns what the disk holds then, for [`FaultEngine::recover`](super::FaultEngine::recover).
    /// Every later call on the engine fails with [`Error::Io`](crate::Error::Io); a scan that already runs goes to its end.
    /// A second crash returns the same disk, or less of it.
    pub fn crash(&self, tear: Tear) -> Disk {
        let mut disk = self.0.disk.lock();
        self.0.is_off.store(true, Ordering::SeqCst);
        disk.lose_unsynced(tear);
        disk.clone()
    }

    /// Makes the next durability point fail with [`Error::Io`](crate::Error::Io), which is fatal. What was not durable
    /// before stays so, and the batch that asked for it does not become visible.
    pub fn fail_next_sync(&self) {
        self.0.sync_fails.store(true, Ordering::SeqCst);
    }

    /// Leaves room for `after_bytes` more bytes of journal. The first batch that does not fit gets
    /// [`Error::Full`](crate::Error::Full), which is fatal, and leaves no trace.
    pub fn fill_disk(&self, after_bytes: usize) {
        self.0.disk.lock().limit_room(after_bytes);
    }

    /// Takes the limit away. An engine that has seen the full disk must still be opened again.
    pub fn free_disk(&self) {
        self.0.disk.lock().free();
    }

    /// Changes one byte of the journal behind the engine's back; recovery finds it. False when the journal is shorter.
    pub fn flip_byte(&self, offset: usize) -> bool {
        self.0.disk.lock().flip_byte(offset)
    }

    /// Bytes in the journal, durable or not.
    pub fn journal_bytes(&self) -> usize {
        self.0.disk.lock().journal_bytes()
    }

    /// Bytes in the journal that a crash cannot take.
    pub fn synced_bytes(&self) -> usize {
        self.0.disk.lock().synced_bytes()
    }
}
