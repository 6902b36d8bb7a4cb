//! RocksDB's errors as ours.
//!
//! The binding hands out a text that begins with a status code; [`rocksdb::ErrorKind`] is parsed from it. What the code does
//! not tell (a full disk, a held lock, a missing file) stands only in the text, so this file reads it, in one place and
//! with tests that cause most of the real errors. RocksDB is pinned to one version; look here when that changes.

use std::{io, path::Path};

use rocksdb::ErrorKind;

use crate::{Error, directory};

/// Texts of `ENOSPC` and `EDQUOT`, and of RocksDB's own limit.
const FULL: [&str; 3] = ["No space left on device", "Disk quota exceeded", "Space limit reached"];

/// How RocksDB's `LockFile` complains: about this process, and about another one.
const HELD_HERE: &str = "lock hold by current process";
const HELD_ELSEWHERE: &str = "While lock file";

const NOT_FOUND: &str = "No such file or directory";
const NO_PERMISSION: [&str; 3] = ["Permission denied", "Operation not permitted", "Read-only file system"];

/// An error of an open engine.
pub(super) fn of(doing: &'static str, error: rocksdb::Error) -> Error {
    let kind = error.kind();
    let text = error.into_string();
    if has_any(&text, &FULL) {
        return Error::Full { doing };
    }
    match kind {
        ErrorKind::Corruption => Error::Corrupt { doing, detail: text },
        // A file that the manifest names is gone.
        ErrorKind::IOError if text.contains(NOT_FOUND) => Error::Corrupt { doing, detail: text },
        ErrorKind::IOError
        | ErrorKind::NotFound
        | ErrorKind::NotSupported
        | ErrorKind::InvalidArgument
        | ErrorKind::MergeInProgress
        | ErrorKind::Incomplete
        | ErrorKind::ShutdownInProgress
        | ErrorKind::TimedOut
        | ErrorKind::Aborted
        | ErrorKind::Busy
        | ErrorKind::Expired
        | ErrorKind::TryAgain
        | ErrorKind::CompactionTooLarge
        | ErrorKind::ColumnFamilyDropped
        | ErrorKind::Unknown => Error::Io { doing, source: io::Error::other(text) },
    }
}

/// An error of opening `path`.
pub(super) fn of_open(path: &Path, error: rocksdb::Error) -> Error {
    let text: &str = error.as_ref();
    match error.kind() {
        ErrorKind::IOError if text.contains(HELD_HERE) || text.contains(HELD_ELSEWHERE) => {
            Error::Locked(path.to_path_buf())
        }
        ErrorKind::IOError if has_any(text, &NO_PERMISSION) => directory::unusable(
            path,
            format!("no write permission ({text}); change its owner or choose another directory"),
        ),
        ErrorKind::InvalidArgument | ErrorKind::NotSupported => {
            directory::unusable(path, format!("{text}; it was probably written by another version, use that one"))
        }
        _ => of("opening the data directory", error),
    }
}

fn has_any(text: &str, needles: &[&str]) -> bool {
    needles.iter().any(|needle| text.contains(needle))
}
