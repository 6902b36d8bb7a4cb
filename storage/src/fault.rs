//! An engine on a disk that fails on demand, for tests of everything that must survive a failing disk.

mod disk;
mod handle;

use std::{
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

pub use self::{
    disk::{Disk, Tear},
    handle::FaultHandle,
};
use crate::{
    Direction, Durability, Engine, Error, MemoryEngine, Pacer, Space, SpaceVisitor, Visitor, WriteBatch, poison::Poison,
};

/// The visible state in memory, and what a disk would hold of it as a journal of bytes.
///
/// Every batch is one record of the journal, with a checksum. A durability point moves the durable mark to the journal's
/// end; a crash keeps what is below the mark and as much of the rest as the test chooses. [`FaultEngine::recover`] replays
/// what is left, as a real engine replays its log. Faults are caused through the [`FaultHandle`].
///
/// The same calls always give the same bytes: there is no clock, no randomness and no thread inside, so a deterministic
/// simulation can own many of these. The journal is never shortened; it is for tests, not for long runs.
#[derive(Debug)]
pub struct FaultEngine {
    visible: MemoryEngine,
    machine: Arc<Machine>,
}

/// What the engine and its handles share.
#[derive(Debug)]
struct Machine {
    /// Also held while a batch is applied to the visible state, so that journal and state have the same order.
    disk: Mutex<Disk>,
    /// The next sync fails.
    sync_fails: AtomicBool,
    /// The machine has lost power: the engine is dead, the disk is as it was left.
    is_off: AtomicBool,
    poison: Poison,
}

impl FaultEngine {
    /// An empty engine on an empty disk, with the spaces `0..space_count`.
    pub fn new(space_count: usize) -> Self {
        Self::on(Disk::new(space_count), MemoryEngine::new(space_count))
    }

    /// Starts again on what a crash left. A torn record at the end of what was never durable is dropped, with everything
    /// behind it; all that is kept is durable from now on. A disk that was full is still full.
    ///
    /// Errors: [`Error::Corrupt`] when a record below the durable mark is damaged.
    pub fn recover(mut disk: Disk) -> Result<Self, Error> {
        let visible = MemoryEngine::new(disk.space_count());
        for batch in disk.replay()? {
            visible.write(batch, Durability::Synced)?;
        }
        Ok(Self::on(disk, visible))
    }

    /// Opens what [`Engine::checkpoint`] wrote into `dir`, on a new disk.
    ///
    /// Errors: as [`MemoryEngine::open`].
    pub fn open(dir: impl AsRef<Path>, space_count: usize) -> Result<Self, Error> {
        let visible = MemoryEngine::open(dir, space_count)?;
        let mut contents = WriteBatch::new();
        for space in (0..=u8::MAX).take(space_count).map(Space) {
            visible.scan(space, b"", b"", Direction::Forward, &mut |key, value| {
                contents.put(space, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                ControlFlow::Continue(())
            })?;
        }
        let mut disk = Disk::new(space_count);
        disk.append(contents.operations())?;
        disk.sync();
        Ok(Self::on(disk, visible))
    }

    /// The switchboard for the faults of this engine.
    pub fn handle(&self) -> FaultHandle {
        FaultHandle::new(Arc::clone(&self.machine))
    }

    fn on(disk: Disk, visible: MemoryEngine) -> Self {
        let machine = Machine {
            disk: Mutex::new(disk),
            sync_fails: AtomicBool::new(false),
            is_off: AtomicBool::new(false),
            poison: Poison::default(),
        };
        Self { visible, machine: Arc::new(machine) }
    }
}

impl Machine {
    fn check_power(&self) -> Result<(), Error> {
        if self.is_off.load(Ordering::SeqCst) {
            return Err(io_error("using the disk", "the machine has lost power"));
        }
        Ok(())
    }

    /// Moves the durable mark of the locked disk, or fails as told; only a failure is remembered.
    fn sync(&self, disk: &mut Disk) -> Result<(), Error> {
        if self.sync_fails.swap(false, Ordering::SeqCst) {
            return Err(self.poison.remember(io_error("syncing the journal", "a failed fsync, as the test asked")));
        }
        disk.sync();
        Ok(())
    }
}

impl Engine for FaultEngine {
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), Error> {
        let mut disk = self.machine.disk.lock();
        // Power is checked under the lock: nothing may reach the disk after the crash has been taken.
        self.machine.check_power()?;
        self.machine.poison.check()?;
        disk.check_spaces(batch.operations())?;
        disk.append(batch.operations()).map_err(|error| self.machine.poison.remember(error))?;
        if durability == Durability::Synced {
            self.machine.sync(&mut disk)?;
        }
        self.visible.write(batch, durability)
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.machine.check_power()?;
        self.visible.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Error> {
        self.machine.check_power()?;
        self.visible.scan(space, from, to, direction, visit)
    }

    fn scan_all(&self, begun: &mut dyn FnMut(), visit: &mut SpaceVisitor<'_>) -> Result<(), Error> {
        self.machine.check_power()?;
        self.visible.scan_all(begun, visit)
    }

    /// Reads the journal, as a start would.
    fn verify(&self, pace: &mut Pacer<'_>) -> Result<u64, Error> {
        self.machine.check_power()?;
        let mut disk = self.machine.disk.lock().clone();
        disk.replay().map_err(|error| self.machine.poison.remember(error))?;
        let bytes = disk.journal_bytes() as u64;
        pace(bytes);
        Ok(bytes)
    }

    fn flush(&self) -> Result<(), Error> {
        let mut disk = self.machine.disk.lock();
        self.machine.check_power()?;
        self.machine.poison.check()?;
        self.machine.sync(&mut disk)
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.machine.check_power()?;
        self.machine.poison.check()?;
        self.visible.checkpoint(dir)
    }

    fn size_bytes(&self) -> u64 {
        self.machine.disk.lock().journal_bytes() as u64
    }

    fn name(&self) -> &'static str {
        "fault"
    }
}

fn io_error(doing: &'static str, text: &str) -> Error {
    Error::Io { doing, source: std::io::Error::other(text) }
}
