//! Messages as they lie in the log and in the state: one batch per workspace and command.
//!
//! ```text
//! batch   = version u8 | time_ms u64 | count u32 | record*
//! record  = kind u8 | priority u8 | from text | to text | id text | digest u64 | body bytes
//! ```
//!
//! A text is a length byte and that many bytes; the body is the message as the publisher encoded it. The message at
//! index `i` has the sequence `first + i`. The publisher's edge makes the record; nobody encodes it again.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::encoding::{DecodeError, Reader, put_bytes, put_text};

/// The format of batches. Frozen per number: they stand on disk.
const VERSION: u8 = 1;
/// Version, time, count.
pub(crate) const BATCH_HEADER: usize = 1 + 8 + 4;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the inbox of the sandbox named in `to`.
    Direct,
    /// To every sandbox but the sender.
    Broadcast,
    /// Nowhere: it was refused or is a duplicate, and only holds its place.
    Void,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Direct => 0,
            Self::Broadcast => 1,
            Self::Void => 255,
        }
    }

    fn from_number(number: u8) -> Result<Self, DecodeError> {
        match number {
            0 => Ok(Self::Direct),
            1 => Ok(Self::Broadcast),
            255 => Ok(Self::Void),
            value => Err(DecodeError::Unknown { what: "message kind", value }),
        }
    }
}

/// One message, as far as the broker must look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) kind: Kind,
    /// 0 to 9.
    pub(crate) priority: u8,
    /// The sandbox that sends.
    pub(crate) from: &'a str,
    /// The sandbox that shall receive; empty for a broadcast.
    pub(crate) to: &'a str,
    /// The explicit message id, or empty.
    pub(crate) id: &'a str,
    /// Hash of the body, to tell a retry from another message under the same id. 0 without an id.
    pub(crate) digest: u64,
    /// The encoded message.
    pub(crate) body: &'a [u8],
}

impl Record<'_> {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.kind.number());
        out.put_u8(self.priority);
        put_text(out, self.from);
        put_text(out, self.to);
        put_text(out, self.id);
        out.put_u64(self.digest);
        put_bytes(out, self.body);
    }

    /// A record that only holds its place.
    pub(crate) fn void() -> Record<'static> {
        Record { kind: Kind::Void, priority: 0, from: "", to: "", id: "", digest: 0, body: &[] }
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
        let mut offset = BATCH_HEADER;
        for _ in 0..count {
            offsets.push(offset as u32);
            let (_, length) = parse(&bytes[offset..])?;
            offset += length;
        }
        match bytes.len() - offset {
            0 => Ok(Self { first_sequence, time_ms, bytes, offsets }),
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

    /// Sequence of the record at `index`.
    pub(crate) fn sequence(&self, index: usize) -> u64 {
        self.first_sequence + index as u64
    }

    /// The same batch with some records made void.
    pub(crate) fn without(&self, is_void: impl Fn(usize) -> bool) -> Bytes {
        let mut out = BytesMut::with_capacity(self.bytes.len());
        encode_header(self.time_ms, self.len() as u32, &mut out);
        for index in 0..self.len() {
            if is_void(index) { Record::void().encode(&mut out) } else { self.record(index).encode(&mut out) }
        }
        out.freeze()
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
    let (&[kind, priority], mut rest) = bytes.split_first_chunk::<2>().ok_or_else(short)?;
    let mut text = || -> Result<&str, DecodeError> {
        let (&length, tail) = rest.split_first().ok_or_else(short)?;
        let (text, tail) = tail.split_at_checked(usize::from(length)).ok_or_else(short)?;
        rest = tail;
        std::str::from_utf8(text).map_err(|_| DecodeError::Text("record"))
    };
    let (from, to, id) = (text()?, text()?, text()?);
    let (digest, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let (body, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(short)?;
    let kind = Kind::from_number(kind)?;
    if priority > 9 {
        return Err(DecodeError::Unknown { what: "priority", value: priority });
    }
    let record = Record { kind, priority, from, to, id, digest: u64::from_be_bytes(*digest), body };
    Ok((record, bytes.len() - rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(to: &'static str) -> Record<'static> {
        Record { kind: Kind::Direct, priority: 5, from: "a", to, id: "m1", digest: 7, body: b"xyz" }
    }

    fn batch() -> Bytes {
        let mut out = BytesMut::new();
        encode_header(1000, 2, &mut out);
        record("b").encode(&mut out);
        record("c").encode(&mut out);
        out.freeze()
    }

    #[test]
    fn a_batch_has_these_bytes() {
        let golden = [
            1, 0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 0, 2, // head
            0, 5, 1, b'a', 1, b'b', 2, b'm', b'1', 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 3, b'x', b'y', b'z',
        ];
        assert_eq!(batch()[..golden.len()], golden);
    }

    #[test]
    fn records_come_back_with_their_sequences() {
        let batch = Batch::decode(40, batch()).unwrap();
        assert_eq!((batch.len(), batch.time_ms, batch.sequence(1)), (2, 1000, 41));
        assert_eq!(batch.record(1), record("c"));
    }

    #[test]
    fn voided_records_keep_the_places_of_the_others() {
        let voided = Batch::decode(40, Batch::decode(40, batch()).unwrap().without(|index| index == 0)).unwrap();
        assert_eq!(voided.record(0).kind, Kind::Void);
        assert_eq!(voided.record(1), record("c"));
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_found() {
        let whole = batch();
        for length in 0..whole.len() {
            assert!(Batch::decode(1, whole.slice(..length)).is_err(), "length {length}");
        }
        let mut longer = whole.to_vec();
        longer.push(0);
        assert_eq!(Batch::decode(1, longer.into()).unwrap_err(), DecodeError::Trailing { what: "batch", count: 1 });
    }
}
