//! The memory engine's checkpoint file.

use std::fs;

use tandem_storage::{Durability, Engine, Error, MemoryEngine, Space, WriteBatch};
use tempfile::TempDir;

use crate::subjects::pairs;

fn engine() -> MemoryEngine {
    let engine = MemoryEngine::new(2);
    let mut batch = WriteBatch::new();
    for number in 0..40_u8 {
        batch.put(Space(number % 2), vec![number], vec![number; 70_000]);
    }
    engine.write(batch, Durability::Deferred).unwrap();
    engine
}

#[test]
fn a_checkpoint_of_several_records_comes_back() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("checkpoint");
    let engine = engine();
    engine.checkpoint(&dir).unwrap();
    let copy = MemoryEngine::open(&dir, 3).unwrap();
    for space in [Space(0), Space(1)] {
        assert!(pairs(&copy, space) == pairs(&engine, space));
    }
    assert_eq!(pairs(&copy, Space(2)), []);
    assert_eq!(copy.size_bytes(), engine.size_bytes());
}

#[test]
fn any_damage_is_reported() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("checkpoint");
    engine().checkpoint(&dir).unwrap();
    let file = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let intact = fs::read(&file).unwrap();
    let is_corrupt = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        matches!(MemoryEngine::open(&dir, 2), Err(Error::Corrupt { .. }))
    };
    let last = intact.len() - 1;
    for offset in (0..64).chain([intact.len() / 2, last - 12, last - 11, last]) {
        let mut flipped = intact.clone();
        flipped[offset] ^= 0x10;
        assert!(is_corrupt(&flipped), "a flipped bit at {offset} of {}", intact.len());
    }
    for length in [0, 1, 15, 16, 17, intact.len() / 2, last - 12, last] {
        assert!(is_corrupt(&intact[..length]), "cut to {length} of {}", intact.len());
    }
    assert!(is_corrupt(&[&intact[..], b"x"].concat()), "a byte more");
    assert!(!is_corrupt(&intact));
}

#[test]
fn wrong_directories_say_what_to_do() {
    let scratch = TempDir::new().unwrap();
    let empty = MemoryEngine::open(scratch.path(), 2).unwrap_err();
    assert!(matches!(empty, Error::Unusable { .. }), "{empty}");
    let dir = scratch.path().join("checkpoint");
    engine().checkpoint(&dir).unwrap();
    let text = MemoryEngine::open(&dir, 1).unwrap_err().to_string();
    assert!(text.contains("it has 2 spaces, this program knows 1"), "{text}");
}
