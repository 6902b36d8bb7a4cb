//! What can be set about a RocksDB engine.

use std::path::Path;

use crate::{Error, directory};

/// What an engine is for. It decides how writes become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The Raft log: a write-ahead log makes every synced write durable with one fsync; entries live shortly and are
    /// removed by range, most of them before they leave the memtables.
    Log,
    /// The state machine: no write-ahead log, because the Raft log is one. A flush makes all spaces durable together.
    State,
}

/// Settings of one [`RocksEngine`](super::RocksEngine). Start from [`RocksOptions::log`] or [`RocksOptions::state`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RocksOptions {
    /// What the engine is for. Not a setting: changing it for an existing directory loses what is in its log.
    pub role: Role,
    /// Size, in bytes, at which the memtable of a space is flushed. Default 64 MiB, at least 64 KiB. Larger means fewer,
    /// larger flushes and a longer replay after a crash.
    pub memtable_bytes: usize,
    /// Memtables of one space that may be in memory, the active one included; also, times `memtable_bytes`, the memory at
    /// which all spaces together are flushed and, for a log, the size of write-ahead log kept. When flushes cannot keep up
    /// with it, writes wait. Default 4, at least 2.
    pub memtable_count: i32,
    /// Blocks, indexes and filters kept in memory for all spaces together, in bytes. Default 64 MiB for a state, 16 MiB for
    /// a log.
    pub block_cache_bytes: usize,
    /// Files kept open; -1 keeps all open, which makes opening slow when there are many. Default 512.
    pub max_open_files: i32,
    /// Threads for flushes and compactions together. Default 2, at least 1. The engines of a process share them.
    pub background_jobs: i32,
}

impl RocksOptions {
    /// Defaults for a Raft log.
    pub const fn log() -> Self {
        Self { role: Role::Log, block_cache_bytes: 16 << 20, ..Self::state() }
    }

    /// Defaults for a state machine.
    pub const fn state() -> Self {
        Self {
            role: Role::State,
            memtable_bytes: 64 << 20,
            memtable_count: 4,
            block_cache_bytes: 64 << 20,
            max_open_files: 512,
            background_jobs: 2,
        }
    }

    /// Memory of all memtables together, in bytes.
    pub(super) fn total_memtable_bytes(&self) -> usize {
        self.memtable_bytes.saturating_mul(usize::try_from(self.memtable_count).unwrap_or(1))
    }

    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        let wrong = if self.memtable_bytes < 64 << 10 {
            format!("memtable_bytes is {}; set at least 65536", self.memtable_bytes)
        } else if self.memtable_count < 2 {
            format!("memtable_count is {}; set at least 2", self.memtable_count)
        } else if self.background_jobs < 1 {
            format!("background_jobs is {}; set at least 1", self.background_jobs)
        } else if self.max_open_files != -1 && self.max_open_files < 16 {
            format!("max_open_files is {}; set -1 or at least 16", self.max_open_files)
        } else {
            return Ok(());
        };
        Err(directory::unusable(path, wrong))
    }
}

/// One space of an engine: its column family and how it is used. The position in the list given to
/// [`RocksEngine::open`](super::RocksEngine::open) is its [`Space`](crate::Space).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceOptions {
    /// Name of the column family on disk; never change it for existing data. Not `default`, which RocksDB keeps for itself.
    pub name: &'static str,
    /// Keys are often read one by one, also absent ones: a bloom filter (10 bits a key) and small blocks. Default no.
    pub point_reads: bool,
    /// Values are written once, about in key order, rarely deleted, and large: larger blocks and files and one compression
    /// on every level, so that a file can move down a level without being rewritten. Default no.
    pub append_only: bool,
    /// Keys and values are hashes: not compressed, and merged with what is there less often, because nothing comes in
    /// order. The reader knows what is not there, so a memtable has no filter. Default no.
    pub random_content: bool,
}

impl SpaceOptions {
    /// A space for scans and updates.
    pub const fn named(name: &'static str) -> Self {
        Self { name, point_reads: false, append_only: false, random_content: false }
    }

    /// Sets `point_reads`.
    pub const fn with_point_reads(self) -> Self {
        Self { point_reads: true, ..self }
    }

    /// Sets `point_reads` and `random_content`.
    pub const fn with_random_point_reads(self) -> Self {
        Self { point_reads: true, random_content: true, ..self }
    }

    /// Sets `append_only`.
    pub const fn with_append_only(self) -> Self {
        Self { append_only: true, ..self }
    }
}
