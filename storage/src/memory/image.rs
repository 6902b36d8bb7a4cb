//! The file that a checkpoint of the memory engine consists of.
//!
//! A header (magic, number of spaces), then records of [`crate::record`] that put all pairs, then one empty record. Without
//! the empty record at the end the file was not written to its end.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use super::Map;
use crate::{Error, Operation, Space, directory, record};

const FILE: &str = "memory.checkpoint";
const MAGIC: &[u8; 8] = b"TNDMMEM1";
const HEADER_BYTES: usize = 16;

/// A record is closed once its keys and values reach this size.
const RECORD_BYTES: usize = 1 << 20;

/// Writes the file into the new directory `dir` so that it survives a crash.
pub(super) fn write(dir: &Path, spaces: Vec<Map>) -> Result<(), Error> {
    let parent = directory::checkpoint_parent(dir)?;
    let doing = "writing a checkpoint";
    fs::create_dir(dir).map_err(|error| directory::refused(dir, doing, error))?;
    write_file(&dir.join(FILE), spaces).map_err(|error| Error::from_io(doing, error))?;
    directory::sync(dir)?;
    directory::sync(&parent)
}

/// Reads the file in `dir`; the result has `space_count` spaces.
pub(super) fn read(dir: &Path, space_count: usize) -> Result<Vec<Map>, Error> {
    let doing = "opening a checkpoint";
    let bytes = match fs::read(dir.join(FILE)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(directory::unusable(dir, format!("it holds no {FILE}; choose a checkpoint of this engine")));
        }
        Err(error) => return Err(directory::refused(dir, doing, error)),
    };
    let corrupt = |detail: String| Error::Corrupt { doing, detail: format!("{}: {detail}", dir.join(FILE).display()) };
    let stored_count = read_header(&bytes).ok_or_else(|| corrupt("the header is not valid".into()))?;
    if stored_count > space_count {
        let reason = format!("it has {stored_count} spaces, this program knows {space_count}; use a newer version");
        return Err(directory::unusable(dir, reason));
    }
    let mut spaces = vec![Map::new(); space_count];
    let mut at = HEADER_BYTES;
    loop {
        let (batch, next) = record::decode(&bytes, at).map_err(|detail| corrupt(format!("offset {at}: {detail}")))?;
        if batch.is_empty() {
            let rest = bytes.len() - next;
            return if rest == 0 { Ok(spaces) } else { Err(corrupt(format!("{rest} bytes behind the end"))) };
        }
        for operation in batch.into_operations() {
            match operation {
                Operation::Put(space, key, value) if usize::from(space.0) < stored_count => {
                    spaces[usize::from(space.0)].insert(key, value);
                }
                other => return Err(corrupt(format!("offset {at}: unexpected {other:?}"))),
            }
        }
        at = next;
    }
}

fn write_file(path: &Path, spaces: Vec<Map>) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut bytes = Vec::with_capacity(RECORD_BYTES * 2);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&(spaces.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let mut puts = Vec::new();
    let mut pending_bytes = 0;
    for (position, map) in (0..=u8::MAX).zip(spaces) {
        for (key, value) in map {
            pending_bytes += key.len() + value.len();
            puts.push(Operation::Put(Space(position), key, value));
            if pending_bytes >= RECORD_BYTES {
                record::encode(&puts, &mut bytes);
                file.write_all(&bytes)?;
                bytes.clear();
                puts.clear();
                pending_bytes = 0;
            }
        }
    }
    if !puts.is_empty() {
        record::encode(&puts, &mut bytes);
    }
    record::encode(&[], &mut bytes);
    file.write_all(&bytes)?;
    file.sync_all()
}

fn read_header(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..HEADER_BYTES)?;
    let (covered, checksum) = header.split_at(HEADER_BYTES - 4);
    let intact = covered.starts_with(MAGIC) && crc32c::crc32c(covered).to_le_bytes() == checksum;
    let count = u32::from_le_bytes(covered[MAGIC.len()..].try_into().ok()?);
    intact.then_some(count as usize)
}
