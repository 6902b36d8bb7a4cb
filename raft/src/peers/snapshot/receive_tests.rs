use bytes::Bytes;

use super::*;
use crate::{contents::KnownSums, type_config::SnapshotMeta};

const FILES: [(&str, &[u8]); 3] = [("a", b"first file"), ("b", b""), ("c", b"third file")];

/// A snapshot with these files.
fn contents(files: &[(&str, &[u8])]) -> Contents {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    Contents::of(dir.path(), SnapshotMeta::default(), &mut KnownSums::default()).unwrap()
}

fn begin(receiver: &Receiver, transfer: u64, files: &[(&str, &[u8])], dir: &Path) {
    receiver.begin(transfer, Vote::new_committed(1, 1), contents(files), dir.to_owned()).unwrap();
}

fn piece(transfer: u64, place: u32, offset: u64, bytes: &'static [u8]) -> SnapshotPiece {
    SnapshotPiece { transfer, place, offset, bytes: Bytes::from_static(bytes) }
}

#[test]
fn what_came_before_the_connection_ended_is_not_asked_for_again() {
    let home = tempfile::tempdir().unwrap();
    let (dir, complete) = (home.path().join("incoming"), home.path().join("received"));
    let receiver = Receiver::default();
    begin(&receiver, 1, &FILES, &dir);
    assert_eq!(receiver.file(1, 0).unwrap(), 0);
    assert_eq!(receiver.piece(&piece(1, 0, 0, b"first ")).unwrap(), 6);

    // Another process, even.
    let receiver = Receiver::default();
    begin(&receiver, 2, &FILES, &dir);
    assert!(receiver.file(1, 0).is_err(), "the first transfer is over");
    assert_eq!(receiver.file(2, 0).unwrap(), 6);
    assert!(receiver.piece(&piece(2, 0, 0, b"first ")).is_err(), "what is there already");
    assert_eq!(receiver.piece(&piece(2, 0, 6, b"file")).unwrap(), 10);
    assert_eq!(receiver.file(2, 1).unwrap(), 0, "an empty file is complete");
    assert!(receiver.end(2, &complete).unwrap_err().to_string().contains("\"c\""));

    begin(&receiver, 3, &FILES, &dir);
    assert_eq!(receiver.file(3, 0).unwrap(), 10);
    receiver.file(3, 1).unwrap();
    receiver.file(3, 2).unwrap();
    receiver.piece(&piece(3, 2, 0, b"third file")).unwrap();
    let (_, snapshot) = receiver.end(3, &complete).unwrap();
    assert_eq!(fs::read(snapshot.snapshot.path.join("c")).unwrap(), b"third file");
    assert!(!dir.exists(), "the next one begins with nothing");
}

#[test]
fn another_snapshot_goes_on_with_the_files_that_it_shares_and_nothing_else_stays() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("incoming");
    let receiver = Receiver::default();
    begin(&receiver, 1, &FILES, &dir);
    for (place, bytes) in [(0, b"first file"), (2, b"third file")] {
        receiver.file(1, place).unwrap();
        receiver.piece(&piece(1, place, 0, bytes)).unwrap();
    }
    // The same name and length, other bytes: of another node, say.
    begin(&receiver, 2, &[("a", b"FIRST file"), ("c", b"third file"), ("d", b"new")], &dir);
    assert_eq!(receiver.file(2, 0).unwrap(), 0);
    assert_eq!(receiver.file(2, 1).unwrap(), 10);
    assert!(!dir.join("b").exists());
    begin(&receiver, 3, &[("d", b"new")], &dir);
    let names: BTreeSet<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, BTreeSet::from(["CONTENTS".into()]));
}

#[test]
fn a_damaged_file_is_asked_for_again() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("incoming");
    let receiver = Receiver::default();
    begin(&receiver, 1, &FILES, &dir);
    receiver.file(1, 0).unwrap();
    assert_eq!(receiver.piece(&piece(1, 0, 0, b"first lie!")).unwrap(), 0, "on the way");
    assert_eq!(receiver.piece(&piece(1, 0, 0, b"first file")).unwrap(), 10);
    fs::write(dir.join("a"), b"first tile").unwrap();
    begin(&receiver, 2, &FILES, &dir);
    assert_eq!(receiver.file(2, 0).unwrap(), 0, "on this disk");
    fs::write(dir.join("CONTENTS"), b"no record").unwrap();
    begin(&receiver, 3, &FILES, &dir);
    assert!(!dir.join("a").exists(), "nobody knows what it is");
    assert!(receiver.file(3, 9).is_err() && receiver.piece(&piece(3, 0, 0, b"x")).is_err());
}
