//! Torn logs and damaged files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tandem_storage::{Durability, Engine, Error, RocksEngine, RocksOptions, Space, WriteBatch};
use tempfile::TempDir;

use crate::subjects::{SPACES, copy_files, pairs};

const BATCHES: u64 = 50;

fn open(dir: &Path, options: &RocksOptions) -> Result<RocksEngine, Error> {
    RocksEngine::open(dir, options, &SPACES)
}

/// The files of a log with [`BATCHES`] batches over all spaces, as a killed process leaves them.
fn killed_log(value_bytes: usize) -> (TempDir, PathBuf) {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let engine = open(&dir, &RocksOptions::log()).unwrap();
    for number in 0..BATCHES {
        let mut batch = WriteBatch::new();
        for space in 0..3 {
            batch.put(Space(space), number.to_be_bytes().to_vec(), vec![number as u8; value_bytes]);
        }
        engine.write(batch, Durability::Synced).unwrap();
    }
    let copy = scratch.path().join("killed");
    copy_files(&dir, &copy);
    (scratch, copy)
}

fn newest_file(dir: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|found| found == extension)).max().unwrap()
}

/// How many batches are there, after checking that they are the first ones and whole.
fn prefix_length(engine: &RocksEngine) -> u64 {
    let first = pairs(engine, Space(0));
    assert!(
        first
            .iter()
            .map(|(key, _)| key.clone())
            .eq((0..first.len() as u64).map(|number| number.to_be_bytes().to_vec()))
    );
    for space in [Space(1), Space(2)] {
        assert!(pairs(engine, space) == first, "a batch was torn apart");
    }
    first.len() as u64
}

#[test]
fn a_log_cut_anywhere_opens_with_a_prefix() {
    let (scratch, killed) = killed_log(100);
    let log = newest_file(&killed, "log");
    let bytes = fs::read(&log).unwrap();
    let record = bytes.len() / BATCHES as usize;
    let mut lengths = Vec::new();
    for (case, cut) in
        [0, 1, 5, 8, record / 2, record - 1, record + 3, 10 * record + 7, bytes.len() - 3].into_iter().enumerate()
    {
        let dir = scratch.path().join(format!("cut-{case}"));
        copy_files(&killed, &dir);
        fs::write(dir.join(log.file_name().unwrap()), &bytes[..bytes.len() - cut]).unwrap();
        let engine = open(&dir, &RocksOptions::log()).unwrap();
        lengths.push(prefix_length(&engine));
        let mut batch = WriteBatch::new();
        batch.put(Space(0), &b"\xff"[..], &b"the engine goes on"[..]);
        engine.write(batch, Durability::Synced).unwrap();
        drop(engine);
        let engine = open(&dir, &RocksOptions::log()).unwrap();
        assert_eq!(pairs(&engine, Space(0)).len() as u64, lengths[case] + 1);
    }
    assert_eq!(lengths[0], BATCHES);
    assert_eq!(lengths[1], BATCHES - 1, "only the torn batch is lost");
    assert!(lengths.is_sorted_by(|longer, shorter| longer >= shorter), "{lengths:?}");
    assert_eq!(lengths.last(), Some(&0));
}

/// A write that had begun when the power failed: a header that promises more bytes than came, or preallocated zeros.
#[test]
fn an_unfinished_write_at_the_end_is_dropped() {
    let (scratch, killed) = killed_log(100);
    let log = newest_file(&killed, "log");
    let tails: [&[u8]; 4] = [b"\x01\x02\x03", b"\x11\x22\x33\x44\xff\x0f\x01unfinished", &[0; 100], &[0; 40_000]];
    for (case, tail) in tails.into_iter().enumerate() {
        let dir = scratch.path().join(format!("tail-{case}"));
        copy_files(&killed, &dir);
        let intact = fs::read(&log).unwrap();
        fs::write(dir.join(log.file_name().unwrap()), [&intact, tail].concat()).unwrap();
        assert_eq!(prefix_length(&open(&dir, &RocksOptions::log()).unwrap()), BATCHES, "tail {case}");
    }
}

/// Synced entries must not vanish in silence: a voter that forgets them can undo a commit.
#[test]
fn damage_inside_a_log_is_corruption() {
    let (scratch, killed) = killed_log(3_000);
    let log = newest_file(&killed, "log");
    let intact = fs::read(&log).unwrap();
    for (case, part) in [1, 3, 5, 7, 9].into_iter().enumerate() {
        let dir = scratch.path().join(format!("flip-{case}"));
        copy_files(&killed, &dir);
        let mut bytes = intact.clone();
        bytes[intact.len() * part / 10] ^= 0x40;
        fs::write(dir.join(log.file_name().unwrap()), bytes).unwrap();
        let outcome = open(&dir, &RocksOptions::log());
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "a flip at {part}/10 gave {outcome:?}");
    }
}

/// Pages that never reached the disk, or were lost on it, are zeros. RocksDB takes zeros for room that was made in advance.
#[test]
fn a_lost_page_inside_a_log_is_corruption() {
    let (scratch, killed) = killed_log(3_000);
    let log = newest_file(&killed, "log");
    let intact = fs::read(&log).unwrap();
    let block = 32 << 10;
    assert!(intact.len() > 6 * block);
    let lost = [
        (2 * block, 4 << 10),
        (3 * block, block),
        (block, 2 * block),
        (block + (8 << 10), 4 << 10),
        (5 * block - (4 << 10), 8 << 10),
    ];
    for (case, (from, length)) in lost.into_iter().enumerate() {
        let dir = scratch.path().join(format!("lost-{case}"));
        copy_files(&killed, &dir);
        let mut bytes = intact.clone();
        bytes[from..from + length].fill(0);
        fs::write(dir.join(log.file_name().unwrap()), bytes).unwrap();
        let outcome = open(&dir, &RocksOptions::log());
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{length} zeros at {from} gave {outcome:?}");
    }
}

/// The same from where a record begins, in the last block: all that follows would be gone, without a word from RocksDB.
#[test]
fn lost_records_before_others_are_corruption() {
    let (scratch, killed) = killed_log(100);
    let log = newest_file(&killed, "log");
    let intact = fs::read(&log).unwrap();
    assert!(intact.len() < 32 << 10, "one block");
    let mut begins = vec![0];
    while let Some(header) = intact[begins[begins.len() - 1]..].first_chunk::<7>() {
        begins.push(begins[begins.len() - 1] + 7 + usize::from(u16::from_le_bytes([header[4], header[5]])));
    }
    assert_eq!(*begins.last().unwrap(), intact.len());
    for (case, (from, to)) in [(20, 24), (0, 1), (BATCHES as usize - 2, BATCHES as usize - 1)].into_iter().enumerate() {
        let dir = scratch.path().join(format!("lost-{case}"));
        copy_files(&killed, &dir);
        let mut bytes = intact.clone();
        bytes[begins[from]..begins[to]].fill(0);
        fs::write(dir.join(log.file_name().unwrap()), bytes).unwrap();
        let outcome = open(&dir, &RocksOptions::log());
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "records {from} to {to} lost: {outcome:?}");
    }
}

/// The power or the process goes before a new database has a name for its manifest.
#[test]
fn an_interrupted_creation_is_begun_again() {
    let scratch = TempDir::new().unwrap();
    let made = scratch.path().join("made");
    drop(open(&made, &RocksOptions::log()).unwrap());
    for (case, options) in [RocksOptions::log(), RocksOptions::state()].iter().enumerate() {
        let dir = scratch.path().join(format!("interrupted-{case}"));
        fs::create_dir(&dir).unwrap();
        for file in ["IDENTITY", "LOCK", "LOG"] {
            fs::copy(made.join(file), dir.join(file)).unwrap();
        }
        fs::write(dir.join("MANIFEST-000001"), b"the beginning of it").unwrap();
        let engine = open(&dir, options).unwrap();
        let mut batch = WriteBatch::new();
        batch.put(Space(0), &b"key"[..], &b"value"[..]);
        engine.write(batch, Durability::Synced).unwrap();
        drop(engine);
        let engine = open(&dir, options).unwrap();
        assert_eq!(pairs(&engine, Space(0)).len(), 1);
        drop(engine);
        fs::remove_file(dir.join("CURRENT")).unwrap();
        let outcome = open(&dir, options);
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "what was opened once is not new: {outcome:?}");
    }
}

/// One flipped bit anywhere, the lengths of the last records included, which RocksDB itself takes for a torn write.
#[test]
fn no_flipped_bit_makes_a_log_shorter() {
    let (scratch, killed) = killed_log(40);
    let log = newest_file(&killed, "log");
    let intact = fs::read(&log).unwrap();
    let (mut refused, mut opened) = (0, 0);
    // The last records bit by bit, the rest here and there.
    let near_end = (intact.len() - 400) * 8..intact.len() * 8;
    for (case, bit) in near_end.step_by(7).chain((0..intact.len() * 8).step_by(4_999)).enumerate() {
        let dir = scratch.path().join(format!("bit-{case}"));
        copy_files(&killed, &dir);
        let mut bytes = intact.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(dir.join(log.file_name().unwrap()), bytes).unwrap();
        match open(&dir, &RocksOptions::log()) {
            Err(Error::Corrupt { .. }) => refused += 1,
            Ok(engine) => {
                assert_eq!(prefix_length(&engine), BATCHES, "bit {bit} of {} made records vanish", intact.len() * 8);
                opened += 1;
            }
            Err(other) => panic!("bit {bit}: {other}"),
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(refused > 400 && opened == 0, "{refused} refused, {opened} opened");
}

#[test]
fn damage_to_manifest_and_current_is_reported() {
    let (scratch, intact) = flushed_state();
    let manifest = fs::read_dir(&intact).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let manifest = manifest.into_iter().find(|name| name.starts_with("MANIFEST-")).unwrap();
    let length = fs::read(intact.join(&manifest)).unwrap().len();
    let manifests = (0..length * 8).step_by(61).map(|bit| (manifest.clone(), bit));
    // Bytes of the name, and of the number in it.
    let currents = (0..16 * 8).step_by(3).map(|bit| ("CURRENT".to_owned(), bit));
    for (case, (file, bit)) in manifests.chain(currents).enumerate() {
        let dir = scratch.path().join(format!("case-{case}"));
        copy_files(&intact, &dir);
        let mut bytes = fs::read(dir.join(&file)).unwrap();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(dir.join(&file), bytes).unwrap();
        let outcome = open(&dir, &RocksOptions::state());
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "bit {bit} of {file} gave {outcome:?}");
        fs::remove_dir_all(&dir).unwrap();
    }
    fs::remove_file(intact.join("CURRENT")).unwrap();
    let outcome = open(&intact, &RocksOptions::state());
    assert!(matches!(outcome, Err(Error::Corrupt { .. })), "a new database over an old one: {outcome:?}");
}

#[test]
fn a_verification_finds_a_flipped_byte_in_data_filters_and_logs() {
    let (scratch, intact) = flushed_state();
    let table = newest_file(&intact, "sst");
    let length = fs::read(&table).unwrap().len();
    let mut found = 0;
    for case in 0..40 {
        let dir = scratch.path().join(format!("table-{case}"));
        copy_files(&intact, &dir);
        let place = length * case / 40;
        flip(&dir.join(table.file_name().unwrap()), place);
        let verified = open(&dir, &RocksOptions::state()).and_then(|engine| engine.verify(&mut |_| true));
        match verified {
            Err(Error::Corrupt { .. }) => found += 1,
            // Properties and other blocks that nothing is read from.
            Ok(_) => assert!(place > length * 9 / 10, "a flip at {place} of {length} was not found"),
            Err(other) => panic!("a flip at {place} of {length}: {other}"),
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(found >= 36, "{found} of 40 found");

    // An engine that runs, whose log is damaged behind its back: the next start would find it, this finds it now.
    let dir = scratch.path().join("running");
    let engine = open(&dir, &RocksOptions::log()).unwrap();
    let mut batch = WriteBatch::new();
    batch.put(Space(0), &b"key"[..], vec![3; 5_000]);
    engine.write(batch.clone(), Durability::Synced).unwrap();
    engine.verify(&mut |_| true).unwrap();
    flip(&newest_file(&dir, "log"), 2_000);
    let verified = engine.verify(&mut |_| true);
    assert!(matches!(verified, Err(Error::Corrupt { .. })), "{verified:?}");
    let refused = engine.write(batch, Durability::Deferred);
    assert!(matches!(refused, Err(Error::Corrupt { .. })), "the engine went on writing: {refused:?}");
}

fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[place] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// The files of a state with one table file per space, closed.
fn flushed_state() -> (TempDir, PathBuf) {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let engine = open(&dir, &RocksOptions::state()).unwrap();
    let mut batch = WriteBatch::new();
    for number in 0..2_000_u64 {
        batch.put(
            Space(1),
            number.to_be_bytes().to_vec(),
            number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes().repeat(20),
        );
    }
    engine.write(batch, Durability::Synced).unwrap();
    drop(engine);
    (scratch, dir)
}

#[test]
fn a_flipped_byte_in_a_table_is_reported() {
    let (scratch, intact) = flushed_state();
    let table = newest_file(&intact, "sst");
    let bytes = fs::read(&table).unwrap();
    for part in [0, 2, 5, 8] {
        let dir = scratch.path().join(format!("flip-{part}"));
        copy_files(&intact, &dir);
        let mut bytes = bytes.clone();
        // The last bytes are index, filter and footer, which are read when the file is opened.
        let data_bytes = bytes.len() - 2_000;
        bytes[data_bytes * part / 10 + 100] ^= 1;
        fs::write(dir.join(table.file_name().unwrap()), &bytes).unwrap();
        let engine = match open(&dir, &RocksOptions::state()) {
            Ok(engine) => engine,
            Err(error) => {
                assert!(matches!(error, Error::Corrupt { .. }), "a flip at {part}/10: {error:?}");
                continue;
            }
        };
        let mut seen = 0;
        let scanned = engine.scan(Space(1), b"", b"", tandem_storage::Direction::Forward, &mut |_, _| {
            seen += 1;
            std::ops::ControlFlow::Continue(())
        });
        assert!(
            matches!(scanned, Err(Error::Corrupt { .. })),
            "a flip at {part}/10 gave {scanned:?} after {seen} keys"
        );
        let mut batch = WriteBatch::new();
        batch.put(Space(0), &b"key"[..], &b"value"[..]);
        let refused = engine.write(batch, Durability::Deferred);
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "the engine went on writing: {refused:?}");
    }
}

#[test]
fn a_missing_table_is_reported() {
    let (_scratch, dir) = flushed_state();
    fs::remove_file(newest_file(&dir, "sst")).unwrap();
    let outcome = open(&dir, &RocksOptions::state());
    let found = outcome.and_then(|engine| engine.get(Space(1), &1_u64.to_be_bytes()).map(drop));
    assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
}

#[test]
fn a_missing_log_is_reported() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    let options = RocksOptions { memtable_bytes: 64 << 10, ..RocksOptions::log() };
    let engine = open(&dir, &options).unwrap();
    let mut number = 0_u64;
    // Until several log files are live: the space written once keeps the first alive.
    while fs::read_dir(&dir).unwrap().filter(|entry| is_log(&entry.as_ref().unwrap().path())).count() < 3 {
        number += 1;
        assert!(number < 10_000, "no log file was ever closed");
        let mut batch = WriteBatch::new();
        batch.put(Space(if number == 1 { 1 } else { 0 }), number.to_be_bytes().to_vec(), vec![1; 1_000]);
        engine.write(batch, Durability::Synced).unwrap();
    }
    let copy = scratch.path().join("copy");
    copy_files(&dir, &copy);
    let mut logs: Vec<_> =
        fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap().path()).filter(|path| is_log(path)).collect();
    logs.sort();
    fs::remove_file(&logs[1]).unwrap();
    let outcome = open(&copy, &options);
    assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|found| found == "log")
}
