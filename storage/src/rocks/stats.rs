//! Numbers for metrics.

use std::{fs, path::Path};

use rocksdb::properties;

use super::RocksEngine;

/// A snapshot of the sizes and the background work of a [`RocksEngine`]. A counter that RocksDB does not report is 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Memory of all memtables, in bytes.
    pub memtable_bytes: u64,
    /// Size of all table files, in bytes, those included that a running read or checkpoint keeps alive.
    pub sst_bytes: u64,
    /// Size of all write-ahead log files, in bytes; 0 for a state.
    pub wal_bytes: u64,
    /// Bytes that compactions have still to rewrite, estimated by RocksDB.
    pub pending_compaction_bytes: u64,
    /// Flushes that run now.
    pub running_flushes: u64,
    /// Compactions that run now.
    pub running_compactions: u64,
    /// Blocks, indexes and filters in memory, in bytes.
    pub block_cache_bytes: u64,
    /// Writes wait because flushes or compactions cannot keep up.
    pub writes_stopped: bool,
}

pub(super) fn read(engine: &RocksEngine) -> EngineStats {
    let families = engine.families();
    let of_all = |property: &rocksdb::properties::PropName| -> u64 {
        families.iter().filter_map(|family| engine.db.property_int_value_cf(*family, property).ok().flatten()).sum()
    };
    let of_database = |property: &rocksdb::properties::PropName| -> u64 {
        engine.db.property_int_value(property).ok().flatten().unwrap_or_default()
    };
    EngineStats {
        memtable_bytes: of_all(properties::CUR_SIZE_ALL_MEM_TABLES),
        sst_bytes: of_all(properties::TOTAL_SST_FILES_SIZE),
        wal_bytes: log_bytes(&engine.path),
        pending_compaction_bytes: of_all(properties::ESTIMATE_PENDING_COMPACTION_BYTES),
        running_flushes: of_database(properties::NUM_RUNNING_FLUSHES),
        running_compactions: of_database(properties::NUM_RUNNING_COMPACTIONS),
        // One cache for all spaces; the family that RocksDB keeps for itself has its own.
        block_cache_bytes: families
            .first()
            .and_then(|family| engine.db.property_int_value_cf(*family, properties::BLOCK_CACHE_USAGE).ok().flatten())
            .unwrap_or_default(),
        writes_stopped: of_database(properties::IS_WRITE_STOPPED) != 0,
    }
}

/// RocksDB has no counter for it. Files that vanish meanwhile count as empty.
fn log_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let is_log = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "log");
    entries.flatten().filter(is_log).filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum()
}
