//! The faults do what they say.

use tandem_storage::{Disk, Durability, Engine, Error, FaultEngine, Space, Tear, WriteBatch};

use crate::subjects::pairs;

const A: Space = Space(0);

fn batch(number: u8) -> WriteBatch {
    let mut batch = WriteBatch::new();
    batch.put(A, vec![number], vec![number; 10]);
    batch.put(Space(1), vec![number], vec![]);
    batch
}

fn write(engine: &FaultEngine, number: u8, durability: Durability) -> Result<(), Error> {
    engine.write(batch(number), durability)
}

/// The numbers that a disk still holds, the same in both spaces.
fn recovered(disk: Disk) -> Vec<u8> {
    let engine = FaultEngine::recover(disk).unwrap();
    let keys = |space| pairs(&engine, space).into_iter().map(|(key, _)| key[0]).collect::<Vec<_>>();
    assert_eq!(keys(A), keys(Space(1)), "a batch was torn apart");
    keys(A)
}

/// Two synced batches, then two that are not.
fn two_and_two() -> FaultEngine {
    let engine = FaultEngine::new(2);
    write(&engine, 1, Durability::Deferred).unwrap();
    write(&engine, 2, Durability::Synced).unwrap();
    write(&engine, 3, Durability::Deferred).unwrap();
    write(&engine, 4, Durability::Deferred).unwrap();
    engine
}

#[test]
fn a_crash_at_every_byte_drops_the_torn_batch_and_what_follows() {
    let engine = two_and_two();
    let handle = engine.handle();
    let unsynced = handle.journal_bytes() - handle.synced_bytes();
    let record = unsynced / 2;
    assert_eq!(recovered(two_and_two().handle().crash(Tear::All)), [1, 2]);
    for kept in 0..=unsynced + 1 {
        let expected: &[u8] = match kept / record {
            0 => &[1, 2],
            1 => &[1, 2, 3],
            _ => &[1, 2, 3, 4],
        };
        assert_eq!(recovered(two_and_two().handle().crash(Tear::Keep(kept))), expected, "kept {kept} of {unsynced}");
    }
}

#[test]
fn an_engine_without_power_does_nothing() {
    let engine = two_and_two();
    let disk = engine.handle().crash(Tear::Keep(5));
    assert!(matches!(write(&engine, 5, Durability::Synced), Err(Error::Io { .. })));
    assert!(matches!(engine.get(A, &[1]), Err(Error::Io { .. })));
    assert!(matches!(engine.flush(), Err(Error::Io { .. })));
    assert_eq!(engine.handle().crash(Tear::Keep(5)), disk, "the disk does not change without power");
}

#[test]
fn after_a_torn_tail_the_journal_goes_on_cleanly() {
    let disk = two_and_two().handle().crash(Tear::Keep(7));
    let engine = FaultEngine::recover(disk).unwrap();
    write(&engine, 9, Durability::Synced).unwrap();
    assert_eq!(recovered(engine.handle().crash(Tear::All)), [1, 2, 9]);
}

#[test]
fn a_failed_sync_is_final() {
    let engine = two_and_two();
    engine.handle().fail_next_sync();
    write(&engine, 5, Durability::Deferred).unwrap();
    let failed = write(&engine, 6, Durability::Synced).unwrap_err();
    assert!(matches!(failed, Error::Io { .. }) && failed.is_fatal(), "{failed}");
    assert_eq!(engine.get(A, &[6]).unwrap(), None, "a write that failed is not visible");
    let text = failed.to_string();
    for again in [write(&engine, 7, Durability::Deferred), engine.flush(), write(&engine, 7, Durability::Synced)] {
        assert_eq!(again.unwrap_err().to_string(), text, "the first fatal error is told again");
    }
    assert_eq!(recovered(engine.handle().crash(Tear::All)), [1, 2], "a sync that failed made nothing durable");

    let engine = two_and_two();
    engine.handle().fail_next_sync();
    assert!(matches!(engine.flush(), Err(Error::Io { .. })));
    assert!(matches!(engine.flush(), Err(Error::Io { .. })), "a failed sync must not be tried again");
}

#[test]
fn a_full_disk_refuses_whole_batches() {
    let engine = two_and_two();
    let handle = engine.handle();
    let record = (handle.journal_bytes() - handle.synced_bytes()) / 2;
    handle.fill_disk(record);
    write(&engine, 5, Durability::Synced).unwrap();
    let full = write(&engine, 6, Durability::Synced).unwrap_err();
    assert!(matches!(full, Error::Full { .. }) && full.is_fatal(), "{full}");
    assert_eq!(engine.get(A, &[6]).unwrap(), None, "a refused batch left a trace");
    assert_eq!(engine.get(A, &[5]).unwrap().as_deref(), Some(&[5; 10][..]), "reads go on");
    handle.free_disk();
    assert!(matches!(write(&engine, 6, Durability::Synced), Err(Error::Full { .. })), "only opening again helps");

    let engine = FaultEngine::recover(handle.crash(Tear::All)).unwrap();
    write(&engine, 6, Durability::Synced).unwrap();
    assert_eq!(recovered(engine.handle().crash(Tear::All)), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_full_disk_stays_full_until_it_is_freed() {
    let engine = two_and_two();
    engine.handle().fill_disk(3);
    let mut disk = engine.handle().crash(Tear::Keep(usize::MAX));
    let engine = FaultEngine::recover(disk.clone()).unwrap();
    assert!(matches!(write(&engine, 5, Durability::Deferred), Err(Error::Full { .. })));
    disk.free();
    write(&FaultEngine::recover(disk).unwrap(), 5, Durability::Deferred).unwrap();
}

#[test]
fn damage_below_the_durable_mark_is_corruption_above_it_a_torn_tail() {
    let engine = two_and_two();
    let (all, synced) = (engine.handle().journal_bytes(), engine.handle().synced_bytes());
    for offset in 0..all {
        let engine = two_and_two();
        assert!(engine.handle().flip_byte(offset));
        let outcome = FaultEngine::recover(engine.handle().crash(Tear::Keep(usize::MAX)));
        if offset < synced {
            assert!(matches!(outcome, Err(Error::Corrupt { .. })), "offset {offset} of {synced}: {outcome:?}");
        } else {
            let expected: &[u8] = if offset < (all + synced) / 2 { &[1, 2] } else { &[1, 2, 3] };
            let disk = outcome.unwrap().handle().crash(Tear::All);
            assert_eq!(recovered(disk), expected, "offset {offset}");
        }
    }
    assert!(!engine.handle().flip_byte(all), "there is no byte behind the end");
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    assert_eq!(two_and_two().handle().crash(Tear::Keep(50)), two_and_two().handle().crash(Tear::Keep(50)));
}
