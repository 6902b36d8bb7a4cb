//! The file that holds the keys: a key a line, `ID:KEY` with 32 bytes in base64 or in 64 hexadecimal digits. The first one seals; those
//! behind it open what was sealed before. A file with one bare key calls it `k1`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use base64::{Engine as _, alphabet, engine};

use crate::{hex, random};

/// Larger files hold something else.
const MAX_BYTES: u64 = 64 << 10;
const MAX_ID_BYTES: usize = 32;
/// Of a key that has no name.
const UNNAMED: &str = "k1";
/// Others read nothing of it.
const MODE: u32 = 0o600;

/// Why a file holds no keys. What is in it is not shown.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum KeyFileError {
    #[error("it cannot be read: {0}")]
    Unread(String),
    #[error("it cannot be made: {0}")]
    Unmade(String),
    #[error("it has {0} bytes; a file of keys has at most {MAX_BYTES}")]
    TooLarge(u64),
    #[error("it holds no key; write one with: openssl rand -base64 32")]
    Empty,
    #[error("line {line} is no key: {why}")]
    Line { line: usize, why: &'static str },
    #[error("its keys cannot be used")]
    Unusable,
}

/// All keys of a file, the one that seals first.
pub(super) fn read(file: &Path, create: bool) -> Result<Vec<(String, [u8; 32])>, KeyFileError> {
    let unread = |error: io::Error| KeyFileError::Unread(error.to_string());
    let found = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
            make(file).map_err(|error| KeyFileError::Unmade(error.to_string()))?;
            fs::metadata(file).map_err(unread)?
        }
        found => found.map_err(unread)?,
    };
    if found.len() > MAX_BYTES {
        return Err(KeyFileError::TooLarge(found.len()));
    }
    if found.permissions().mode() & 0o077 != 0 {
        tracing::warn!(file = %file.display(), "others than its owner can read the file of keys; chmod 600 ends that");
    }
    parse(&fs::read_to_string(file).map_err(unread)?)
}

fn parse(text: &str) -> Result<Vec<(String, [u8; 32])>, KeyFileError> {
    let mut keys: Vec<(String, [u8; 32])> = Vec::new();
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why| KeyFileError::Line { line: number, why };
        let (id, key) = line.split_once(':').unwrap_or((UNNAMED, line));
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if id.is_empty() || id.len() > MAX_ID_BYTES || !id.bytes().all(fits) {
            return Err(wrong("an id has 1 to 32 bytes of A-Z a-z 0-9 - _"));
        }
        if keys.iter().any(|(known, _)| known == id) {
            return Err(wrong("a line above has the same id"));
        }
        let key = decode(key.trim()).ok_or_else(|| wrong("a key has 32 bytes, in base64 or hexadecimal digits"))?;
        keys.push((id.to_owned(), key));
    }
    if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(keys) }
}

fn decode(text: &str) -> Option<[u8; 32]> {
    let bytes = if text.len() == 64 {
        hex::read(text)?
    } else {
        let config =
            engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent);
        engine::GeneralPurpose::new(&alphabet::STANDARD, config).decode(text).ok()?
    };
    bytes.try_into().ok()
}

/// Makes a file with a new key, unless somebody else is quicker.
fn make(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let key: [u8; 32] = random::bytes().ok_or_else(|| io::Error::other("the system gives no random bytes"))?;
    // Under another name first: a file that is there is whole.
    let draft = folder.join(random::id("key"));
    let mut open = OpenOptions::new();
    let mut written = open.write(true).create_new(true).mode(MODE).open(&draft)?;
    let made = written
        .write_all(format!("{UNNAMED}:{}\n", engine::general_purpose::STANDARD.encode(key)).as_bytes())
        .and_then(|()| written.sync_all())
        .and_then(|()| fs::hard_link(&draft, file));
    fs::remove_file(&draft)?;
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) => {}
        Ok(()) => {
            tracing::info!(file = %file.display(), "a key for secrets is made; keep a copy of it in a safe place")
        }
    }
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE64: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    #[test]
    fn keys_are_read_in_their_order() {
        assert_eq!(parse(BASE64).unwrap(), [("k1".to_owned(), [7; 32])]);
        let hexadecimal = "08".repeat(32);
        let file = format!("# the new one\n2026-11:{hexadecimal}\n\n k1:{} \n", BASE64.trim_end_matches('='));
        assert_eq!(parse(&file).unwrap(), [("2026-11".to_owned(), [8; 32]), ("k1".to_owned(), [7; 32])]);
        for (wrong, line) in [
            ("k1:short", "line 1"),
            (&format!("k1:{BASE64}\nk1:{hexadecimal}"), "line 2"),
            (&format!("a b:{BASE64}"), "line 1"),
            (&"zz".repeat(32), "line 1"),
            ("\n# nothing\n", "no key"),
        ] {
            let why = parse(wrong).unwrap_err().to_string();
            assert!(why.contains(line) && !why.contains("short") && !why.contains("zz"), "{why}");
        }
    }

    #[test]
    fn a_file_is_made_once_and_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("new/secrets.key");
        assert!(read(&file, false).is_err());
        let made = read(&file, true).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(read(&file, true).unwrap(), made);
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 1, "no draft is left");
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let file = dir.path().join("raced");
                std::thread::spawn(move || read(&file, true).unwrap())
            })
            .collect();
        let keys: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(keys.iter().all(|key| *key == keys[0]));
        fs::write(dir.path().join("large"), vec![b'#'; (64 << 10) + 1]).unwrap();
        assert!(matches!(read(&dir.path().join("large"), false), Err(KeyFileError::TooLarge(_))));
    }
}
