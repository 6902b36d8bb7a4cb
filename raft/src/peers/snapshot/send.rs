//! The side that has the snapshot.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use bytes::{Buf, Bytes};

use super::super::{
    connection::{CallError, Connection},
    frame::kind,
    wire::{self, Installed},
};
use crate::{
    contents::{FileSum, checksum_of},
    damage::Part,
    error::FatalSink,
    metrics::PeerMetrics,
    snapshot::Snapshot,
    state_home::StateHome,
    throttle::Throttle,
    transfers::Ticket,
    type_config::Vote,
};

/// Bytes of one piece.
const PIECE_BYTES: u64 = 256 << 10;
/// Who reads a whole snapshot again says so often that this goes on.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// How long a piece may take to be stored.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a file may take to be read again by a receiver that has a part of it.
const FILE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer may take that says how far the installation is. It may go on for as long as reading all of it takes.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a file is sent that arrives with another checksum than it had.
const MAX_TRIES: u32 = 3;

/// A snapshot being sent to one node.
pub(in crate::peers) struct Sending<'a> {
    pub(in crate::peers) connection: &'a Connection,
    pub(in crate::peers) shard: u32,
    pub(in crate::peers) snapshot: &'a Snapshot,
    pub(in crate::peers) ticket: &'a Ticket,
    pub(in crate::peers) throttle: &'a Throttle,
    pub(in crate::peers) metrics: &'a PeerMetrics,
    pub(in crate::peers) home: &'a StateHome,
    pub(in crate::peers) fatal: &'a FatalSink,
}

impl Sending<'_> {
    /// Sends what the receiver does not have, and waits until it is installed. Returns the vote of the follower.
    pub(in crate::peers) async fn run(&self, vote: &Vote) -> Result<Vote, CallError> {
        let contents = &self.snapshot.snapshot.contents;
        let offer = |out: &mut bytes::BytesMut| wire::put_offer(out, vote, contents);
        let answer = self.connection.call(kind::SNAPSHOT_BEGIN, self.shard, FILE_TIMEOUT, offer).await?;
        let transfer = number(answer)?;
        for (place, file) in contents.files.iter().enumerate() {
            self.file(transfer, place as u32, file).await?;
        }
        let end = |out: &mut bytes::BytesMut| wire::put_end(out, transfer, self.ticket.hurried);
        loop {
            let answer = self.connection.call(kind::SNAPSHOT_END, self.shard, END_TIMEOUT, end).await?;
            match wire::take_installed(answer).map_err(|_| CallError::Garbled)? {
                Installed::GoesOn => self.ticket.moved(0),
                Installed::Under(vote) => {
                    self.ticket.installed();
                    return Ok(vote);
                }
                Installed::Failed(why) => return Err(CallError::Failed(why)),
                Installed::Damaged(why) => return Err(self.judge_whole(&why).await),
            }
        }
    }

    async fn file(&self, transfer: u64, place: u32, sum: &FileSum) -> Result<(), CallError> {
        let ask = |out: &mut bytes::BytesMut| wire::put_file(out, transfer, place);
        let mut offset = number(self.connection.call(kind::SNAPSHOT_FILE, self.shard, FILE_TIMEOUT, ask).await?)?;
        self.ticket.moved(offset);
        self.metrics.snapshot_resumed(offset);
        let path = self.snapshot.snapshot.path.join(&sum.name);
        let mut file: Option<File> = None;
        let mut tries = 0;
        while offset < sum.bytes {
            let (back, piece) = blocking({
                let (path, file) = (path.clone(), file.take());
                move || read_piece(file, &path, offset)
            })
            .await?;
            file = Some(back);
            if piece.is_empty() {
                return Err(self.damaged(&path, "it is shorter than it was"));
            }
            if !self.ticket.hurried {
                self.throttle.pass(piece.len()).await;
            }
            let put = |out: &mut bytes::BytesMut| wire::put_piece(out, transfer, place, offset, &piece);
            let next = number(self.connection.call(kind::SNAPSHOT_PIECE, self.shard, PIECE_TIMEOUT, put).await?)?;
            self.metrics.snapshot_sent(piece.len());
            if next == offset + piece.len() as u64 {
                self.ticket.moved(piece.len() as u64);
            } else {
                self.ticket.moved_back(offset);
                tries += 1;
                self.judge(&path, sum, tries).await?;
                file = None;
            }
            offset = next;
        }
        Ok(())
    }

    /// A file arrived with another checksum than it had when the snapshot was taken. It is the disk here, or the way, or
    /// the disk there.
    async fn judge(&self, path: &Path, sum: &FileSum, tries: u32) -> Result<(), CallError> {
        let there = {
            let path = path.to_owned();
            blocking(move || checksum_of(&mut File::open(path)?)).await?
        };
        if there != (sum.bytes, sum.checksum) {
            return Err(self.damaged(path, &changed(there.1, sum)));
        }
        let name = &sum.name;
        tracing::warn!(shard = self.shard, name, tries, "a file of a snapshot arrived damaged, and is sent again");
        if tries < MAX_TRIES {
            return Ok(());
        }
        Err(CallError::Failed(format!(
            "the file {name} of a snapshot arrived damaged {tries} times; look at the disk there"
        )))
    }

    /// All files arrived as they were when the snapshot was taken, and the receiver cannot read them. Either they were
    /// damaged before that, or what it read there is not what it wrote.
    async fn judge_whole(&self, why: &str) -> CallError {
        let mut judging = pin!(judge_whole(self.home, self.fatal, &self.snapshot.snapshot.path));
        let judged = loop {
            match tokio::time::timeout(SIGN_OF_LIFE, &mut judging).await {
                Ok(judged) => break judged,
                Err(_) => self.ticket.moved(0),
            }
        };
        if let Err(error) = judged {
            return CallError::Failed(error);
        }
        let (shard, node) = (self.shard, self.connection.peer.node_id);
        tracing::error!(shard, node, why, "a node finds a snapshot damaged that is sound here; look at its disk");
        CallError::Failed(format!("it is damaged there, and sound here: {why}"))
    }

    fn damaged(&self, path: &Path, detail: &str) -> CallError {
        CallError::Failed(report_damaged(self.home, self.fatal, path, detail))
    }
}

/// Reads a snapshot of this node again as a whole. If it is damaged, this node ends, also where nobody waits any more for what
/// comes of it.
pub(in crate::peers) async fn judge_whole(home: &StateHome, fatal: &FatalSink, path: &Path) -> Result<(), String> {
    let (home, fatal, path) = (home.clone(), fatal.clone(), path.to_owned());
    let judged = crate::blocking::run(move || match home.verify_copy(&path, &mut |_| true) {
        Ok(_) => Ok(()),
        Err(error) if error.is_damage() => Err(report_damaged(&home, &fatal, &path, &error.to_string())),
        Err(error) => Err(error.to_string()),
    });
    judged.await.unwrap_or_else(|error| Err(error.to_string()))
}

/// What is wrong with a file that is not any more what it was when the snapshot was taken.
pub(in crate::peers) fn changed(checksum: u32, sum: &FileSum) -> String {
    format!("its checksum is {checksum:#010x}, and was {:#010x} when it was taken", sum.checksum)
}

/// Ends a node whose snapshot is damaged. The state has the same files: the node must not answer from it, and makes both anew
/// when it starts again.
pub(in crate::peers) fn report_damaged(home: &StateHome, fatal: &FatalSink, path: &Path, detail: &str) -> String {
    let error = home.note(Part::State).take_down(&format!("{} of a snapshot: {detail}", path.display()));
    let text = error.to_string();
    fatal.report(error);
    text
}

fn number(mut answer: Bytes) -> Result<u64, CallError> {
    answer.try_get_u64().map_err(|_| CallError::Garbled)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, CallError> {
    match crate::blocking::run(work).await {
        Ok(done) => done.map_err(|error| CallError::Failed(error.to_string())),
        Err(error) => Err(CallError::Failed(error.to_string())),
    }
}

/// Files are opened one after the other: a snapshot may have more than a process may have open.
fn read_piece(file: Option<File>, path: &PathBuf, offset: u64) -> io::Result<(File, Vec<u8>)> {
    let mut file = match file {
        Some(file) => file,
        None => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            file
        }
    };
    let mut piece = Vec::with_capacity(PIECE_BYTES as usize);
    Read::by_ref(&mut file).take(PIECE_BYTES).read_to_end(&mut piece)?;
    Ok((file, piece))
}
