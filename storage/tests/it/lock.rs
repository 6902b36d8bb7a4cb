//! The lock of a data directory.

use std::{fs, io::Write, path::Path, process::Command};

use tandem_storage::{DirectoryLock, Error, lock::LOCK_FILE};
use tempfile::TempDir;

#[test]
fn only_one_holder_at_a_time() {
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("new").join("data");
    let held = DirectoryLock::acquire(&dir).unwrap();
    assert_eq!(held.path(), dir);
    let refused = DirectoryLock::acquire(&dir).unwrap_err();
    assert!(matches!(&refused, Error::Locked(path) if *path == dir), "{refused}");
    assert_eq!(refused.code(), "STORAGE_LOCKED");
    assert!(!refused.is_fatal());
    drop(held);
    DirectoryLock::acquire(&dir).unwrap();
}

/// The lock is the operating system's, not this process's: another program sees it and cannot take it either.
#[test]
fn other_processes_see_it() {
    let scratch = TempDir::new().unwrap();
    let try_flock = |dir: &Path| Command::new("flock").arg("--nonblock").arg(dir.join(LOCK_FILE)).arg("true").status();
    let held = DirectoryLock::acquire(scratch.path()).unwrap();
    let Ok(refused) = try_flock(scratch.path()) else {
        return writeln!(std::io::stderr(), "flock is not installed: not tested").unwrap();
    };
    assert!(!refused.success());
    drop(held);
    assert!(try_flock(scratch.path()).unwrap().success());
}

#[test]
fn a_path_that_is_no_directory_says_so() {
    let scratch = TempDir::new().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let text = DirectoryLock::acquire(&file).unwrap_err().to_string();
    assert!(text.contains("it is a file"), "{text}");
    let below = DirectoryLock::acquire(file.join("data")).unwrap_err();
    assert!(matches!(&below, Error::Unusable { .. }), "{below}");
    assert!(below.to_string().contains("a part of the path is a file"), "{below}");
}

#[test]
fn a_directory_that_cannot_be_written_says_so() {
    // The kernel's own file system refuses new files from everyone, root included.
    let Err(refused) = DirectoryLock::acquire("/proc/self/tandem") else { panic!("/proc took a directory") };
    assert!(matches!(&refused, Error::Unusable { .. }), "{refused}");
    assert_eq!(refused.code(), "STORAGE_UNUSABLE");
}

#[cfg(unix)]
#[test]
fn missing_write_permission_says_so() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = TempDir::new().unwrap();
    let dir = scratch.path().join("data");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o555)).unwrap();
    match DirectoryLock::acquire(&dir) {
        // Permissions do not bind root.
        Ok(_) => assert!(fs::write(dir.join("probe"), "").is_ok(), "locked a directory that cannot be written"),
        Err(refused) => assert!(refused.to_string().contains("no write permission"), "{refused}"),
    }
}
