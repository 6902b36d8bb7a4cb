//! Many threads on one engine.

use std::{
    ops::ControlFlow,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use super::{A, B, Subject, all, get, must};
use crate::{Direction, Durability, WriteBatch};

const ROWS: u8 = 200;
const ROUNDS: u64 = 300;

/// The writer gives every row the same number, round after round; a scan must never see two numbers.
pub(super) fn readers_see_whole_batches(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let write_round = |round: u64| {
        let mut batch = WriteBatch::new();
        batch.delete_range(A, [0].to_vec(), [ROWS].to_vec());
        for row in 0..ROWS {
            batch.put(A, [row].to_vec(), round.to_be_bytes().to_vec());
        }
        batch.put(B, &b"round"[..], round.to_be_bytes().to_vec());
        must(engine.write(batch, Durability::Deferred));
    };
    write_round(1);
    let done = AtomicBool::new(false);
    let scans = AtomicU64::new(0);
    thread::scope(|scope| {
        for direction in [Direction::Forward, Direction::Backward] {
            let (done, scans) = (&done, &scans);
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) {
                    let floor = get(engine, B, b"round");
                    let mut rounds = Vec::with_capacity(usize::from(ROWS));
                    must(engine.scan(A, b"", b"", direction, &mut |_, value| {
                        rounds.push(value.to_vec());
                        ControlFlow::Continue(())
                    }));
                    assert_eq!(rounds.len(), usize::from(ROWS), "a scan saw a half-applied batch");
                    assert!(rounds.iter().all(|round| *round == rounds[0]), "a scan saw two batches at once");
                    assert!(Some(&rounds[0]) >= floor.as_ref(), "a scan saw less than an earlier get");
                    scans.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 2..=ROUNDS {
            write_round(round);
        }
        // The readers get their turn even where one thread runs at a time.
        while scans.load(Ordering::SeqCst) < 10 {
            thread::yield_now();
        }
        done.store(true, Ordering::SeqCst);
    });
}

pub(super) fn writers_lose_nothing(subject: &mut dyn Subject) {
    let engine = subject.engine();
    thread::scope(|scope| {
        for writer in 0..4_u8 {
            scope.spawn(move || {
                for number in 0..ROUNDS {
                    let key = [&[writer][..], &number.to_be_bytes()].concat();
                    let mut batch = WriteBatch::new();
                    batch.put(A, key.clone(), &b""[..]);
                    batch.put(B, key, &b""[..]);
                    must(engine.write(batch, Durability::Deferred));
                }
            });
        }
    });
    let written = all(engine, A);
    assert_eq!(written.len() as u64, 4 * ROUNDS);
    assert_eq!(written, all(engine, B));
}
