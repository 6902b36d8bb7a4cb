//! The side that gets the snapshot.
//!
//! What came stays when the connection ends, or the process: the next transfer goes on with it, also when it is another
//! snapshot or comes from another node, as far as the same files are in it. A file counts once it has the length and
//! the checksum that were announced; there is no more on the disk than what was announced last.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::super::wire::SnapshotPiece;
use crate::{
    contents::{self, Contents, FileSum, checksum_of},
    snapshot::{Snapshot, SnapshotDir},
    type_config::Vote,
};

/// What was received is synced in portions: a large fsync holds up those of the log. With 8 MiB, publishes beside a transfer of
/// 64 MiB/s took 59 ms at p99; with a quarter of one, what they take without.
const SYNC_BYTES: u64 = 256 << 10;

/// A snapshot that is being received for a shard; a new transfer takes the place of one that broke off.
#[derive(Default)]
pub(in crate::peers) struct Receiver {
    current: Mutex<Option<Receiving>>,
}

struct Receiving {
    transfer: u64,
    vote: Vote,
    contents: Contents,
    dir: PathBuf,
    /// Places of the files that are complete.
    complete: BTreeSet<u32>,
    file: Option<Incoming>,
}

/// The file being written.
struct Incoming {
    place: u32,
    file: File,
    bytes: u64,
    checksum: u32,
    unsynced: u64,
}

impl Receiver {
    /// Begins to receive into `dir`. Of what is there, files stay that belong to this snapshot, too.
    pub(in crate::peers) fn begin(
        &self,
        transfer: u64,
        vote: Vote,
        contents: Contents,
        dir: PathBuf,
    ) -> io::Result<()> {
        let mut current = self.current.lock();
        current.take();
        keep_what_fits(&dir, &contents)?;
        contents.record(&dir)?;
        *current = Some(Receiving { transfer, vote, contents, dir, complete: BTreeSet::new(), file: None });
        Ok(())
    }

    /// How many bytes of a file are there. Its next piece begins behind them; all: it is complete.
    pub(in crate::peers) fn file(&self, transfer: u64, place: u32) -> io::Result<u64> {
        let mut current = self.current.lock();
        let receiving = receiving(&mut current, transfer)?;
        let sum = receiving.sum(place)?;
        let path = receiving.dir.join(&sum.name);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let (mut bytes, mut checksum) = checksum_of(&mut file)?;
        let wrong = bytes > sum.bytes || (bytes == sum.bytes && checksum != sum.checksum);
        if wrong {
            io::Seek::rewind(&mut file)?;
            file.set_len(0)?;
            (bytes, checksum) = (0, 0);
        }
        receiving.file = Some(Incoming { place, file, bytes, checksum, unsynced: 0 });
        receiving.close_if_complete(&sum)?;
        Ok(bytes)
    }

    /// Stores a piece. Returns where the next one begins: at 0 when the file has come and is not what was announced.
    pub(in crate::peers) fn piece(&self, piece: &SnapshotPiece) -> io::Result<u64> {
        let mut current = self.current.lock();
        let receiving = receiving(&mut current, piece.transfer)?;
        let sum = receiving.sum(piece.place)?;
        let length = piece.bytes.len() as u64;
        let fits = |file: &&mut Incoming| {
            file.place == piece.place && file.bytes == piece.offset && piece.offset + length <= sum.bytes
        };
        let file = receiving.file.as_mut().filter(fits).ok_or_else(|| {
            io::Error::other(format!(
                "a piece of {:?} at byte {} does not follow what came before",
                sum.name, piece.offset
            ))
        })?;
        file.file.write_all(&piece.bytes)?;
        file.checksum = crc32c::crc32c_append(file.checksum, &piece.bytes);
        file.bytes += length;
        file.unsynced += length;
        if file.unsynced >= SYNC_BYTES {
            file.file.sync_data()?;
            file.unsynced = 0;
        }
        if file.bytes == sum.bytes && file.checksum != sum.checksum {
            io::Seek::rewind(&mut file.file)?;
            file.file.set_len(0)?;
            (file.bytes, file.checksum) = (0, 0);
        }
        let next = file.bytes;
        receiving.close_if_complete(&sum)?;
        Ok(next)
    }

    /// Hands out what came, once all of it is there, under the name `complete`.
    pub(in crate::peers) fn end(&self, transfer: u64, complete: &Path) -> io::Result<(Vote, Snapshot)> {
        let mut current = self.current.lock();
        let receiving = receiving(&mut current, transfer)?;
        let missing = (0..).zip(&receiving.contents.files).find(|(place, _)| !receiving.complete.contains(place));
        if let Some((_, file)) = missing {
            return Err(io::Error::other(format!("the file {:?} of a snapshot is not complete", file.name)));
        }
        File::open(&receiving.dir)?.sync_all()?;
        fs::rename(&receiving.dir, complete)?;
        let Some(Receiving { vote, contents, .. }) = current.take() else {
            return Err(io::Error::other("nothing is being received"));
        };
        let dir = SnapshotDir { path: complete.to_owned(), contents: Arc::new(contents) };
        Ok((vote, Snapshot::from(dir)))
    }
}

fn receiving(current: &mut Option<Receiving>, transfer: u64) -> io::Result<&mut Receiving> {
    let wanted = current.as_mut().filter(|receiving| receiving.transfer == transfer);
    wanted.ok_or_else(|| io::Error::other("another snapshot is being received"))
}

impl Receiving {
    fn sum(&self, place: u32) -> io::Result<FileSum> {
        let sum = self.contents.files.get(place as usize).cloned();
        sum.ok_or_else(|| {
            io::Error::other(format!("the snapshot has {} files, none {place}", self.contents.files.len()))
        })
    }

    fn close_if_complete(&mut self, sum: &FileSum) -> io::Result<()> {
        let done = |file: &mut Incoming| file.bytes == sum.bytes && file.checksum == sum.checksum;
        if let Some(file) = self.file.take_if(done) {
            file.file.sync_all()?;
            self.complete.insert(file.place);
        }
        Ok(())
    }
}

/// Makes a directory hold nothing but whole or begun files of this snapshot.
fn keep_what_fits(dir: &Path, contents: &Contents) -> io::Result<()> {
    // Without a readable record nobody knows what the files are.
    let Some(before) = Contents::announced(dir) else {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return fs::create_dir_all(dir),
        }
    };
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        // The new record takes the place of the old one in one step: without any, all of this would be worth nothing.
        if path.file_name().is_some_and(|name| name == contents::FILE) {
            continue;
        }
        let same = before.files.iter().find(|file| path.file_name().is_some_and(|name| *name == *file.name));
        if !same.is_some_and(|file| contents.files.contains(file)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
