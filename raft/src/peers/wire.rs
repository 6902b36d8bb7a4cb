//! What the bodies of frames hold. Log ids, votes and memberships look as they do on disk, without the checksums: a frame
//! has its own.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::{
    EntryPayload,
    entry::RaftEntry,
    raft::{
        AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
    },
};

use crate::{
    contents::Contents,
    encoding::{
        DecodeError, command_kind, entry_bytes, kind, put_log_id, put_membership, put_optional_log_id, take_log_id,
        take_membership, take_optional_log_id, take_u8, take_u32, take_u64,
    },
    roll::{put_text, take_text},
    type_config::{Command, Entry, TypeConfig, Vote},
};

/// A piece of a file of a snapshot.
pub(crate) struct SnapshotPiece {
    pub(crate) transfer: u64,
    /// Which file of the contents.
    pub(crate) place: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// Bytes that an append takes, about.
pub(super) fn append_capacity(request: &AppendEntriesRequest<TypeConfig>) -> usize {
    96 + request.entries.iter().map(|entry| 32 + entry_bytes(entry)).sum::<usize>()
}

pub(super) fn put_append(out: &mut BytesMut, request: &AppendEntriesRequest<TypeConfig>) {
    put_vote(out, &request.vote);
    put_optional_log_id(out, request.prev_log_id.as_ref());
    put_optional_log_id(out, request.leader_commit.as_ref());
    out.put_u32(request.entries.len() as u32);
    for entry in &request.entries {
        put_log_id(out, &entry.log_id());
        match &entry.payload {
            EntryPayload::Blank => out.put_u8(kind::BLANK),
            EntryPayload::Normal(command) => {
                out.put_u8(command_kind(command));
                out.put_u32(command.bytes().len() as u32);
                out.put_slice(command.bytes());
            }
            EntryPayload::Membership(membership) => {
                out.put_u8(kind::MEMBERSHIP);
                put_membership(out, membership);
            }
        }
    }
}

/// Reads an append. Commands are slices of `body`, not copies.
pub(super) fn take_append(mut body: Bytes) -> Result<AppendEntriesRequest<TypeConfig>, DecodeError> {
    let vote = take_vote(&mut body)?;
    let (prev_log_id, leader_commit) = (take_optional_log_id(&mut body)?, take_optional_log_id(&mut body)?);
    let count = take_u32(&mut body)?;
    let mut entries: Vec<Entry> = Vec::with_capacity((count as usize).min(4_096));
    for _ in 0..count {
        let log_id = take_log_id(&mut body)?;
        let payload = match take_u8(&mut body)? {
            kind::BLANK => EntryPayload::Blank,
            kind::COMMAND => EntryPayload::Normal(Command::Apply(take_bytes(&mut body)?)),
            kind::ROLL => EntryPayload::Normal(Command::Roll(take_bytes(&mut body)?)),
            kind::DIGEST => EntryPayload::Normal(Command::Digest(take_bytes(&mut body)?)),
            kind::MEMBERSHIP => EntryPayload::Membership(take_membership(&mut body)?),
            other => return Err(DecodeError::Kind(other)),
        };
        let follows = entries.last().map_or(prev_log_id, |last| Some(last.log_id()));
        // A hole must not get into the log, whoever sent it (openraft#1795).
        if follows.is_some_and(|before| before.index + 1 != log_id.index) {
            return Err(DecodeError::Gap);
        }
        entries.push(Entry::new(log_id, payload));
    }
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub(super) fn put_append_result(out: &mut BytesMut, result: &StreamAppendResult<TypeConfig>) {
    match result {
        Ok(log_id) => {
            out.put_u8(0);
            put_optional_log_id(out, log_id.as_ref());
        }
        Err(StreamAppendError::Conflict(log_id)) => {
            out.put_u8(1);
            put_log_id(out, log_id);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            out.put_u8(2);
            put_vote(out, vote);
        }
    }
}

pub(super) fn take_append_result(mut body: Bytes) -> Result<StreamAppendResult<TypeConfig>, DecodeError> {
    Ok(match take_u8(&mut body)? {
        0 => Ok(take_optional_log_id(&mut body)?),
        1 => Err(StreamAppendError::Conflict(take_log_id(&mut body)?)),
        2 => Err(StreamAppendError::HigherVote(take_vote(&mut body)?)),
        other => return Err(DecodeError::Kind(other)),
    })
}

pub(super) fn put_vote_request(out: &mut BytesMut, request: &VoteRequest<TypeConfig>) {
    put_vote(out, &request.vote);
    put_optional_log_id(out, request.last_log_id.as_ref());
    out.put_u8(u8::from(request.leadership_transfer));
}

pub(super) fn take_vote_request(mut body: Bytes) -> Result<VoteRequest<TypeConfig>, DecodeError> {
    let (vote, last_log_id) = (take_vote(&mut body)?, take_optional_log_id(&mut body)?);
    let mut request = VoteRequest::new(vote, last_log_id);
    request.leadership_transfer = take_u8(&mut body)? == 1;
    Ok(request)
}

pub(super) fn put_vote_response(out: &mut BytesMut, response: &VoteResponse<TypeConfig>) {
    put_vote(out, &response.vote);
    out.put_u8(u8::from(response.vote_granted));
    put_optional_log_id(out, response.last_log_id.as_ref());
}

pub(super) fn take_vote_response(mut body: Bytes) -> Result<VoteResponse<TypeConfig>, DecodeError> {
    let vote = take_vote(&mut body)?;
    let granted = take_u8(&mut body)? == 1;
    Ok(VoteResponse::new(vote, take_optional_log_id(&mut body)?, granted))
}

pub(super) fn put_transfer(out: &mut BytesMut, request: &TransferLeaderRequest<TypeConfig>) {
    put_vote(out, request.from_leader());
    out.put_u64(*request.to_node_id());
    put_optional_log_id(out, request.last_log_id());
}

pub(super) fn take_transfer(mut body: Bytes) -> Result<TransferLeaderRequest<TypeConfig>, DecodeError> {
    let (vote, to) = (take_vote(&mut body)?, take_u64(&mut body)?);
    Ok(TransferLeaderRequest::new(vote, to, take_optional_log_id(&mut body)?))
}

pub(super) fn put_offer(out: &mut BytesMut, vote: &Vote, contents: &Contents) {
    put_vote(out, vote);
    out.put_slice(&contents.encode());
}

pub(super) fn take_offer(mut body: Bytes) -> Result<(Vote, Contents), DecodeError> {
    let vote = take_vote(&mut body)?;
    Ok((vote, Contents::decode(&body)?))
}

pub(super) fn put_file(out: &mut BytesMut, transfer: u64, place: u32) {
    out.put_u64(transfer);
    out.put_u32(place);
}

pub(super) fn take_file(mut body: Bytes) -> Result<(u64, u32), DecodeError> {
    Ok((take_u64(&mut body)?, take_u32(&mut body)?))
}

/// `hurried`: the log has overtaken a transfer before this one, so no step of it may be held back. From protocol 4 on.
pub(super) fn put_end(out: &mut BytesMut, transfer: u64, hurried: bool) {
    out.put_u64(transfer);
    out.put_u8(hurried.into());
}

pub(super) fn take_end(mut body: Bytes) -> Result<(u64, bool), DecodeError> {
    let transfer = take_u64(&mut body)?;
    // Protocol 3 ends here.
    let hurried = if body.is_empty() { false } else { take_u8(&mut body)? != 0 };
    Ok((transfer, hurried))
}

pub(super) fn put_piece(out: &mut BytesMut, transfer: u64, place: u32, offset: u64, bytes: &[u8]) {
    out.put_u64(transfer);
    out.put_u32(place);
    out.put_u64(offset);
    out.put_slice(bytes);
}

pub(super) fn take_piece(mut body: Bytes) -> Result<SnapshotPiece, DecodeError> {
    let (transfer, place, offset) = (take_u64(&mut body)?, take_u32(&mut body)?, take_u64(&mut body)?);
    Ok(SnapshotPiece { transfer, place, offset, bytes: body })
}

/// What came of a snapshot whose last byte has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Installed {
    /// It is being verified or installed.
    GoesOn,
    /// It is installed, or not needed any more; this is the vote of the node.
    Under(Vote),
    /// All of it came as it was announced, and it is damaged.
    Damaged(String),
    /// It is there, and was not installed.
    Failed(String),
}

pub(super) fn put_installed(out: &mut BytesMut, installed: &Installed) {
    match installed {
        Installed::GoesOn => out.put_u8(0),
        Installed::Under(vote) => {
            out.put_u8(1);
            put_vote(out, vote);
        }
        Installed::Damaged(why) => {
            out.put_u8(2);
            put_text(out, why);
        }
        Installed::Failed(why) => {
            out.put_u8(3);
            put_text(out, why);
        }
    }
}

pub(super) fn take_installed(mut body: Bytes) -> Result<Installed, DecodeError> {
    Ok(match take_u8(&mut body)? {
        0 => Installed::GoesOn,
        1 => Installed::Under(take_vote(&mut body)?),
        2 => Installed::Damaged(take_text(&mut body)?),
        3 => Installed::Failed(take_text(&mut body)?),
        other => return Err(DecodeError::Kind(other)),
    })
}

pub(super) fn put_vote(out: &mut BytesMut, vote: &Vote) {
    out.put_u64(vote.leader_id.term);
    out.put_u64(vote.leader_id.node_id);
    out.put_u8(u8::from(vote.committed));
}

pub(super) fn take_vote(body: &mut Bytes) -> Result<Vote, DecodeError> {
    let (term, node) = (take_u64(body)?, take_u64(body)?);
    Ok(if take_u8(body)? == 1 { Vote::new_committed(term, node) } else { Vote::new(term, node) })
}

pub(crate) fn take_bytes(body: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = take_u32(body)? as usize;
    if body.len() < length {
        return Err(DecodeError::Short);
    }
    Ok(body.split_to(length))
}
