//! What is left after the engine was closed or has crashed.

use super::{A, B, C, Subject, all, get, must, put};
use crate::{Durability, Engine, Space, WriteBatch};

pub(super) fn survives_reopening(subject: &mut dyn Subject) {
    put(subject.engine(), A, &[(b"deferred", b"1")]);
    write_numbers(subject.engine(), 1..=20, Durability::Deferred);
    must(subject.engine().flush());
    if !subject.reopen() {
        return;
    }
    assert_eq!(get(subject.engine(), A, b"deferred").as_deref(), Some(&b"1"[..]));
    assert_eq!(newest(subject.engine()), 20);
    write_numbers(subject.engine(), 21..=30, Durability::Synced);
    assert!(subject.reopen(), "an engine that reopened once reopens again");
    assert_eq!(newest(subject.engine()), 30);
    must(subject.engine().flush());
}

pub(super) fn synced_survives_a_crash(subject: &mut dyn Subject) {
    write_numbers(subject.engine(), 1..=5, Durability::Deferred);
    write_numbers(subject.engine(), 6..=6, Durability::Synced);
    if !subject.crash() {
        return;
    }
    assert_eq!(newest(subject.engine()), 6, "a synced write makes those before it durable too");
    write_numbers(subject.engine(), 7..=9, Durability::Synced);
    assert!(subject.crash(), "an engine that crashed once crashes again");
    assert_eq!(newest(subject.engine()), 9, "writes after a recovery are durable like any other");
}

pub(super) fn verification_reads_everything(subject: &mut dyn Subject) {
    let value = vec![7; 10_000];
    for number in 0..100_u8 {
        put(subject.engine(), Space(number % 3), &[(&[number], &value)]);
    }
    must(subject.engine().flush());
    let mut paced = 0;
    let verified = must(subject.engine().verify(&mut |bytes| {
        paced += bytes;
        true
    }));
    assert!(verified >= 1_000_000, "{verified} bytes read of a million");
    assert!(paced > 500_000 && paced <= verified, "{paced} of {verified} bytes were told while they were read");
    let mut calls = 0;
    let stopped = must(subject.engine().verify(&mut |_| {
        calls += 1;
        false
    }));
    assert!(stopped <= verified && calls > 0, "{stopped} bytes after it was told to end");
    write_numbers(subject.engine(), 1..=3, Durability::Synced);
}

pub(super) fn flush_is_a_durability_point(subject: &mut dyn Subject) {
    write_numbers(subject.engine(), 1..=50, Durability::Deferred);
    must(subject.engine().flush());
    if !subject.crash() {
        return;
    }
    assert_eq!(newest(subject.engine()), 50);
    let mut batch = WriteBatch::new();
    batch.delete_range(A, &b""[..], &b"\xff"[..]);
    must(subject.engine().write(batch, Durability::Deferred));
    must(subject.engine().flush());
    assert!(subject.crash(), "an engine that crashed once crashes again");
    assert_eq!(all(subject.engine(), A), [], "a deletion is durable like any other write");
    must(subject.engine().flush());
}

pub(super) fn crash_leaves_a_prefix(subject: &mut dyn Subject) {
    let mut durable = 0;
    for round in 1..=6_u64 {
        let first = newest(subject.engine()) + 1;
        write_numbers(subject.engine(), first..=first + 9, Durability::Deferred);
        if round % 2 == 0 {
            must(subject.engine().flush());
            durable = first + 9;
        }
        let last = first + 19;
        write_numbers(subject.engine(), first + 10..=last, Durability::Deferred);
        if !subject.crash() {
            return;
        }
        let found = newest(subject.engine());
        assert!(
            (durable..=last).contains(&found),
            "round {round}: {durable} was durable, {last} was written, {found} is left"
        );
        durable = found;
        must(subject.engine().flush());
    }
}

/// One batch per number, over three spaces: the number in A, all numbers in B, and in C only the newest.
fn write_numbers(engine: &dyn Engine, numbers: std::ops::RangeInclusive<u64>, durability: Durability) {
    for number in numbers {
        let mut batch = WriteBatch::new();
        batch.put(A, &b"newest"[..], number.to_be_bytes().to_vec());
        batch.put(B, number.to_be_bytes().to_vec(), vec![number as u8; 100]);
        batch.delete(C, (number - 1).to_be_bytes().to_vec());
        batch.put(C, number.to_be_bytes().to_vec(), &b""[..]);
        must(engine.write(batch, durability));
    }
}

/// The newest number, after checking that all spaces tell of exactly the batches up to it.
#[track_caller]
fn newest(engine: &dyn Engine) -> u64 {
    let number =
        |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap_or_else(|_| panic!("{bytes:?} is no number")));
    let newest = get(engine, A, b"newest").map_or(0, |value| number(&value));
    let all_numbers: Vec<u64> = all(engine, B).iter().map(|(key, _)| number(key)).collect();
    assert!(all_numbers.iter().copied().eq(1..=newest), "space A says {newest}, space B has {all_numbers:?}");
    for (key, value) in all(engine, B) {
        assert_eq!(value, vec![number(&key) as u8; 100]);
    }
    let only_newest: Vec<u64> = all(engine, C).iter().map(|(key, _)| number(key)).collect();
    let expected: Vec<u64> = (newest > 0).then_some(newest).into_iter().collect();
    assert_eq!(only_newest, expected, "space A says {newest}");
    newest
}
