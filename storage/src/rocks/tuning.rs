//! The options of RocksDB behind [`RocksOptions`] and [`SpaceOptions`], with the reason for each.

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, DBRecoveryMode, Options, WriteOptions,
};

use super::options::{RocksOptions, Role, SpaceOptions};
use crate::Durability;

const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// Bytes of the bloom filter of a memtable to bytes of the memtable.
const MEMTABLE_BLOOM_RATIO: f64 = 0.02;
/// Files of level 0 before they are compacted where content is random. RocksDB's default is 4, and writes wait from 20.
const RANDOM_LEVEL_ZERO_FILES: i32 = 10;
const FILE_BYTES: u64 = 64 << 20;
const APPEND_ONLY_FILE_BYTES: u64 = 256 << 20;
const LEVELS: usize = 7;

/// Background writeback in steps of this size, in bytes, instead of in one burst at the fsync.
const BYTES_PER_SYNC: u64 = 1 << 20;

/// Size and number of RocksDB's own text logs.
const INFO_LOG_BYTES: usize = 4 << 20;
const INFO_LOG_FILES: usize = 4;

/// Options of the database as a whole.
pub(super) fn database(options: &RocksOptions) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    db.set_max_open_files(options.max_open_files);
    db.set_max_background_jobs(options.background_jobs);
    db.set_db_write_buffer_size(options.total_memtable_bytes());
    db.set_bytes_per_sync(BYTES_PER_SYNC);
    // Verify what is read and written, and stop writing at the first damage.
    db.set_paranoid_checks(true);
    // One thread writes per engine, so the concurrent paths only cost.
    db.set_allow_concurrent_memtable_write(false);
    // Atomic flush excludes it, and with one writer there is nothing to overlap.
    db.set_enable_pipelined_write(false);
    // Opening must not read every file, and nobody reads the dumps.
    db.set_skip_stats_update_on_db_open(true);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    db.set_keep_log_file_num(INFO_LOG_FILES);
    db.set_max_log_file_size(INFO_LOG_BYTES);
    match options.role {
        Role::Log => tune_log(&mut db, options),
        // Without a write-ahead log, only this keeps the spaces consistent with each other after a crash.
        Role::State => db.set_atomic_flush(true),
    }
    db
}

/// The write-ahead log.
///
/// Recovery mode. A torn tail, the end of a write that was never acknowledged, must be dropped; damage before it must be
/// an error, because a voter that forgets acknowledged entries can undo a commit of the cluster. `PointInTime` ends the
/// replay at the first bad record and opens as if all were well, `AbsoluteConsistency` refuses even a torn tail, so it is
/// `TolerateCorruptedTailRecords`: a record cut off at the end of a file is dropped, a checksum that does not fit is
/// refused. Two limits remain. When the damage hits the length of a record in the last 32 KiB of a file, it looks like a
/// torn tail. And when power fails between the switch to a new file and the next durability point, deferred writes in the
/// new file can survive deferred ones at the end of the old file; synced writes are not affected.
///
/// Recycled log files are incompatible with that mode (RocksDB turns them off), since the rest of a recycled file's old
/// content cannot be told from damage. Without them each fsync also commits the file's new length.
fn tune_log(db: &mut Options, options: &RocksOptions) {
    db.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    // A closed log file that is missing or shorter than when it was synced is an error.
    db.set_track_and_verify_wals_in_manifest(true);
    // Every write reaches the operating system at once: what a killed process wrote is still there.
    db.set_manual_wal_flush(false);
    // Files are preallocated by RocksDB with the size of a memtable and a tenth.
    db.set_wal_bytes_per_sync(BYTES_PER_SYNC);
    // A space that is written rarely (votes) would keep old files alive for ever.
    db.set_max_total_wal_size(options.total_memtable_bytes() as u64);
}

/// Options of one space. `cache` is shared by the spaces of an engine.
pub(super) fn family(options: &RocksOptions, space: &SpaceOptions, cache: &Cache) -> Options {
    let mut family = Options::default();
    family.set_write_buffer_size(options.memtable_bytes);
    family.set_max_write_buffer_number(options.memtable_count);
    family.set_level_compaction_dynamic_level_bytes(true);
    family.set_target_file_size_base(if space.append_only { APPEND_ONLY_FILE_BYTES } else { FILE_BYTES });
    family.set_block_based_table_factory(&table(space, cache));
    if space.point_reads && !space.random_content {
        // Most keys that are looked for are not there: a memtable says so without a search. About
        // 13 bits for each pair of a hundred bytes.
        family.set_memtable_prefix_bloom_ratio(MEMTABLE_BLOOM_RATIO);
        family.set_memtable_whole_key_filtering(true);
    }
    match options.role {
        Role::Log => {
            // Most entries are purged before they are flushed. Several memtables in one flush meet more of the purges.
            family.set_min_write_buffer_number_to_merge((options.memtable_count / 2).max(1));
            family.set_compression_type(DBCompressionType::None);
            // The log must not wait for compactions: its files are about to be deleted. Purges bound it.
            family.set_level_zero_slowdown_writes_trigger(i32::MAX);
            family.set_level_zero_stop_writes_trigger(i32::MAX);
            family.set_soft_pending_compaction_bytes_limit(0);
            family.set_hard_pending_compaction_bytes_limit(0);
        }
        Role::State if space.random_content => {
            family.set_compression_type(DBCompressionType::None);
            // Each compaction into the first level rewrites all of it.
            family.set_level_zero_file_num_compaction_trigger(RANDOM_LEVEL_ZERO_FILES);
        }
        Role::State if space.append_only => family.set_compression_type(DBCompressionType::Lz4),
        Role::State => {
            // Level 0 is rewritten soon; the levels below it hold nearly everything.
            let mut levels = [DBCompressionType::Lz4; LEVELS];
            levels[0] = DBCompressionType::None;
            family.set_num_levels(LEVELS as i32);
            family.set_compression_per_level(&levels);
        }
    }
    family
}

fn table(space: &SpaceOptions, cache: &Cache) -> BlockBasedOptions {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(if space.point_reads { 4 << 10 } else { 16 << 10 });
    if space.point_reads {
        table.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        table.set_whole_key_filtering(true);
        table.set_optimize_filters_for_memory(true);
        table.set_partition_filters(true);
    }
    // Indexes and filters count towards the cache's size, so memory is bounded however much is stored. In partitions, so
    // that one lookup does not load a file's whole index; the top is pinned.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_cache_index_and_filter_blocks(true);
    table.set_cache_index_and_filter_blocks_with_high_priority(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_pin_top_level_index_and_filter(true);
    table
}

/// How a write of this durability reaches RocksDB. A state's synced write is followed by a flush instead of a sync.
pub(super) fn write_options(role: Role, durability: Durability) -> WriteOptions {
    let mut write = WriteOptions::default();
    match role {
        Role::Log => write.set_sync(durability == Durability::Synced),
        Role::State => write.disable_wal(true),
    }
    write
}
