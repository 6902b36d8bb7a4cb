//! What a batch does once it is written.

use std::ops::ControlFlow;

use super::{A, B, C, SPACE_COUNT, Subject, all, get, must, put};
use crate::{Direction, Durability, Error, Space, WriteBatch};

pub(super) fn reaches_all_spaces(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let mut batch = WriteBatch::new();
    batch.put(A, &b"key"[..], &b"in a"[..]);
    batch.put(B, &b"key"[..], &b"in b"[..]);
    must(engine.write(batch, Durability::Deferred));
    assert_eq!(get(engine, A, b"key").as_deref(), Some(&b"in a"[..]));
    assert_eq!(get(engine, B, b"key").as_deref(), Some(&b"in b"[..]));
    assert_eq!(get(engine, C, b"key"), None, "a space that the batch does not name");
}

pub(super) fn operations_are_ordered(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let mut batch = WriteBatch::new();
    batch.put(A, &b"k1"[..], &b"first"[..]);
    batch.put(A, &b"k1"[..], &b"second"[..]);
    batch.delete(A, &b"k2"[..]);
    batch.put(A, &b"k2"[..], &b"after the delete"[..]);
    batch.put(A, &b"k3"[..], &b"before the delete"[..]);
    batch.delete(A, &b"k3"[..]);
    batch.put(A, &b"k4"[..], &b"before the range"[..]);
    batch.delete_range(A, &b"k4"[..], &b"k6"[..]);
    batch.put(A, &b"k5"[..], &b"after the range"[..]);
    must(engine.write(batch, Durability::Deferred));
    let expected = [("k1", "second"), ("k2", "after the delete"), ("k5", "after the range")];
    assert_eq!(all(engine, A), expected.map(|(key, value)| (key.into(), value.into())));
}

pub(super) fn unknown_space_is_refused(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let unknown = Space(SPACE_COUNT as u8);
    let mut batch = WriteBatch::new();
    batch.put(A, &b"key"[..], &b"value"[..]);
    batch.put(unknown, &b"key"[..], &b"value"[..]);
    let refused = |result: Result<(), Error>| matches!(result, Err(Error::Unusable { .. }));
    assert!(refused(engine.write(batch, Durability::Deferred)), "a write to a space that does not exist");
    assert_eq!(all(engine, A), [], "the refused batch left a trace");
    assert!(refused(engine.get(unknown, b"key").map(drop)), "a get from a space that does not exist");
    let scanned = engine.scan(unknown, b"", b"", Direction::Forward, &mut |_, _| ControlFlow::Continue(()));
    assert!(refused(scanned), "a scan of a space that does not exist");
    put(engine, A, &[(b"key", b"the engine goes on")]);
}

pub(super) fn put_replaces_and_delete_removes(subject: &mut dyn Subject) {
    let engine = subject.engine();
    put(engine, A, &[(b"k", b"a long first value"), (b"l", b"1")]);
    put(engine, A, &[(b"k", b"2")]);
    assert_eq!(get(engine, A, b"k").as_deref(), Some(&b"2"[..]));
    let mut batch = WriteBatch::new();
    batch.delete(A, &b"k"[..]);
    batch.delete(A, &b"absent"[..]);
    must(engine.write(batch, Durability::Deferred));
    assert_eq!(get(engine, A, b"k"), None);
    assert_eq!(all(engine, A), [(b"l".to_vec(), b"1".to_vec())]);
    put(engine, A, &[(b"k", b"3")]);
    assert_eq!(get(engine, A, b"k").as_deref(), Some(&b"3"[..]), "a key comes back after its deletion");
}

/// A range, and the keys that are left after its deletion.
type Case<'a> = (&'a [u8], &'a [u8], &'a [&'a [u8]]);

pub(super) fn delete_range_edges(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let keys: [&[u8]; 6] = [b"", b"a", b"b", b"b\0", b"c", b"\xff\xff"];
    let cases: [Case<'_>; 8] = [
        (b"a", b"c", &[b"", b"c", b"\xff\xff"]),
        (b"b", b"b\0", &[b"", b"a", b"b\0", b"c", b"\xff\xff"]),
        (b"b", b"b", &keys),
        (b"c", b"a", &keys),
        (b"a", b"", &keys),
        (b"", b"", &keys),
        (b"", b"a", &[b"a", b"b", b"b\0", b"c", b"\xff\xff"]),
        (b"c", b"\xff\xff", &[b"", b"a", b"b", b"b\0", b"\xff\xff"]),
    ];
    for (from, to, expected) in cases {
        put(engine, A, &keys.map(|key| (key, &b"value"[..])));
        put(engine, B, &keys.map(|key| (key, &b"value"[..])));
        let mut batch = WriteBatch::new();
        batch.delete_range(A, from.to_vec(), to.to_vec());
        must(engine.write(batch, Durability::Deferred));
        let left: Vec<_> = all(engine, A).into_iter().map(|(key, _)| key).collect();
        assert_eq!(left, expected, "after deleting {from:?}..{to:?}");
        for key in keys {
            assert_eq!(get(engine, A, key).is_some(), expected.contains(&key), "{key:?} after {from:?}..{to:?}");
        }
        assert_eq!(all(engine, B).len(), keys.len(), "another space lost keys");
    }
}

pub(super) fn any_bytes(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let keys: [&[u8]; 7] = [b"", b"\0", b"\0\0", b"\0\xff", b"a\0b", b"\xff", b"\xff\xff"];
    for key in keys {
        put(engine, A, &[(key, key)]);
        put(engine, B, &[(key, b"")]);
    }
    for key in keys {
        assert_eq!(get(engine, A, key).as_deref(), Some(key));
        assert_eq!(get(engine, B, key).as_deref(), Some(&b""[..]), "an empty value is not an absent one");
    }
    assert_eq!(get(engine, A, b"\0\0\0"), None);
    assert_eq!(all(engine, A), keys.map(|key| (key.to_vec(), key.to_vec())));
}

pub(super) fn big_values(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let value: Vec<u8> = (0..1_u32 << 20).map(|position| (position.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for key in [b"1", b"2", b"3"] {
        let mut batch = WriteBatch::new();
        batch.put(A, key.to_vec(), value.clone());
        must(engine.write(batch, Durability::Synced));
    }
    assert_eq!(get(engine, A, b"2").as_ref(), Some(&value));
    assert!(all(engine, A).iter().all(|(_, found)| *found == value));
}

pub(super) fn empty_batch(subject: &mut dyn Subject) {
    let engine = subject.engine();
    must(engine.write(WriteBatch::new(), Durability::Deferred));
    must(engine.write(WriteBatch::new(), Durability::Synced));
    assert_eq!(all(engine, A), []);
}

pub(super) fn size_follows_contents(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let empty = engine.size_bytes();
    // Not compressible, so that it counts in full wherever it lies.
    let mut state = 1_u64;
    let value: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(4 << 20)
    .collect();
    put(engine, A, &[(b"key", &value)]);
    let grown = engine.size_bytes().saturating_sub(empty);
    assert!(grown >= 4 << 20, "4 MiB were written, the size grew by {grown} bytes");
    assert!(!engine.name().is_empty());
}
