//! How log entries, votes and memberships look on disk. Little code, no serde: entries are the hot path.
//!
//! Every record begins with the CRC32C of all that follows, so that a flipped bit is found when the record is read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::{EntryPayload, entry::RaftEntry, impls::BasicNode};

use crate::type_config::{Command, Entry, Leader, LogId, Membership, StoredMembership, Vote};

/// Why a record cannot be read: corruption, or a version that this one does not know.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum DecodeError {
    #[error("checksum mismatch: stored {stored:#010x}, computed {computed:#010x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("record ends too early")]
    Short,
    #[error("unknown record kind {0}")]
    Kind(u8),
    #[error("text is not UTF-8")]
    Text,
    #[error("a membership that names unknown nodes")]
    Membership,
    #[error("entries that do not follow each other")]
    Gap,
    #[error("{0:?} is no name of a file, or is there twice")]
    FileName(String),
    #[error("a snapshot of format {format}; this version knows {known}. Upgrade this node first")]
    SnapshotFormat { format: u8, known: u8 },
}

/// Kinds of log entry. Frozen: they stand on disk.
pub(crate) mod kind {
    pub(crate) const BLANK: u8 = 0;
    pub(crate) const COMMAND: u8 = 1;
    pub(crate) const MEMBERSHIP: u8 = 2;
    pub(crate) const ROLL: u8 = 3;
    pub(crate) const DIGEST: u8 = 4;
}

/// Checksum, term, node, index, kind.
const ENTRY_HEADER: usize = 4 + 8 + 8 + 8 + 1;

pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = BytesMut::with_capacity(ENTRY_HEADER + entry_bytes(entry));
    out.put_u32(0);
    put_log_id(&mut out, &entry.log_id());
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(kind::BLANK),
        EntryPayload::Normal(command) => {
            out.put_u8(command_kind(command));
            out.put_slice(command.bytes());
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(kind::MEMBERSHIP);
            put_membership(&mut out, membership);
        }
    }
    sealed(out)
}

pub(crate) fn decode_entry(record: &Bytes) -> Result<Entry, DecodeError> {
    let mut body = unsealed(record)?;
    let log_id = take_log_id(&mut body)?;
    let payload = match take_u8(&mut body)? {
        kind::BLANK => EntryPayload::Blank,
        kind::COMMAND => EntryPayload::Normal(Command::Apply(body)),
        kind::ROLL => EntryPayload::Normal(Command::Roll(body)),
        kind::DIGEST => EntryPayload::Normal(Command::Digest(body)),
        kind::MEMBERSHIP => EntryPayload::Membership(take_membership(&mut body)?),
        other => return Err(DecodeError::Kind(other)),
    };
    Ok(Entry::new(log_id, payload))
}

/// The kind of entry that carries a command, on disk and on the wire.
pub(crate) fn command_kind(command: &Command) -> u8 {
    match command {
        Command::Apply(_) => kind::COMMAND,
        Command::Roll(_) => kind::ROLL,
        Command::Digest(_) => kind::DIGEST,
    }
}

/// Bytes of the payload of an entry, for budgets.
pub(crate) fn entry_bytes(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(command) => command.bytes().len(),
        EntryPayload::Membership(_) => 256,
    }
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = BytesMut::with_capacity(21);
    out.put_u32(0);
    out.put_u64(vote.leader_id.term);
    out.put_u64(vote.leader_id.node_id);
    out.put_u8(u8::from(vote.committed));
    sealed(out)
}

pub(crate) fn decode_vote(record: &Bytes) -> Result<Vote, DecodeError> {
    let mut body = unsealed(record)?;
    let (term, node) = (take_u64(&mut body)?, take_u64(&mut body)?);
    let committed = take_u8(&mut body)? == 1;
    Ok(if committed { Vote::new_committed(term, node) } else { Vote::new(term, node) })
}

pub(crate) fn encode_log_id(log_id: &LogId) -> Bytes {
    let mut out = BytesMut::with_capacity(28);
    out.put_u32(0);
    put_log_id(&mut out, log_id);
    sealed(out)
}

pub(crate) fn decode_log_id(record: &Bytes) -> Result<LogId, DecodeError> {
    take_log_id(&mut unsealed(record)?)
}

/// A record that is not one of those above, with its checksum.
pub(crate) fn seal(body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    out.put_u32(0);
    body(&mut out);
    sealed(out)
}

/// The position of a state: the newest entry applied to it and the membership at that point.
pub(crate) fn encode_position(applied: Option<&LogId>, membership: &StoredMembership) -> Bytes {
    let mut out = BytesMut::with_capacity(128);
    out.put_u32(0);
    put_optional_log_id(&mut out, applied);
    put_optional_log_id(&mut out, membership.log_id().as_ref());
    put_membership(&mut out, membership.membership());
    sealed(out)
}

pub(crate) fn decode_position(record: &Bytes) -> Result<(Option<LogId>, StoredMembership), DecodeError> {
    let mut body = unsealed(record)?;
    let applied = take_optional_log_id(&mut body)?;
    let membership_log_id = take_optional_log_id(&mut body)?;
    let membership = take_membership(&mut body)?;
    Ok((applied, StoredMembership::new(membership_log_id, membership)))
}

pub(crate) fn put_log_id(out: &mut BytesMut, log_id: &LogId) {
    out.put_u64(log_id.leader_id.term);
    out.put_u64(log_id.leader_id.node_id);
    out.put_u64(log_id.index);
}

pub(crate) fn take_log_id(body: &mut Bytes) -> Result<LogId, DecodeError> {
    let (term, node_id) = (take_u64(body)?, take_u64(body)?);
    Ok(LogId { leader_id: Leader { term, node_id }, index: take_u64(body)? })
}

pub(crate) fn put_optional_log_id(out: &mut BytesMut, log_id: Option<&LogId>) {
    out.put_u8(u8::from(log_id.is_some()));
    if let Some(log_id) = log_id {
        put_log_id(out, log_id);
    }
}

pub(crate) fn take_optional_log_id(body: &mut Bytes) -> Result<Option<LogId>, DecodeError> {
    Ok(if take_u8(body)? == 1 { Some(take_log_id(body)?) } else { None })
}

pub(crate) fn put_membership(out: &mut BytesMut, membership: &Membership) {
    let configs = membership.get_joint_config();
    out.put_u32(configs.len() as u32);
    for config in configs {
        out.put_u32(config.len() as u32);
        config.iter().for_each(|id| out.put_u64(*id));
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_u32(nodes.len() as u32);
    for (id, node) in nodes {
        out.put_u64(*id);
        out.put_u32(node.addr.len() as u32);
        out.put_slice(node.addr.as_bytes());
    }
}

pub(crate) fn take_membership(body: &mut Bytes) -> Result<Membership, DecodeError> {
    let mut configs = Vec::new();
    for _ in 0..take_u32(body)? {
        let mut config = BTreeSet::new();
        for _ in 0..take_u32(body)? {
            config.insert(take_u64(body)?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..take_u32(body)? {
        let id = take_u64(body)?;
        let length = take_u32(body)? as usize;
        if body.len() < length {
            return Err(DecodeError::Short);
        }
        let text = body.split_to(length);
        let addr = std::str::from_utf8(&text).map_err(|_| DecodeError::Text)?.to_owned();
        nodes.insert(id, BasicNode { addr });
    }
    Membership::new(configs, nodes).map_err(|_| DecodeError::Membership)
}

fn sealed(mut out: BytesMut) -> Bytes {
    let checksum = crc32c::crc32c(&out[4..]);
    out[..4].copy_from_slice(&checksum.to_be_bytes());
    out.freeze()
}

pub(crate) fn unsealed(record: &Bytes) -> Result<Bytes, DecodeError> {
    let mut body = record.clone();
    let stored = take_u32(&mut body)?;
    let computed = crc32c::crc32c(&body);
    if stored != computed {
        return Err(DecodeError::Checksum { stored, computed });
    }
    Ok(body)
}

pub(crate) fn take_u8(body: &mut Bytes) -> Result<u8, DecodeError> {
    body.try_get_u8().map_err(|_| DecodeError::Short)
}

pub(crate) fn take_u32(body: &mut Bytes) -> Result<u32, DecodeError> {
    body.try_get_u32().map_err(|_| DecodeError::Short)
}

pub(crate) fn take_u64(body: &mut Bytes) -> Result<u64, DecodeError> {
    body.try_get_u64().map_err(|_| DecodeError::Short)
}

pub(crate) fn take_u128(body: &mut Bytes) -> Result<u128, DecodeError> {
    body.try_get_u128().map_err(|_| DecodeError::Short)
}

#[cfg(test)]
#[path = "encoding_tests.rs"]
mod tests;
