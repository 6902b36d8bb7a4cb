//! Ordered scans on a consistent view.

use std::ops::ControlFlow;

use super::{A, B, C, Subject, all, must, put, scan};
use crate::{Direction, Durability, Space, WriteBatch};

/// Enough pairs to make an engine that copies in chunks take several.
const MANY: u32 = 1_000;

/// A range, and the keys in it.
type Case<'a> = (&'a [u8], &'a [u8], &'a [&'a [u8]]);

pub(super) fn ordered_and_bounded(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let keys: [&[u8]; 6] = [b"a", b"b", b"ba", b"c", b"d", b"\xff"];
    // Written out of order, in two batches.
    for key in [b"c" as &[u8], b"\xff", b"a"] {
        put(engine, A, &[(key, b"v")]);
    }
    put(engine, A, &[(b"d", b"v"), (b"ba", b"v"), (b"b", b"v")]);
    put(engine, B, &[(b"bb", b"in another space")]);

    let cases: [Case<'_>; 12] = [
        (b"", b"", &keys),
        (b"b", b"", &keys[1..]),
        (b"", b"c", &keys[..3]),
        (b"b", b"d", &keys[1..4]),
        (b"aa", b"bz", &keys[1..3]),
        (b"b", b"b\0", &keys[1..2]),
        (b"b", b"b", &[]),
        (b"d", b"b", &[]),
        (b"bb", b"bz", &[]),
        (b"\xff\xff", b"", &[]),
        (b"\xff", b"", &keys[5..]),
        (b"", b"\0", &[]),
    ];
    for (from, to, expected) in cases {
        let forward = keys_of(&scan(engine, A, from, to, Direction::Forward));
        assert_eq!(forward, expected, "forward over {from:?}..{to:?}");
        let mut backward = keys_of(&scan(engine, A, from, to, Direction::Backward));
        backward.reverse();
        assert_eq!(backward, expected, "backward over {from:?}..{to:?}");
    }
}

pub(super) fn bytewise_order(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let mut keys: Vec<Vec<u8>> = (0..=u8::MAX).flat_map(|byte| [vec![byte], vec![byte, 0], vec![byte, 255]]).collect();
    keys.push(Vec::new());
    let mut batch = WriteBatch::new();
    for key in keys.iter().rev() {
        batch.put(A, key.clone(), &b""[..]);
    }
    must(engine.write(batch, Durability::Deferred));
    keys.sort();
    assert_eq!(keys_of(&all(engine, A)), keys);
    keys.reverse();
    assert_eq!(keys_of(&scan(engine, A, b"", b"", Direction::Backward)), keys);
}

pub(super) fn ends_at_break(subject: &mut dyn Subject) {
    let engine = subject.engine();
    fill(subject);
    for direction in [Direction::Forward, Direction::Backward] {
        for limit in [1, 127, 128, 129, 500] {
            let mut seen = 0;
            must(engine.scan(A, b"", b"", direction, &mut |_, _| {
                seen += 1;
                if seen == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }));
            assert_eq!(seen, limit, "the visitor said Break at {limit}");
        }
    }
}

pub(super) fn does_not_see_its_visitors_writes(subject: &mut dyn Subject) {
    for direction in [Direction::Forward, Direction::Backward] {
        // Each changes all that is still ahead, at once or step by step.
        for change_at in [0, 1, 130, 700, MANY - 1] {
            let engine = subject.engine();
            fill(subject);
            let before = scan(engine, A, b"", b"", direction);
            let mut seen = Vec::new();
            must(engine.scan(A, b"", b"", direction, &mut |key, value| {
                if seen.len() as u32 == change_at {
                    let mut batch = WriteBatch::new();
                    batch.delete_range(A, key_of(0), key_of(MANY / 2));
                    for number in MANY / 2..MANY {
                        batch.put(A, key_of(number), &b"changed"[..]);
                    }
                    must(engine.write(batch, Durability::Deferred));
                } else {
                    let mut batch = WriteBatch::new();
                    batch.put(A, [key, b"+"].concat(), &b"added behind"[..]);
                    batch.delete(A, key.to_vec());
                    must(engine.write(batch, Durability::Deferred));
                }
                seen.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            }));
            assert!(seen == before, "{direction:?}, changed at {change_at}: the view of {} pairs moved", before.len());
            assert!(scan(engine, A, b"", b"", direction) != before, "the writes had no effect at all");
        }
    }
}

pub(super) fn nested(subject: &mut dyn Subject) {
    let engine = subject.engine();
    fill(subject);
    let mut outer = 0;
    must(engine.scan(A, b"", b"", Direction::Forward, &mut |key, _| {
        outer += 1;
        let rest = scan(engine, A, key, b"", Direction::Backward);
        assert_eq!(rest.len() as u32, MANY, "later scans see what the visitor wrote");
        // Replaces this key by one at the end, so that the number of keys from here on stays.
        let mut batch = WriteBatch::new();
        batch.put(A, [b"z", key].concat(), &b""[..]);
        must(engine.write(batch, Durability::Deferred));
        if outer == 300 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }));
    assert_eq!(all(engine, A).len() as u32, MANY + 300);
}

pub(super) fn everything_is_one_view(subject: &mut dyn Subject) {
    let engine = subject.engine();
    fill(subject);
    put(engine, C, &[(b"", b"empty key"), (b"\xff", b"")]);
    let of = |space: Space| all(engine, space).into_iter().map(move |(key, value)| (space, key, value));
    let before: Vec<_> = [A, B, C].into_iter().flat_map(of).collect();
    let (mut begun, mut seen) = (0, Vec::new());
    must(engine.scan_all(
        &mut || {
            begun += 1;
            let mut batch = WriteBatch::new();
            batch.delete_range(A, key_of(5), key_of(50));
            batch.put(C, &b"later"[..], &b"not seen"[..]);
            must(engine.write(batch, Durability::Deferred));
        },
        &mut |space, key, value| {
            if seen.len() == 3 {
                put(engine, B, &[(b"meanwhile", b"not seen either")]);
            }
            seen.push((space, key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        },
    ));
    assert_eq!(begun, 1);
    assert!(seen == before, "{} pairs instead of {}, or others", seen.len(), before.len());
    assert_eq!(all(engine, C).len(), 3, "the writes had no effect at all");
}

pub(super) fn everything_ends_at_break(subject: &mut dyn Subject) {
    fill(subject);
    let mut seen = 0;
    must(subject.engine().scan_all(&mut || (), &mut |_, _, _| {
        seen += 1;
        if seen == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }));
    assert_eq!(seen, 7);
}

fn fill(subject: &dyn Subject) {
    let engine = subject.engine();
    let mut batch = WriteBatch::new();
    batch.delete_range(A, &b""[..], &b"\xff"[..]);
    for number in 0..MANY {
        batch.put(A, key_of(number), number.to_be_bytes().to_vec());
    }
    must(engine.write(batch, Durability::Deferred));
}

fn key_of(number: u32) -> Vec<u8> {
    [b"k" as &[u8], &number.to_be_bytes()].concat()
}

fn keys_of(pairs: &super::Pairs) -> Vec<Vec<u8>> {
    pairs.iter().map(|(key, _)| key.clone()).collect()
}
