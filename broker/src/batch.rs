//! Messages as they lie in the log and in the state: one batch per workspace and command.
//!
//! ```text
//! batch   = version u8 | time_ms u64 | count u32 | record*
//! record  = kind u8 | priority u8 | type u8 | hops u8 | flags u8 | from text | to text | id text | digest u64 | extra* | body bytes
//! extra   = by the bits of flags, in their order: ttl u64 | not before u64 | ordering key u64 | correlation u128
//!           | producer u128, sequence u64 | reply timeout u64 | count u16, recipients u32*
//! ```
//!
//! A text is a length byte and that many bytes; the body is the message as the publisher encoded it. The message at
//! index `i` has the sequence `first + i`. The publisher's edge makes the record; nobody encodes it again. Keys and ids
//! of unbounded variety are kept as hashes (xxh3).

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::encoding::{DecodeError, Reader, put_bytes, put_text};

/// The format of batches. Frozen per number: they stand on disk.
const VERSION: u8 = 2;
/// Version, time, count.
pub(crate) const BATCH_HEADER: usize = 1 + 8 + 4;
/// No batch holds more messages: one that begins this far before a sequence does not reach it.
pub(crate) const MAX_BATCH_LEN: u64 = u16::MAX as u64;
/// Where the hops stand in a record.
const HOPS_OFFSET: usize = 3;
/// Where the sender stands in a record; recipient and id follow.
const FROM_OFFSET: usize = 5;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the inbox of the sandbox named in `to`.
    Direct,
    /// To every sandbox but the sender.
    Broadcast,
    /// To the followers of the topic named in `to`.
    Topic,
    /// To every sandbox in `recipients`.
    Several,
    /// To whoever has the capability named in `to`, as soon as somebody has.
    Wanted,
    /// Nowhere: it was refused or is a duplicate, and only holds its place.
    Void,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Direct => 0,
            Self::Broadcast => 1,
            Self::Topic => 2,
            Self::Several => 3,
            Self::Wanted => 4,
            Self::Void => 255,
        }
    }

    fn from_number(number: u8) -> Result<Self, DecodeError> {
        match number {
            0 => Ok(Self::Direct),
            1 => Ok(Self::Broadcast),
            2 => Ok(Self::Topic),
            3 => Ok(Self::Several),
            4 => Ok(Self::Wanted),
            255 => Ok(Self::Void),
            value => Err(DecodeError::Unknown { what: "message kind", value }),
        }
    }
}

/// The type of a response, as the contract numbers it.
pub(crate) const RESPONSE: u8 = 2;
/// The type of a notification.
pub(crate) const NOTIFICATION: u8 = 3;

/// One message, as far as the broker must look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    /// 0 to 9.
    pub(crate) priority: u8,
    /// As the contract numbers it: 1 request, 2 response, 3 notification, 4 command.
    pub(crate) message_type: u8,
    /// Set when the message is committed.
    pub(crate) hops: u8,
    pub(crate) requires_response: bool,
    pub(crate) dead_letter_on_expiry: bool,
    /// The sandbox that sends.
    pub(crate) from: &'a str,
    /// The sandbox, topic or capability; empty for the other kinds.
    pub(crate) to: &'a str,
    /// The explicit message id, or empty.
    pub(crate) id: &'a str,
    /// Hash of the body, to tell a retry from another message under the same id. 0 without an id.
    pub(crate) digest: u64,
    /// How long it may wait, in milliseconds; 0 for ever.
    pub(crate) ttl_ms: u64,
    /// When it may be delivered, in milliseconds since 1970; 0 at once.
    pub(crate) not_before_ms: u64,
    /// Hash of the ordering key; 0 without one.
    pub(crate) ordering: u64,
    /// Hash of the correlation id; 0 without one.
    pub(crate) correlation: u128,
    /// Hash of the producer id, 0 without one, and the position of this message.
    pub(crate) producer: (u128, u64),
    /// The sender waits this long for a response that does not go through its inbox, in milliseconds; 0: it does not.
    pub(crate) reply_timeout_ms: u64,
    /// Numbers of the recipients of a message to several, each four bytes.
    pub(crate) recipients: &'a [u8],
    /// The encoded message.
    pub(crate) body: &'a [u8],
}

impl Default for Record<'_> {
    fn default() -> Self {
        Self {
            kind: Kind::Void,
            priority: 0,
            message_type: 0,
            hops: 0,
            requires_response: false,
            dead_letter_on_expiry: false,
            from: "",
            to: "",
            id: "",
            digest: 0,
            ttl_ms: 0,
            not_before_ms: 0,
            ordering: 0,
            correlation: 0,
            producer: (0, 0),
            reply_timeout_ms: 0,
            recipients: &[],
            body: &[],
        }
    }
}

/// Bits of `flags`. The first two stand for themselves, each of the others for an extra.
mod flag {
    pub(super) const REQUIRES_RESPONSE: u8 = 1;
    pub(super) const DEAD_LETTER_ON_EXPIRY: u8 = 2;
    pub(super) const TTL: u8 = 4;
    pub(super) const NOT_BEFORE: u8 = 8;
    pub(super) const ORDERING: u8 = 16;
    pub(super) const CORRELATION: u8 = 32;
    pub(super) const PRODUCER: u8 = 64;
    /// Reply timeout and recipients.
    pub(super) const ROUTING: u8 = 128;
}

impl Record<'_> {
    fn flags(&self) -> u8 {
        let bit = |flag: u8, set: bool| if set { flag } else { 0 };
        bit(flag::REQUIRES_RESPONSE, self.requires_response)
            | bit(flag::DEAD_LETTER_ON_EXPIRY, self.dead_letter_on_expiry)
            | bit(flag::TTL, self.ttl_ms != 0)
            | bit(flag::NOT_BEFORE, self.not_before_ms != 0)
            | bit(flag::ORDERING, self.ordering != 0)
            | bit(flag::CORRELATION, self.correlation != 0)
            | bit(flag::PRODUCER, self.producer.0 != 0)
            | bit(flag::ROUTING, self.reply_timeout_ms != 0 || !self.recipients.is_empty())
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let flags = self.flags();
        out.put_slice(&[self.kind.number(), self.priority, self.message_type, self.hops, flags]);
        put_text(out, self.from);
        put_text(out, self.to);
        put_text(out, self.id);
        out.put_u64(self.digest);
        if flags & flag::TTL != 0 {
            out.put_u64(self.ttl_ms);
        }
        if flags & flag::NOT_BEFORE != 0 {
            out.put_u64(self.not_before_ms);
        }
        if flags & flag::ORDERING != 0 {
            out.put_u64(self.ordering);
        }
        if flags & flag::CORRELATION != 0 {
            out.put_u128(self.correlation);
        }
        if flags & flag::PRODUCER != 0 {
            out.put_u128(self.producer.0);
            out.put_u64(self.producer.1);
        }
        if flags & flag::ROUTING != 0 {
            out.put_u64(self.reply_timeout_ms);
            out.put_u16((self.recipients.len() / 4) as u16);
            out.put_slice(self.recipients);
        }
        put_bytes(out, self.body);
    }

    /// A record that only holds its place.
    pub(crate) fn void() -> Record<'static> {
        Record::default()
    }

    /// Numbers of the recipients of a message to several.
    pub(crate) fn recipients(&self) -> impl Iterator<Item = u32> + '_ {
        self.recipients.as_chunks::<4>().0.iter().map(|number| u32::from_be_bytes(*number))
    }

    /// When it expires, in milliseconds since 1970, in a batch of that time; 0 never.
    pub(crate) fn expires_ms(&self, batch_time_ms: u64) -> u64 {
        if self.ttl_ms == 0 { 0 } else { batch_time_ms.max(self.not_before_ms).saturating_add(self.ttl_ms) }
    }
}

/// Writes the head of a batch; `count` records follow.
pub(crate) fn encode_header(time_ms: u64, count: u32, out: &mut BytesMut) {
    out.put_u8(VERSION);
    out.put_u64(time_ms);
    out.put_u32(count);
}

/// A batch in memory, with the places of its records.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) first_sequence: u64,
    pub(crate) time_ms: u64,
    bytes: Bytes,
    offsets: Vec<u32>,
    /// Some have an explicit id.
    pub(crate) has_ids: bool,
}

impl Batch {
    /// Checks the shape of every record, so that `record` cannot fail later.
    pub(crate) fn decode(first_sequence: u64, bytes: Bytes) -> Result<Self, DecodeError> {
        let mut head = Reader::new(bytes.clone(), "batch");
        let version = head.u8()?;
        if version != VERSION {
            return Err(DecodeError::Unknown { what: "batch version", value: version });
        }
        let (time_ms, count) = (head.u64()?, head.u32()?);
        let mut offsets = Vec::with_capacity((count as usize).min(bytes.len() / 16));
        let (mut offset, mut has_ids) = (BATCH_HEADER, false);
        for _ in 0..count {
            offsets.push(offset as u32);
            let (record, length) = parse(&bytes[offset..])?;
            has_ids |= !record.id.is_empty();
            offset += length;
        }
        match bytes.len() - offset {
            0 => Ok(Self { first_sequence, time_ms, bytes, offsets, has_ids }),
            count => Err(DecodeError::Trailing { what: "batch", count }),
        }
    }

    /// Time and length of a batch, without reading the rest.
    pub(crate) fn read_header(bytes: &[u8]) -> Result<(u64, u32), DecodeError> {
        let head = bytes.get(..BATCH_HEADER).ok_or(DecodeError::Short("batch"))?;
        let mut head = Reader::new(Bytes::copy_from_slice(head), "batch");
        match head.u8()? {
            VERSION => Ok((head.u64()?, head.u32()?)),
            value => Err(DecodeError::Unknown { what: "batch version", value }),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.offsets.len()
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    pub(crate) fn record(&self, index: usize) -> Record<'_> {
        let offset = self.offsets[index] as usize;
        let (record, _) = parse(&self.bytes[offset..]).expect("checked when the batch was decoded");
        record
    }

    /// The explicit id of the record at `index`, or empty: without reading the rest of it.
    pub(crate) fn id(&self, index: usize) -> &[u8] {
        let record = self.record_bytes(index);
        let text = |from: usize| from + 1..from + 1 + usize::from(record[from]);
        let to = text(text(FROM_OFFSET).end);
        &record[text(to.end)]
    }

    /// Sequence of the record at `index`.
    pub(crate) fn sequence(&self, index: usize) -> u64 {
        self.first_sequence + index as u64
    }

    /// The same batch with some records made void.
    pub(crate) fn without(&self, is_void: impl Fn(usize) -> bool) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes.len());
        encode_header(self.time_ms, self.len() as u32, &mut out);
        for index in 0..self.len() {
            if is_void(index) {
                Record::void().encode(&mut out);
            } else {
                out.put_slice(self.record_bytes(index));
            }
        }
        out.freeze()
    }

    /// The same batch with the hops of some records, by index.
    pub(crate) fn with_hops(&self, hops: &[(u16, u8)]) -> Bytes {
        let mut out = BytesMut::from(self.bytes.as_ref());
        for (index, hops) in hops {
            out[self.offsets[usize::from(*index)] as usize + HOPS_OFFSET] = *hops;
        }
        out.freeze()
    }

    /// The same batch with another time.
    pub(crate) fn with_time(&self, time_ms: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes.len());
        encode_header(time_ms, self.len() as u32, &mut out);
        out.put_slice(&self.bytes[BATCH_HEADER..]);
        out.freeze()
    }

    /// One record as a batch of its own, with the time of this one.
    pub(crate) fn alone(&self, index: usize) -> Bytes {
        let record = self.record_bytes(index);
        let mut out = BytesMut::with_capacity(BATCH_HEADER + record.len());
        encode_header(self.time_ms, 1, &mut out);
        out.put_slice(record);
        out.freeze()
    }

    fn record_bytes(&self, index: usize) -> &[u8] {
        let from = self.offsets[index] as usize;
        let to = self.offsets.get(index + 1).map_or(self.bytes.len(), |offset| *offset as usize);
        &self.bytes[from..to]
    }
}

/// One message of a batch, shared.
#[derive(Debug, Clone)]
pub(crate) struct MessageRef {
    pub(crate) batch: Arc<Batch>,
    pub(crate) index: u16,
}

impl MessageRef {
    pub(crate) fn sequence(&self) -> u64 {
        self.batch.sequence(usize::from(self.index))
    }

    pub(crate) fn record(&self) -> Record<'_> {
        self.batch.record(usize::from(self.index))
    }
}

/// Reads one record and its length. By hand and borrowing: this runs several times for each message.
fn parse(bytes: &[u8]) -> Result<(Record<'_>, usize), DecodeError> {
    let short = || DecodeError::Short("record");
    let (&[kind, priority, message_type, hops, flags], mut rest) = bytes.split_first_chunk::<5>().ok_or_else(short)?;
    if priority > 9 {
        return Err(DecodeError::Unknown { what: "priority", value: priority });
    }
    let mut text = || -> Result<&str, DecodeError> {
        let (&length, tail) = rest.split_first().ok_or_else(short)?;
        let (text, tail) = tail.split_at_checked(usize::from(length)).ok_or_else(short)?;
        rest = tail;
        std::str::from_utf8(text).map_err(|_| DecodeError::Text("record"))
    };
    let (from, to, id) = (text()?, text()?, text()?);
    let mut record = Record {
        kind: Kind::from_number(kind)?,
        priority,
        message_type,
        hops,
        requires_response: flags & flag::REQUIRES_RESPONSE != 0,
        dead_letter_on_expiry: flags & flag::DEAD_LETTER_ON_EXPIRY != 0,
        from,
        to,
        id,
        digest: rest.try_get_u64().map_err(|_| short())?,
        ..Record::default()
    };
    if flags & !(flag::REQUIRES_RESPONSE | flag::DEAD_LETTER_ON_EXPIRY) != 0 {
        parse_extras(flags, &mut rest, &mut record).ok_or_else(short)?;
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (body, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(short)?;
    record.body = body;
    Ok((record, bytes.len() - rest.len()))
}

fn parse_extras<'a>(flags: u8, rest: &mut &'a [u8], record: &mut Record<'a>) -> Option<()> {
    if flags & flag::TTL != 0 {
        record.ttl_ms = rest.try_get_u64().ok()?;
    }
    if flags & flag::NOT_BEFORE != 0 {
        record.not_before_ms = rest.try_get_u64().ok()?;
    }
    if flags & flag::ORDERING != 0 {
        record.ordering = rest.try_get_u64().ok()?;
    }
    if flags & flag::CORRELATION != 0 {
        record.correlation = rest.try_get_u128().ok()?;
    }
    if flags & flag::PRODUCER != 0 {
        record.producer = (rest.try_get_u128().ok()?, rest.try_get_u64().ok()?);
    }
    if flags & flag::ROUTING != 0 {
        record.reply_timeout_ms = rest.try_get_u64().ok()?;
        let count = usize::from(rest.try_get_u16().ok()?);
        let (recipients, tail) = rest.split_at_checked(count * 4)?;
        record.recipients = recipients;
        *rest = tail;
    }
    Some(())
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
