//! What RocksDB does beyond the conformance suite.

use tandem_storage::{Durability, Engine, RocksEngine, RocksOptions, Space, WriteBatch};
use tempfile::TempDir;

use crate::subjects::{SPACES, copy_files, pairs};

fn put(engine: &RocksEngine, number: u64, durability: Durability) {
    let mut batch = WriteBatch::new();
    for space in 0..SPACES.len() as u8 {
        batch.put(Space(space), number.to_be_bytes().to_vec(), vec![space; 1000]);
    }
    engine.write(batch, durability).unwrap();
}

/// Numbers in a copy of the files, taken while the engine is open: what a killed process leaves.
fn after_a_kill(dir: &std::path::Path, options: &RocksOptions) -> [Vec<u64>; 3] {
    let scratch = TempDir::new().unwrap();
    let copy = scratch.path().join("copy");
    copy_files(dir, &copy);
    let engine = RocksEngine::open(&copy, options, &SPACES).unwrap();
    let number = |key: Vec<u8>| u64::from_be_bytes(key.try_into().unwrap());
    [0, 1, 2].map(|space| pairs(&engine, Space(space)).into_iter().map(|(key, _)| number(key)).collect())
}

#[test]
fn a_state_holds_exactly_what_was_flushed() {
    let dir = TempDir::new().unwrap();
    let options = RocksOptions::state();
    let engine = RocksEngine::open(dir.path(), &options, &SPACES).unwrap();
    let expect = |last: u64| {
        let expected: Vec<u64> = (1..=last).collect();
        assert_eq!(after_a_kill(dir.path(), &options), [expected.clone(), expected.clone(), expected]);
    };
    put(&engine, 1, Durability::Deferred);
    expect(0);
    engine.flush().unwrap();
    put(&engine, 2, Durability::Deferred);
    put(&engine, 3, Durability::Deferred);
    expect(1);
    put(&engine, 4, Durability::Synced);
    put(&engine, 5, Durability::Deferred);
    expect(4);
    assert_eq!(engine.stats().wal_bytes, 0, "a state writes no log");
}

/// Flushes that RocksDB starts by itself are atomic over the spaces too, though only one of them is full.
#[test]
fn a_state_flushes_spaces_together() {
    let dir = TempDir::new().unwrap();
    let options = RocksOptions { memtable_bytes: 64 << 10, ..RocksOptions::state() };
    let engine = RocksEngine::open(dir.path(), &options, &SPACES).unwrap();
    for number in 1..=2_000_u64 {
        let mut batch = WriteBatch::new();
        batch.put(Space(0), number.to_be_bytes().to_vec(), vec![number as u8; 1000]);
        batch.put(Space(1), number.to_be_bytes().to_vec(), vec![]);
        batch.put(Space(2), number.to_be_bytes().to_vec(), vec![]);
        engine.write(batch, Durability::Deferred).unwrap();
    }
    // A checkpoint would flush; it is the files of a moment that count. Wait until no file comes or goes.
    while engine.stats().running_flushes + engine.stats().running_compactions > 0 {
        std::thread::yield_now();
    }
    let [first, second, third] = after_a_kill(dir.path(), &options);
    assert!(first.len() > 100, "{} batches of 2000 were flushed", first.len());
    assert!(first.iter().copied().eq(1..=first.len() as u64), "holes in what was flushed");
    assert!(first == second && second == third, "{} {} {}", first.len(), second.len(), third.len());
}

#[test]
fn a_log_holds_what_was_written_before_a_kill() {
    let dir = TempDir::new().unwrap();
    let options = RocksOptions::log();
    let engine = RocksEngine::open(dir.path(), &options, &SPACES).unwrap();
    for number in 1..=10 {
        put(&engine, number, if number % 2 == 0 { Durability::Synced } else { Durability::Deferred });
    }
    let expected: Vec<u64> = (1..=10).collect();
    assert_eq!(after_a_kill(dir.path(), &options), [expected.clone(), expected.clone(), expected]);
    assert!(engine.stats().wal_bytes > 30_000);
}

/// A space that is hardly written must not keep the log of the busy ones alive.
#[test]
fn old_log_files_go_away() {
    let dir = TempDir::new().unwrap();
    let options = RocksOptions { memtable_bytes: 1 << 20, ..RocksOptions::log() };
    let engine = RocksEngine::open(dir.path(), &options, &SPACES).unwrap();
    put(&engine, 0, Durability::Synced);
    for number in 0..400_u64 {
        let mut batch = WriteBatch::new();
        batch.put(Space(2), number.to_be_bytes().to_vec(), vec![number as u8; 100_000]);
        batch.delete_range(Space(2), vec![0], number.saturating_sub(5).to_be_bytes().to_vec());
        engine.write(batch, Durability::Deferred).unwrap();
    }
    let stats = engine.stats();
    assert!(stats.wal_bytes < 16 << 20, "40 MB were written and purged: {stats:?}");
    assert!(stats.sst_bytes < 16 << 20, "40 MB were written and purged: {stats:?}");
    assert_eq!(pairs(&engine, Space(2)).len(), 6);
}

#[test]
fn stats_tell_where_the_bytes_are() {
    let dir = TempDir::new().unwrap();
    let engine = RocksEngine::open(dir.path(), &RocksOptions::state(), &SPACES).unwrap();
    for number in 0..5_000 {
        put(&engine, number, Durability::Deferred);
    }
    let before = engine.stats();
    assert!(before.memtable_bytes > 15_000_000 && before.sst_bytes == 0, "{before:?}");
    engine.flush().unwrap();
    pairs(&engine, Space(0));
    let after = engine.stats();
    assert!(after.memtable_bytes < 8 << 20 && after.sst_bytes > 100_000, "{after:?}");
    assert!(after.block_cache_bytes > 0 && after.block_cache_bytes <= 70 << 20, "{after:?}");
    assert!(!after.writes_stopped);
    assert!(engine.size_bytes() >= after.sst_bytes);
}

#[test]
fn a_dropped_state_is_flushed() {
    let dir = TempDir::new().unwrap();
    let engine = RocksEngine::open(dir.path(), &RocksOptions::state(), &SPACES).unwrap();
    put(&engine, 1, Durability::Deferred);
    drop(engine);
    let engine = RocksEngine::open(dir.path(), &RocksOptions::state(), &SPACES).unwrap();
    assert_eq!(pairs(&engine, Space(1)).len(), 1);
}
