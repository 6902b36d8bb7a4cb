//! One process per data directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use crate::{Error, directory};

/// The file in the data directory that carries the lock. It stays behind when the lock is released: removing it would let
/// two processes lock two different files of the same name.
pub const LOCK_FILE: &str = "LOCK-tandem";

/// The exclusive right to a data directory, until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirectoryLock {
    path: PathBuf,
    // Held open for the lock that the operating system ties to it.
    _file: File,
}

impl DirectoryLock {
    /// Creates the directory, its parents included, and locks it. Does not wait.
    ///
    /// Errors: [`Error::Locked`] when anyone holds the lock, this process included; [`Error::Unusable`] when the path is
    /// not a directory or cannot be written; [`Error::Full`] or [`Error::Io`] when the disk refuses.
    pub fn acquire(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref();
        directory::create(dir)?;
        let doing = "locking the data directory";
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join(LOCK_FILE))
            .map_err(|error| directory::refused(dir, doing, error))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: dir.to_path_buf(), _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(dir.to_path_buf())),
            Err(TryLockError::Error(error)) => Err(directory::refused(dir, doing, error)),
        }
    }

    /// The directory that is locked.
    pub fn path(&self) -> &Path {
        &self.path
    }
}
