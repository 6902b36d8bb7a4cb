//! What a snapshot consists of: its files with their lengths and checksums, and up to where it reaches.
//!
//! Computed when the snapshot is taken, so that a byte that flips on the disk afterwards is found before it is installed
//! anywhere. Files are hard links to those of the state, which never change once they are written: each is read once, and
//! its checksum is known as long as it is the same file.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use bytes::{BufMut, Bytes};

use crate::{
    encoding::{
        DecodeError, put_membership, put_optional_log_id, seal, take_membership, take_optional_log_id, take_u8,
        take_u32, take_u64, unsealed,
    },
    roll::{put_text, take_text},
    type_config::{SnapshotMeta, StoredMembership},
};

/// The file beside the others in which this stands.
pub(crate) const FILE: &str = "CONTENTS";
/// Version of the encoding, and of what a snapshot is. Frozen: it stands on disk and crosses the wire.
const FORMAT: u8 = 1;
/// Files that an engine makes for itself when it opens a directory, and this record.
const NOT_OURS: [&str; 3] = ["LOCK", "LOG", FILE];
/// Read at once when a checksum is computed.
const READ_BYTES: usize = 1 << 20;

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSum {
    /// Its name in the directory; directories there are none.
    pub(crate) name: String,
    /// Its length.
    pub(crate) bytes: u64,
    /// CRC32C of all of it.
    pub(crate) checksum: u32,
}

/// What a snapshot consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Up to where it reaches, as openraft wants to know it.
    pub(crate) meta: SnapshotMeta,
    /// By name.
    pub(crate) files: Vec<FileSum>,
}

/// A file that has not changed since its checksum was computed: device, inode, length, time of its last change.
type Identity = (u64, u64, u64, i64, i64);

/// Checksums of files that were read before.
#[derive(Debug, Default)]
pub(crate) struct KnownSums(HashMap<Identity, u32>);

impl KnownSums {
    /// Takes over what was verified of files as they came.
    pub(crate) fn learn(&mut self, dir: &Path, contents: &Contents) {
        for file in &contents.files {
            // A file that is gone or another one by now is read again.
            if let Ok(identity) = identity(&dir.join(&file.name))
                && identity.2 == file.bytes
            {
                self.0.insert(identity, file.checksum);
            }
        }
    }
}

impl Contents {
    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Index of the newest entry that is in it.
    pub(crate) fn index(&self) -> u64 {
        self.meta.last_log_id.map_or(0, |id| id.index)
    }

    /// Looks at a directory. Reads what `known` does not hold, and leaves there what this directory has.
    pub(crate) fn of(dir: &Path, meta: SnapshotMeta, known: &mut KnownSums) -> io::Result<Self> {
        let mut files = Vec::new();
        let mut seen = HashMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = !NOT_OURS.contains(&name.as_str()) && !name.starts_with("LOG.old");
            if !ours || !entry.file_type()?.is_file() {
                continue;
            }
            let identity = identity(&entry.path())?;
            let checksum = match known.0.get(&identity) {
                Some(checksum) => *checksum,
                None => checksum_of(&mut File::open(entry.path())?)?.1,
            };
            seen.insert(identity, checksum);
            files.push(FileSum { name, bytes: identity.2, checksum });
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        known.0 = seen;
        Ok(Self { meta, files })
    }

    /// What stands in a directory, if that is still what is there. Checksums are not computed again: that is what they
    /// are for.
    pub(crate) fn recorded(dir: &Path, known: &mut KnownSums) -> Option<Self> {
        let record = fs::read(dir.join(FILE)).ok()?;
        let contents = Self::decode(&record.into()).ok()?;
        let mut seen = HashMap::new();
        for file in &contents.files {
            let identity = identity(&dir.join(&file.name)).ok()?;
            if identity.2 != file.bytes {
                return None;
            }
            seen.insert(identity, file.checksum);
        }
        known.0 = seen;
        Some(contents)
    }

    /// What was announced of a snapshot whose files are not all there yet.
    pub(crate) fn announced(dir: &Path) -> Option<Self> {
        let record = fs::read(dir.join(FILE)).ok()?;
        Self::decode(&record.into()).ok()
    }

    /// Writes this into a directory.
    pub(crate) fn record(&self, dir: &Path) -> io::Result<()> {
        let (temporary, path) = (dir.join(format!("{FILE}.new")), dir.join(FILE));
        fs::write(&temporary, self.encode())?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(dir)?.sync_all()
    }

    pub(crate) fn encode(&self) -> Bytes {
        seal(|out| {
            out.put_u8(FORMAT);
            put_optional_log_id(out, self.meta.last_log_id.as_ref());
            put_optional_log_id(out, self.meta.last_membership.log_id().as_ref());
            put_membership(out, self.meta.last_membership.membership());
            out.put_u32(self.files.len() as u32);
            for file in &self.files {
                put_text(out, &file.name);
                out.put_u64(file.bytes);
                out.put_u32(file.checksum);
            }
        })
    }

    /// Reads a record.
    ///
    /// # Errors
    /// [`DecodeError::SnapshotFormat`] for a format of a newer version; others where the record is damaged, or names what is
    /// no name of a file or is there twice.
    pub(crate) fn decode(record: &Bytes) -> Result<Self, DecodeError> {
        let mut body = unsealed(record)?;
        let body = &mut body;
        match take_u8(body)? {
            FORMAT => {}
            format => return Err(DecodeError::SnapshotFormat { format, known: FORMAT }),
        }
        let last_log_id = take_optional_log_id(body)?;
        let membership_log_id = take_optional_log_id(body)?;
        let last_membership = StoredMembership::new(membership_log_id, take_membership(body)?);
        let mut files = Vec::new();
        let mut names = BTreeSet::new();
        for _ in 0..take_u32(body)? {
            let file = FileSum { name: take_text(body)?, bytes: take_u64(body)?, checksum: take_u32(body)? };
            let plain = Path::new(&file.name).file_name().is_some_and(|name| name.to_str() == Some(&file.name));
            if !plain || NOT_OURS.contains(&file.name.as_str()) || !names.insert(file.name.clone()) {
                return Err(DecodeError::FileName(file.name));
            }
            files.push(file);
        }
        Ok(Self { meta: SnapshotMeta { last_log_id, last_membership }, files })
    }
}

/// Length and CRC32C of what is left of a file.
pub(crate) fn checksum_of(file: &mut File) -> io::Result<(u64, u32)> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut bytes, mut checksum) = (0, 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, checksum)),
            read => {
                checksum = crc32c::crc32c_append(checksum, &buffer[..read]);
                bytes += read as u64;
            }
        }
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    let there = fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino(), there.len(), there.mtime(), there.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Contents {
        let file = |name: &str| FileSum { name: name.into(), bytes: 3, checksum: 7 };
        Contents { meta: SnapshotMeta::default(), files: vec![file("a"), file("b.sst")] }
    }

    #[test]
    fn contents_come_back_and_every_flipped_byte_is_found() {
        let record = some().encode();
        assert_eq!(Contents::decode(&record).unwrap(), some());
        for place in 0..record.len() {
            let mut damaged = record.to_vec();
            damaged[place] ^= 4;
            assert!(Contents::decode(&damaged.into()).is_err(), "byte {place}");
        }
    }

    #[test]
    fn contents_have_these_bytes() {
        let mut small = some();
        small.files.truncate(1);
        let expected = [
            1, // format
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // reaches nothing, has no members
            0, 0, 0, 1, 0, 0, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 7, // one file
        ];
        assert_eq!(small.encode()[4..], expected);
    }

    #[test]
    fn a_newer_format_and_names_that_lead_elsewhere_are_refused() {
        let newer = seal(|out| out.put_u8(FORMAT + 1));
        assert_eq!(Contents::decode(&newer), Err(DecodeError::SnapshotFormat { format: FORMAT + 1, known: FORMAT }));
        for name in ["../a", "/a", "", "..", "a/b", "CONTENTS", "b.sst"] {
            let mut wrong = some();
            wrong.files[0].name = name.into();
            assert_eq!(Contents::decode(&wrong.encode()), Err(DecodeError::FileName(name.into())));
        }
    }

    #[test]
    fn a_file_is_read_once_and_a_flip_after_that_is_not_taken_for_its_contents() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "what was written").unwrap();
        let mut known = KnownSums::default();
        let before = Contents::of(dir.path(), SnapshotMeta::default(), &mut known).unwrap();
        before.record(dir.path()).unwrap();
        assert_eq!(before.files[0].checksum, crc32c::crc32c(b"what was written"));
        // A disk that flips a bit tells nobody the time.
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "what was Written").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        assert_eq!(Contents::of(dir.path(), SnapshotMeta::default(), &mut known).unwrap(), before);
        assert_eq!(Contents::recorded(dir.path(), &mut KnownSums::default()).unwrap(), before, "after a restart, too");
        fs::write(&path, "another length").unwrap();
        assert_eq!(Contents::recorded(dir.path(), &mut KnownSums::default()), None);
    }
}
