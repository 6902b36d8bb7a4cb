//! The seam between what is stored and how: ordered bytes on disk.

use std::{ops::ControlFlow, path::Path};

use bytes::Bytes;

use crate::{Error, WriteBatch};

/// A keyspace of an engine, by its position in the list given when the engine was opened. Each has its own key order;
/// one write batch may touch several and is atomic across them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Space(pub u8);

/// When a write must survive the loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before `write` returns.
    Synced,
    /// After the next synced write, or the next [`Engine::flush`], of the same engine. A crash before that loses a suffix
    /// of the unsynced batches, each as a whole.
    Deferred,
}

/// The order of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest key first.
    Forward,
    /// Largest key first.
    Backward,
}

/// What a scan calls for each pair; `Break` ends the scan.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What [`Engine::scan_all`] calls for each pair; `Break` ends the scan.
pub type SpaceVisitor<'a> = dyn FnMut(Space, &[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What [`Engine::verify`] calls every now and then, with the bytes that were read; false ends it.
pub type Pacer<'a> = dyn FnMut(u64) -> bool + 'a;

/// Ordered bytes on disk. The documentation of each method is the contract; `conformance` tests it on every engine.
///
/// Keys are ordered bytewise; the empty key and the empty value are allowed. All methods may be called from any thread
/// and may block for the time of a disk access. A [`Space`] that the engine was not opened with gets
/// [`Error::Unusable`]; a batch that names one is not applied.
///
/// After any error with [`Error::is_fatal`] the engine refuses further writes with the same kind of error: what it holds
/// in memory may differ from what is on disk, so the process must stop and open it again. Of [`Engine::scan_all`] and
/// [`Engine::verify`] only [`Error::Corrupt`] counts so: who reads everything in the background may run out of open files, and
/// that says nothing about what is durable.
pub trait Engine: Send + Sync + 'static {
    /// Applies all operations of the batch, in their order, or none. When it returns `Ok`, every later read sees them;
    /// with [`Durability::Synced`] they and all batches written before survive a crash.
    ///
    /// Batches become durable in the order of their writes: after a crash the engine holds the effect of a prefix of
    /// them, at least up to the last durability point.
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), Error>;

    /// Returns the value of a key.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error>;

    /// Visits the pairs with `from <= key < to` in the given order, on one consistent view taken when the scan begins:
    /// writes made meanwhile, also by the visitor, are not seen. An empty `to` means: to the end of the space.
    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Error>;

    /// Visits all pairs of all spaces, space by space, each in key order, on one consistent view of all of them. The view is
    /// taken before `begun` is called, once: writes made after that are not seen. Reads past the caches, so that a long scan
    /// does not push out what others need, and verifies every block that it reads.
    fn scan_all(&self, begun: &mut dyn FnMut(), visit: &mut SpaceVisitor<'_>) -> Result<(), Error>;

    /// Reads everything that is stored, wherever a checksum can be compared, and fails with [`Error::Corrupt`] at the first
    /// damage. What is written meanwhile may be read or not. `pace` is called with the number of bytes read since the last call, may sleep, and ends the verification by
    /// returning false. Returns how many bytes were read.
    fn verify(&self, pace: &mut Pacer<'_>) -> Result<u64, Error> {
        let mut bytes = 0;
        self.scan_all(&mut || (), &mut |_, key, value| {
            let read = (key.len() + value.len()) as u64;
            bytes += read;
            if pace(read) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(bytes)
    }

    /// A durability point: when it returns `Ok`, every batch written before the call survives a crash.
    fn flush(&self) -> Result<(), Error>;

    /// Writes a consistent copy of all spaces into `dir`, which must not exist yet and whose parent must. The copy
    /// contains at least every batch written before the call, survives a crash once the call returns, shares nothing
    /// that later writes change, and can be opened as a data directory by the same kind of engine. On one file system
    /// it costs links, not copies, where the engine can do so. After an error `dir` may hold rubbish; remove it.
    fn checkpoint(&self, dir: &Path) -> Result<(), Error>;

    /// Bytes on disk and in write buffers, approximately, for metrics.
    fn size_bytes(&self) -> u64;

    /// The name that operators see: `rocksdb`, `memory`.
    fn name(&self) -> &'static str;
}
