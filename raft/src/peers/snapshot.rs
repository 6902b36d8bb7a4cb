//! A snapshot on its way to a follower that is too far behind for the log: its files, piece by piece, on the connection that
//! everything else uses. One piece is under way at a time, so that heartbeats and appends get through in between.
//!
//! Not here yet: resuming a transfer that broke off, a limit of its speed, checksums over whole files (each piece has the
//! one of its frame, and RocksDB checks its blocks when it reads them).

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use parking_lot::Mutex;

use super::{
    connection::{CallError, Connection},
    frame::kind,
    wire::{self, SnapshotOffer, SnapshotPiece},
};
use crate::{
    metrics::PeerMetrics,
    snapshot::SnapshotDir,
    type_config::{TypeConfig, Vote},
};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotDir>;

/// Bytes of one piece.
const PIECE_BYTES: usize = 256 << 10;
/// How long a piece may take to be stored.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a complete snapshot may take to be installed.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Files that an engine makes for itself when it opens a directory.
const NOT_SENT: [&str; 2] = ["LOCK", "LOG"];

/// Sends a snapshot and waits until it is installed. Returns the vote of the follower.
pub(super) async fn send(
    connection: &Connection,
    shard: u32,
    vote: &Vote,
    snapshot: &Snapshot,
    metrics: &PeerMetrics,
) -> Result<Vote, CallError> {
    let dir = snapshot.snapshot.path.clone();
    // All at once: a newer snapshot may remove the names, but not what is open.
    let files = blocking(move || open_all(&dir)).await?;
    let offer = |out: &mut bytes::BytesMut| wire::put_offer(out, vote, &snapshot.meta);
    let mut answer = connection.call(kind::SNAPSHOT_BEGIN, shard, PIECE_TIMEOUT, offer).await?;
    let transfer = answer.try_get_u64().map_err(|_| CallError::Garbled)?;
    for (name, mut file) in files {
        let mut offset = 0_u64;
        loop {
            let (back, piece) = blocking(move || read_piece(file)).await?;
            file = back;
            if piece.is_empty() && offset > 0 {
                break;
            }
            let put = |out: &mut bytes::BytesMut| wire::put_piece(out, transfer, &name, offset, &piece);
            connection.call(kind::SNAPSHOT_PIECE, shard, PIECE_TIMEOUT, put).await?;
            metrics.snapshot_sent(piece.len());
            offset += piece.len() as u64;
            if piece.len() < PIECE_BYTES {
                break;
            }
        }
    }
    let end = |out: &mut bytes::BytesMut| out.put_u64(transfer);
    let mut answer = connection.call(kind::SNAPSHOT_END, shard, INSTALL_TIMEOUT, end).await?;
    wire::take_vote(&mut answer).map_err(|_| CallError::Garbled)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, CallError> {
    match crate::blocking::run(work).await {
        Ok(done) => done.map_err(|error| CallError::Failed(error.to_string())),
        Err(error) => Err(CallError::Failed(error.to_string())),
    }
}

pub(super) fn open_all(dir: &Path) -> io::Result<Vec<(String, File)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && !NOT_SENT.contains(&name.as_str()) && !name.starts_with("LOG.old") {
            files.push((name, File::open(entry.path())?));
        }
    }
    // One that is removed loses its name first: as long as it has it, these are all its files.
    if dir.exists() { Ok(files) } else { Err(io::Error::other("a newer snapshot took the place of this one")) }
}

fn read_piece(mut file: File) -> io::Result<(File, Vec<u8>)> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    Read::by_ref(&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok((file, piece))
}

/// A snapshot that is being received for a shard; a new one replaces one that broke off.
#[derive(Default)]
pub(super) struct Receiver {
    current: Mutex<Option<Receiving>>,
}

struct Receiving {
    transfer: u64,
    offer: SnapshotOffer,
    dir: PathBuf,
    /// The file being written: its name, and how far it is.
    file: Option<(String, u64, File)>,
}

impl Receiver {
    /// Begins to receive into `dir`, which is new. What broke off goes; what is complete and being installed stays.
    pub(super) fn begin(&self, transfer: u64, offer: SnapshotOffer, dir: PathBuf) -> io::Result<()> {
        let mut current = self.current.lock();
        if let Some(broken_off) = current.take() {
            fs::remove_dir_all(&broken_off.dir)?;
        }
        fs::create_dir_all(&dir)?;
        *current = Some(Receiving { transfer, offer, dir, file: None });
        Ok(())
    }

    /// Stores a piece. Pieces of a file come in order, files one after the other.
    pub(super) fn piece(&self, piece: &SnapshotPiece) -> io::Result<()> {
        let mut current = self.current.lock();
        let receiving = current.as_mut().filter(|receiving| receiving.transfer == piece.transfer);
        let receiving = receiving.ok_or_else(|| io::Error::other("another snapshot is being received"))?;
        if piece.offset == 0 {
            finish(receiving.file.take())?;
            let plain = Path::new(&piece.name).file_name().is_some_and(|name| name.to_str() == Some(&piece.name));
            if !plain {
                return Err(io::Error::other(format!("{:?} is no name of a file", piece.name)));
            }
            let file = File::create_new(receiving.dir.join(&piece.name))?;
            receiving.file = Some((piece.name.clone(), 0, file));
        }
        match &mut receiving.file {
            Some((name, length, file)) if *name == piece.name && *length == piece.offset => {
                file.write_all(&piece.bytes)?;
                *length += piece.bytes.len() as u64;
                Ok(())
            }
            _ => Err(io::Error::other(format!("a piece of {:?} that does not follow", piece.name))),
        }
    }

    /// Makes what came durable and hands it out.
    pub(super) fn end(&self, mut body: Bytes) -> io::Result<(Vote, Snapshot)> {
        let transfer = body.try_get_u64().map_err(io::Error::other)?;
        let mut current = self.current.lock();
        let taken = current.take_if(|receiving| receiving.transfer == transfer);
        let receiving = taken.ok_or_else(|| io::Error::other("another snapshot is being received"))?;
        finish(receiving.file)?;
        File::open(&receiving.dir)?.sync_all()?;
        let SnapshotOffer { vote, meta } = receiving.offer;
        Ok((vote, Snapshot { meta, snapshot: SnapshotDir { path: receiving.dir } }))
    }
}

fn finish(file: Option<(String, u64, File)>) -> io::Result<()> {
    file.map_or(Ok(()), |(_, _, file)| file.sync_all())
}
