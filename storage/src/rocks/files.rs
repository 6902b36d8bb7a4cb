//! Checks the files of a directory that RocksDB reads only when it opens: write-ahead logs, the manifest, and `CURRENT`.
//!
//! Logs and manifest have one format: blocks of 32 KiB, in them fragments of a header (masked crc32c, length u16, type u8, all
//! little-endian) and their bytes; the checksum covers type and bytes, not the length. RocksDB takes a fragment that is longer
//! than the rest of the file for the torn end of a write. So one flipped bit in a length makes it drop records in silence
//! that were synced. A torn write has no shorter form that fits its checksum; a damaged length has exactly one.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::open::CURRENT_FILE;
use crate::{Error, Pacer, directory};

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// Types with the number of their log in the header: 4 bytes more. Written where log files are recycled, which is not here.
const RECYCLABLE: [u8; 6] = [5, 6, 7, 8, 11, 131];
/// Whole, first, middle and last.
const PLAIN_TYPES: std::ops::RangeInclusive<u8> = 1..=4;
/// What RocksDB writes before a new database has its `CURRENT`; the first opening writes another one. So a directory with only
/// this is one whose creation was interrupted.
const FIRST_MANIFEST: &str = "MANIFEST-000001";
const DOING: &str = "checking the files of an engine";

/// Checks what RocksDB would read when it opens `dir`, in which there may be nothing yet. Returns how many bytes were read.
///
/// Errors: [`Error::Corrupt`] that names the file; [`Error::Io`] when a file cannot be read.
pub(super) fn verify(dir: &Path, pace: &mut Pacer<'_>) -> Result<u64, Error> {
    let current = dir.join(CURRENT_FILE);
    let Some(text) = read_if_there(&current)? else { return nothing_else(dir).map(|()| 0) };
    let mut bytes = 0;
    let manifest = manifest_of(&text).ok_or_else(|| damaged(&current, "it names no manifest"))?;
    let manifest = dir.join(manifest);
    // An engine that runs may have a new one by now.
    if !manifest.exists() && read_if_there(&current)?.as_deref() == Some(&text) {
        return Err(damaged(&current, format!("it names {}, which is not there", manifest.display())));
    }
    let mut journals = vec![manifest];
    journals.extend(files(dir)?.into_iter().filter(|path| path.extension() == Some(OsStr::new("log"))));
    journals.sort();
    for path in journals {
        bytes += verify_journal(&path, pace)?;
    }
    Ok(bytes)
}

/// A directory with files of a database must not be taken for a new one because the file is gone that names them.
fn nothing_else(dir: &Path) -> Result<(), Error> {
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        (name.starts_with("MANIFEST-") && name != FIRST_MANIFEST) || name.ends_with(".sst") || name.ends_with(".log")
    };
    match files(dir)?.into_iter().find(is_ours) {
        Some(found) => Err(damaged(&dir.join(CURRENT_FILE), format!("it is gone, but {} is there", found.display()))),
        None => Ok(()),
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>();
            paths.map_err(|error| Error::from_io(DOING, error))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(directory::refused(dir, DOING, error)),
    }
}

fn manifest_of(current: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(current).ok()?.strip_suffix('\n')?;
    let number = name.strip_prefix("MANIFEST-")?;
    number.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
}

/// One log or manifest, up to the length that it has now: it may grow meanwhile.
fn verify_journal(path: &Path, pace: &mut Pacer<'_>) -> Result<u64, Error> {
    let failed = |error| Error::from_io(DOING, error);
    let mut file = match File::open(path) {
        Ok(file) => file,
        // Files of an engine that runs come and go.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(failed(error)),
    };
    let length = file.metadata().map_err(failed)?.len();
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let (mut offset, mut journal) = (0, Journal::default());
    while offset < length {
        block.clear();
        let wanted = (length - offset).min(BLOCK_BYTES as u64);
        Read::by_ref(&mut file).take(wanted).read_to_end(&mut block).map_err(failed)?;
        let is_last = offset + block.len() as u64 == length;
        journal
            .verify_block(&block, is_last)
            .map_err(|(place, what)| damaged(path, format!("offset {}: {what}", offset + place as u64)))?;
        if (block.len() as u64) < wanted || !pace(wanted) {
            return Ok(offset);
        }
        offset += wanted;
    }
    Ok(length)
}

/// What the blocks before say of the next one.
#[derive(Default)]
struct Journal {
    /// A record has begun and not ended.
    in_record: bool,
    /// Room was found that was made and not written to: nothing may follow. RocksDB skips it without a word, so a page that was
    /// lost would take its records with it.
    is_over: bool,
}

impl Journal {
    fn verify_block(&mut self, block: &[u8], is_last: bool) -> Result<(), (usize, &'static str)> {
        let mut place = 0;
        while !self.is_over
            && let Some(header) = block[place..].first_chunk::<HEADER_BYTES>()
        {
            if header == &[0; HEADER_BYTES] {
                self.is_over = true;
                break;
            }
            let stored = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
            let (length, kind) = (usize::from(u16::from_le_bytes([header[4], header[5]])), header[6]);
            let header_bytes = if RECYCLABLE.contains(&kind) { HEADER_BYTES + 4 } else { HEADER_BYTES };
            match block[place + HEADER_BYTES..].get(..header_bytes - HEADER_BYTES + length) {
                Some(content) if masked(crc32c::crc32c_append(crc32c::crc32c(&[kind]), content)) == stored => {
                    self.follow(kind).map_err(|what| (place, what))?;
                    place += header_bytes + length;
                }
                Some(_) => return Err((place, "the checksum of a record does not match")),
                None if !is_last => return Err((place, "a record is longer than its block")),
                None if fits_shorter(stored, length, kind, &block[place + HEADER_BYTES..]) => {
                    return Err((place, "the length of a record is not the one that its checksum was made for"));
                }
                // The end of a write that never ended.
                None => return Ok(()),
            }
        }
        match block[place..].iter().position(|byte| *byte != 0) {
            Some(behind) if self.is_over => Err((place + behind, "something stands behind bytes that were lost")),
            _ => Ok(()),
        }
    }

    /// Parts of a record come in their order, and no other record between them.
    fn follow(&mut self, kind: u8) -> Result<(), &'static str> {
        let (continues, goes_on) = match kind {
            1 | 5 => (false, false),
            2 | 6 => (false, true),
            3 | 7 => (true, true),
            4 | 8 => (true, false),
            // What RocksDB says of the file itself.
            _ => return Ok(()),
        };
        if continues != self.in_record {
            return Err(if continues { "a record has no beginning" } else { "a record has no end" });
        }
        self.in_record = goes_on;
        Ok(())
    }
}

/// Whether the checksum fits a beginning of what is there, with a length or a type of which one byte is another one than
/// stands there. Not any beginning: of so many one would fit by chance, some day.
fn fits_shorter(stored: u32, length: usize, kind: u8, rest: &[u8]) -> bool {
    let nearly = |end: usize| end & 0xff == length & 0xff || end >> 8 == length >> 8;
    let fits = |kind: u8, is_candidate: &dyn Fn(usize) -> bool| {
        let mut checksum = crc32c::crc32c(&[kind]);
        (0..=rest.len()).any(|end| {
            if end > 0 {
                checksum = crc32c::crc32c_append(checksum, &rest[end - 1..end]);
            }
            is_candidate(end) && masked(checksum) == stored
        })
    };
    fits(kind, &nearly) || PLAIN_TYPES.into_iter().any(|kind| fits(kind, &|end| end == length))
}

/// As RocksDB stores a checksum of bytes that may themselves hold checksums.
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(directory::refused(path.parent().unwrap_or(path), DOING, error)),
    }
}

fn damaged(path: &Path, what: impl Into<String>) -> Error {
    Error::Corrupt { doing: DOING, detail: format!("{}: {}", path.display(), what.into()) }
}
