//! The engine on RocksDB. The only place of the project that names it.

mod failure;
mod files;
mod open;
mod options;
mod scan;
mod stats;
mod tuning;

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rocksdb::{ColumnFamily, DB, FlushOptions, ReadOptions, WriteOptions, checkpoint::Checkpoint};

pub use self::{
    options::{RocksOptions, Role, SpaceOptions},
    stats::EngineStats,
};
use crate::{
    Direction, Durability, Engine, Error, Operation, Pacer, Space, SpaceVisitor, Visitor, WriteBatch, directory,
    poison::Poison,
};

/// A verification says how far it is after about so many bytes.
const PACE_BYTES: u64 = 256 << 10;

/// After so many bytes a verification lets go of the files that it reads, so that those that were replaced can be removed.
const STRIDE_BYTES: usize = 64 << 20;

/// What a lookup through a filter counts for: it costs the processor about what reading so much does.
const LOOKUP_BYTES: u64 = 512;

/// Ordered bytes in RocksDB: one column family per space, one write at a time, reads from any thread.
///
/// [`RocksOptions::log`] makes an engine whose synced writes cost one fsync of its write-ahead log.
/// [`RocksOptions::state`] makes one without such a log: writes cost memory only, and become durable together, across
/// spaces, when memtables are flushed. Closing it (dropping it) flushes too, unless it has failed.
pub struct RocksEngine {
    db: DB,
    path: PathBuf,
    role: Role,
    /// Column family names by space.
    names: Vec<&'static str>,
    /// Spaces with filters.
    filtered: Vec<Space>,
    reads: ReadOptions,
    synced_writes: WriteOptions,
    deferred_writes: WriteOptions,
    poison: Poison,
}

impl RocksEngine {
    /// Opens the directory, creating it and missing spaces. Replays the write-ahead log if there is one.
    ///
    /// Errors: [`Error::Locked`] when it is open already, here or in another process; [`Error::Unusable`] when the path is
    /// not a directory, may not be written, or holds spaces that are not in `spaces`; [`Error::Corrupt`] when files are
    /// missing or damaged; [`Error::Full`]; [`Error::Io`].
    pub fn open(path: impl AsRef<Path>, options: &RocksOptions, spaces: &[SpaceOptions]) -> Result<Self, Error> {
        let path = path.as_ref();
        let db = open::open(path, options, spaces)?;
        let mut reads = ReadOptions::default();
        reads.set_verify_checksums(true);
        Ok(Self {
            db,
            path: path.to_path_buf(),
            role: options.role,
            names: spaces.iter().map(|space| space.name).collect(),
            filtered: (0..=u8::MAX)
                .zip(spaces)
                .filter(|(_, space)| space.point_reads)
                .map(|(at, _)| Space(at))
                .collect(),
            reads,
            synced_writes: tuning::write_options(options.role, Durability::Synced),
            deferred_writes: tuning::write_options(options.role, Durability::Deferred),
            poison: Poison::default(),
        })
    }

    /// Sizes and background work, read from RocksDB's counters; cheap enough for a metrics scrape.
    pub fn stats(&self) -> EngineStats {
        stats::read(self)
    }

    fn family(&self, space: Space) -> Result<&ColumnFamily, Error> {
        self.names
            .get(usize::from(space.0))
            .and_then(|name| self.db.cf_handle(name))
            .ok_or_else(|| Error::unknown_space(&self.path, space, self.names.len()))
    }

    /// All column families that carry spaces, in the order of the spaces.
    fn families(&self) -> Vec<&ColumnFamily> {
        self.names.iter().filter_map(|name| self.db.cf_handle(name)).collect()
    }

    fn fail(&self, doing: &'static str, error: rocksdb::Error) -> Error {
        self.poison.remember(failure::of(doing, error))
    }

    /// The same for a reader in the background, to whom a file that cannot be opened right now says nothing about what is
    /// durable.
    fn note_damage(&self, error: Error) -> Error {
        if matches!(error, Error::Corrupt { .. }) { self.poison.remember(error) } else { error }
    }

    fn native_batch(&self, batch: &WriteBatch) -> Result<rocksdb::WriteBatch, Error> {
        // The lookup of a family by name costs as much as adding a small pair, so it is done once per batch and space.
        let families = self.families();
        let family = |space: Space| {
            let found = families.get(usize::from(space.0)).copied();
            found.ok_or_else(|| Error::unknown_space(&self.path, space, families.len()))
        };
        // Each operation adds a tag, a family and lengths to its bytes.
        let capacity = batch.size_bytes() + batch.operations().len() * 12 + 12;
        let mut native = rocksdb::WriteBatch::with_capacity_bytes(capacity);
        for operation in batch.operations() {
            match operation {
                Operation::Put(space, key, value) => native.put_cf(family(*space)?, key, value),
                Operation::Delete(space, key) => native.delete_cf(family(*space)?, key),
                Operation::DeleteRange(space, from, to) => {
                    let family = family(*space)?;
                    // RocksDB would refuse the whole batch for an inverted range, after writing it to its log.
                    if from < to {
                        native.delete_range_cf(family, from, to);
                    }
                }
            }
        }
        Ok(native)
    }

    fn flush_memtables(&self) -> Result<(), Error> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        // All families in one call: with atomic flush they become durable together.
        self.db.flush_cfs_opt(&self.families(), &options).map_err(|error| self.fail("flushing memtables", error))
    }
}

impl Engine for RocksEngine {
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), Error> {
        self.poison.check()?;
        let native = self.native_batch(&batch)?;
        let options = match durability {
            Durability::Synced => &self.synced_writes,
            Durability::Deferred => &self.deferred_writes,
        };
        self.db.write_opt(native, options).map_err(|error| self.fail("writing a batch", error))?;
        match (self.role, durability) {
            (Role::State, Durability::Synced) => self.flush_memtables(),
            (Role::State, Durability::Deferred) | (Role::Log, _) => Ok(()),
        }
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let found = self.db.get_pinned_cf_opt(self.family(space)?, key, &self.reads);
        let value = found.map_err(|error| self.fail("reading a key", error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Error> {
        scan::run(&self.db, self.family(space)?, (from, to), direction, visit)
            .map_err(|error| self.fail("scanning keys", error))
    }

    fn scan_all(&self, begun: &mut dyn FnMut(), visit: &mut SpaceVisitor<'_>) -> Result<(), Error> {
        scan::all(&self.db, &self.families(), begun, visit)
            .map_err(|error| self.note_damage(failure::of("scanning all keys", error)))
    }

    /// Reads the files that are read at an opening, every pair through an iterator, and where there are filters every key
    /// through them.
    fn verify(&self, pace: &mut Pacer<'_>) -> Result<u64, Error> {
        let mut bytes = files::verify(&self.path, pace).map_err(|error| self.note_damage(error))?;
        let mut reads = ReadOptions::default();
        reads.set_verify_checksums(true);
        reads.fill_cache(false);
        let mut failed = None;
        let mut unpaced = 0;
        let read = scan::stored(&self.db, &self.families(), STRIDE_BYTES, &mut |space, key, value| {
            let is_filtered = self.filtered.contains(&space);
            if is_filtered
                && let Ok(family) = self.family(space)
                && let Err(error) = self.db.get_pinned_cf_opt(family, key, &reads)
            {
                failed = Some(self.note_damage(failure::of("verifying the filters", error)));
                return ControlFlow::Break(());
            }
            unpaced += (key.len() + value.len()) as u64 + if is_filtered { LOOKUP_BYTES } else { 0 };
            if unpaced < PACE_BYTES {
                return ControlFlow::Continue(());
            }
            bytes += unpaced;
            if pace(std::mem::take(&mut unpaced)) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        read.map_err(|error| self.note_damage(failure::of("verifying all keys", error)))?;
        failed.map_or(Ok(bytes + unpaced), Err)
    }

    fn flush(&self) -> Result<(), Error> {
        self.poison.check()?;
        match self.role {
            Role::Log => self.db.flush_wal(true).map_err(|error| self.fail("syncing the write-ahead log", error)),
            Role::State => self.flush_memtables(),
        }
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.poison.check()?;
        let parent = directory::checkpoint_parent(dir)?;
        // Creating a checkpoint flushes the memtables first, also without a write-ahead log.
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(dir))
            .map_err(|error| self.fail("writing a checkpoint", error))?;
        directory::sync(dir)?;
        directory::sync(&parent)
    }

    fn size_bytes(&self) -> u64 {
        let stats = self.stats();
        stats.memtable_bytes + stats.sst_bytes + stats.wal_bytes
    }

    fn name(&self) -> &'static str {
        "rocksdb"
    }
}

impl std::fmt::Debug for RocksEngine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = formatter.debug_struct("RocksEngine");
        out.field("path", &self.path).field("role", &self.role).field("names", &self.names).finish_non_exhaustive()
    }
}
