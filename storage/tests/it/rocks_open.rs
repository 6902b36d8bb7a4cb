//! Directories that RocksDB cannot open.

use std::fs;

use tandem_storage::{Durability, Engine, Error, RocksEngine, RocksOptions, Space, SpaceOptions, WriteBatch};
use tempfile::TempDir;

use crate::subjects::SPACES;

fn unusable(result: Result<RocksEngine, Error>) -> String {
    match result {
        Err(error @ Error::Unusable { .. }) => error.to_string(),
        other => panic!("not Unusable: {other:?}"),
    }
}

#[test]
fn a_second_open_is_locked() {
    let dir = TempDir::new().unwrap();
    for options in [RocksOptions::log(), RocksOptions::state()] {
        let path = dir.path().join(format!("{:?}", options.role));
        let held = RocksEngine::open(&path, &options, &SPACES).unwrap();
        let second = RocksEngine::open(&path, &options, &SPACES);
        assert!(matches!(&second, Err(Error::Locked(locked)) if *locked == path), "{second:?}");
        drop(held);
        RocksEngine::open(&path, &options, &SPACES).unwrap();
    }
}

#[test]
fn a_path_that_is_no_directory_says_so() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a database").unwrap();
    let text = unusable(RocksEngine::open(&file, &RocksOptions::state(), &SPACES));
    assert!(text.contains("it is a file"), "{text}");
    let text = unusable(RocksEngine::open(file.join("below"), &RocksOptions::state(), &SPACES));
    assert!(text.contains("a part of the path is a file"), "{text}");
}

#[test]
fn parents_are_created() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("a").join("b").join("c");
    RocksEngine::open(&path, &RocksOptions::log(), &SPACES).unwrap();
    assert!(path.is_dir());
}

#[test]
fn spaces_of_another_version_are_named() {
    let dir = TempDir::new().unwrap();
    drop(RocksEngine::open(dir.path(), &RocksOptions::state(), &SPACES).unwrap());
    let text = unusable(RocksEngine::open(dir.path(), &RocksOptions::state(), &SPACES[..2]));
    assert!(text.contains("appended") && !text.contains("plain"), "{text}");
}

#[test]
fn new_spaces_are_added_to_an_existing_directory() {
    let dir = TempDir::new().unwrap();
    let engine = RocksEngine::open(dir.path(), &RocksOptions::state(), &SPACES[..1]).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(Space(0), &b"key"[..], &b"value"[..]);
    engine.write(batch, Durability::Deferred).unwrap();
    drop(engine);
    let engine = RocksEngine::open(dir.path(), &RocksOptions::state(), &SPACES).unwrap();
    assert!(engine.get(Space(0), b"key").unwrap().is_some());
    assert_eq!(engine.get(Space(2), b"key").unwrap(), None);
}

#[test]
fn wrong_settings_are_named_with_their_value() {
    let dir = TempDir::new().unwrap();
    let state = RocksOptions::state();
    let cases = [
        (RocksOptions { memtable_bytes: 7, ..state.clone() }, "memtable_bytes is 7"),
        (RocksOptions { memtable_count: 1, ..state.clone() }, "memtable_count is 1"),
        (RocksOptions { background_jobs: 0, ..state.clone() }, "background_jobs is 0"),
        (RocksOptions { max_open_files: 0, ..state.clone() }, "max_open_files is 0"),
    ];
    for (options, expected) in cases {
        let text = unusable(RocksEngine::open(dir.path(), &options, &SPACES));
        assert!(text.contains(expected), "{text}");
    }
    let twice = [SpaceOptions::named("twice"), SpaceOptions::named("twice")];
    for spaces in [&twice[..], &[SpaceOptions::named("default")], &[SpaceOptions::named("")], &[]] {
        unusable(RocksEngine::open(dir.path(), &state, spaces));
    }
}
