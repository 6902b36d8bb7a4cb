//! Checkpoints.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use super::{A, B, C, Subject, all, get, must, put};
use crate::{Durability, Error, WriteBatch};

pub(super) fn is_isolated(subject: &mut dyn Subject) {
    let engine = subject.engine();
    put(engine, A, &[(b"1", b"old"), (b"2", b"old")]);
    put(engine, B, &[(b"", b""), (b"\xff", &[7; 3 << 20])]);
    let dir = subject.scratch().join("checkpoint");
    must(engine.checkpoint(&dir));

    let mut batch = WriteBatch::new();
    batch.put(A, &b"1"[..], &b"new"[..]);
    batch.delete(A, &b"2"[..]);
    batch.put(A, &b"3"[..], &b"new"[..]);
    batch.delete_range(B, &b""[..], &b"\xff\xff"[..]);
    must(engine.write(batch, Durability::Synced));

    let copy = must(subject.open_checkpoint(&dir));
    assert_eq!(all(&*copy, A), [("1", "old"), ("2", "old")].map(|(key, value)| (key.into(), value.into())));
    assert_eq!(all(&*copy, B), [(vec![], vec![]), (vec![0xff], vec![7; 3 << 20])]);
    assert_eq!(all(&*copy, C), []);

    put(&*copy, A, &[(b"1", b"changed in the copy")]);
    assert_eq!(get(engine, A, b"1").as_deref(), Some(&b"new"[..]), "a write to the copy reached the original");
    drop(copy);
    must(fs::remove_dir_all(&dir).map_err(|error| Error::from_io("removing a checkpoint", error)));
    assert_eq!(get(engine, A, b"3").as_deref(), Some(&b"new"[..]), "removing the copy hurt the original");
    must(engine.flush());
}

pub(super) fn is_a_data_directory(subject: &mut dyn Subject) {
    put(subject.engine(), A, &[(b"1", b"from the original")]);
    let first = subject.scratch().join("first");
    must(subject.engine().checkpoint(&first));
    let copy = must(subject.open_checkpoint(&first));
    put(&*copy, C, &[(b"2", b"from the copy")]);
    let second = subject.scratch().join("second");
    must(copy.checkpoint(&second));
    drop(copy);
    let copy = must(subject.open_checkpoint(&second));
    assert_eq!(get(&*copy, A, b"1").as_deref(), Some(&b"from the original"[..]));
    assert_eq!(get(&*copy, C, b"2").as_deref(), Some(&b"from the copy"[..]));
    assert_eq!(all(subject.engine(), C), []);
}

pub(super) fn refuses_bad_targets(subject: &mut dyn Subject) {
    let engine = subject.engine();
    put(engine, A, &[(b"1", b"")]);
    let dir = subject.scratch().join("checkpoint");
    must(engine.checkpoint(&dir));
    for target in [dir.clone(), subject.scratch().join("absent").join("checkpoint")] {
        let refused = engine.checkpoint(&target);
        assert!(matches!(refused, Err(Error::Unusable { .. })), "{} gave {refused:?}", target.display());
    }
    put(engine, A, &[(b"2", b"the engine goes on")]);
    assert_eq!(
        all(&*must(subject.open_checkpoint(&dir)), A),
        [(b"1".to_vec(), vec![])],
        "the first one was overwritten"
    );
}

pub(super) fn consistent_under_writes(subject: &mut dyn Subject) {
    let engine = subject.engine();
    let stop = AtomicBool::new(false);
    let dirs: Vec<_> = (0..5).map(|number| subject.scratch().join(format!("checkpoint-{number}"))).collect();
    let floors = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                number += 1;
                let mut batch = WriteBatch::new();
                for space in [A, B, C] {
                    batch.put(space, &b"newest"[..], number.to_be_bytes().to_vec());
                }
                must(engine.write(batch, Durability::Deferred));
            }
        });
        let floors: Vec<_> = dirs
            .iter()
            .map(|dir| {
                let floor = get(engine, A, b"newest");
                must(engine.checkpoint(dir));
                floor
            })
            .collect();
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap_or_else(|_| panic!("the writer failed"));
        floors
    });
    for (dir, floor) in dirs.iter().zip(floors) {
        let copy = must(subject.open_checkpoint(dir));
        let found = [A, B, C].map(|space| get(&*copy, space, b"newest"));
        assert!(found[0] == found[1] && found[1] == found[2], "spaces of a checkpoint disagree: {found:?}");
        assert!(found[0] >= floor, "a checkpoint holds {:?}, but {floor:?} was written before it", found[0]);
    }
}
