//! Files whose readers get the one or the other, also when the machine fails meanwhile.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

/// Puts these bytes in the place of a file. Whoever reads it meanwhile gets the one or the other, and nobody but this user gets
/// either. Two at the same time are the caller's to keep apart.
pub(crate) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    fs::remove_file(&beside).ok();
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut written = options.open(&beside)?;
    written.write_all(bytes)?;
    written.sync_all()?;
    fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_is_of_this_user_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        // What was left by one that did not get to its end.
        fs::write(dir.path().join("token.new"), "half").unwrap();
        for text in ["one", "other"] {
            replace(&file, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }
}
