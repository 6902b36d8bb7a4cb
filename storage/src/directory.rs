//! Directories that must survive a crash, with errors that say what to do.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::Error;

/// Makes sure that `dir` is a directory, creating it and its parents. What is created survives a crash.
pub(crate) fn create(dir: &Path) -> Result<(), Error> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(unusable(dir, "it is a file; choose a directory")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(dir, "opening the data directory", error)),
    }
    // A directory's own entry lives in its parent, so every parent that gains an entry is synced.
    let oldest_existing = dir.ancestors().find(|path| path.is_dir()).map(Path::to_path_buf);
    fs::create_dir_all(dir).map_err(|error| refused(dir, "creating the data directory", error))?;
    for parent in dir.ancestors().skip(1) {
        sync(parent)?;
        if Some(parent) == oldest_existing.as_deref() {
            break;
        }
    }
    Ok(())
}

/// Makes the entries of `dir` survive a crash.
pub(crate) fn sync(dir: &Path) -> Result<(), Error> {
    // The parent of a relative path with one part is the empty path.
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let doing = "syncing a directory";
    File::open(dir).and_then(|file| file.sync_all()).map_err(|error| Error::from_io(doing, error))
}

/// Checks that a checkpoint may be written to `dir` and returns its parent.
pub(crate) fn checkpoint_parent(dir: &Path) -> Result<PathBuf, Error> {
    if fs::symlink_metadata(dir).is_ok() {
        return Err(unusable(dir, "a checkpoint needs a path that does not exist yet; remove it or choose another"));
    }
    let parent = match dir.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(unusable(dir, "a checkpoint cannot be the root directory; choose another")),
    };
    if !parent.is_dir() {
        return Err(unusable(dir, "the directory above it does not exist; create it first"));
    }
    Ok(parent.to_path_buf())
}

/// What the operating system said about a directory, as an error that tells a wrong path from a failing disk.
pub(crate) fn refused(dir: &Path, doing: &'static str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            unusable(dir, "no write permission; change its owner or mode, or choose another directory")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            unusable(dir, "the file system is mounted read-only; choose another directory")
        }
        io::ErrorKind::NotADirectory => {
            unusable(dir, "a part of the path is a file, not a directory; choose another path")
        }
        io::ErrorKind::NotFound => unusable(dir, "it does not exist and cannot be created there; choose another path"),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
            unusable(dir, "the path is not a valid file name; choose another path")
        }
        _ => Error::from_io(doing, error),
    }
}

pub(crate) fn unusable(path: &Path, reason: impl Into<String>) -> Error {
    Error::Unusable { path: path.to_path_buf(), reason: reason.into() }
}
