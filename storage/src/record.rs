//! A batch as bytes with a checksum: one record of the fault engine's journal and of a memory checkpoint.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | length of the payload |
//! | 4 | crc32c of the length and the payload |
//! | length | operations: tag (1), space (1), then each byte string as its length (8) and its bytes |
//!
//! Numbers are little-endian. The checksum covers the length, so a run of zeros is not a valid empty record.

use bytes::Bytes;

use crate::{Operation, Space, WriteBatch};

const HEADER_BYTES: usize = 12;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const DELETE_RANGE: u8 = 3;

/// Appends one record to `out`.
pub(crate) fn encode<'a>(operations: impl IntoIterator<Item = &'a Operation>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    for operation in operations {
        match operation {
            Operation::Put(space, key, value) => encode_one(PUT, *space, &[key, value], out),
            Operation::Delete(space, key) => encode_one(DELETE, *space, &[key], out),
            Operation::DeleteRange(space, from, to) => encode_one(DELETE_RANGE, *space, &[from, to], out),
        }
    }
    let length = ((out.len() - start - HEADER_BYTES) as u64).to_le_bytes();
    let checksum = checksum(length, &out[start + HEADER_BYTES..]);
    out[start..start + 8].copy_from_slice(&length);
    out[start + 8..start + HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// Reads the record that starts at `at`. Returns its batch and where the next one starts, or what is wrong with it.
pub(crate) fn decode(bytes: &[u8], at: usize) -> Result<(WriteBatch, usize), String> {
    let mut rest = Reader(bytes.get(at..).unwrap_or_default());
    let length: [u8; 8] = rest.array().ok_or("the header of a record is cut off")?;
    let expected = u32::from_le_bytes(rest.array().ok_or("the header of a record is cut off")?);
    let payload = rest.take(u64::from_le_bytes(length)).ok_or("a record is cut off")?;
    let found = checksum(length, payload);
    if found != expected {
        return Err(format!("checksum {found:08x} instead of {expected:08x}"));
    }
    let batch = decode_operations(payload).ok_or("a record has a valid checksum but not a valid form")?;
    Ok((batch, at + HEADER_BYTES + payload.len()))
}

fn encode_one(tag: u8, space: Space, fields: &[&Bytes], out: &mut Vec<u8>) {
    out.extend_from_slice(&[tag, space.0]);
    for field in fields {
        out.extend_from_slice(&(field.len() as u64).to_le_bytes());
        out.extend_from_slice(field);
    }
}

fn checksum(length: [u8; 8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

fn decode_operations(payload: &[u8]) -> Option<WriteBatch> {
    let mut rest = Reader(payload);
    let mut batch = WriteBatch::new();
    while !rest.0.is_empty() {
        let [tag, space] = rest.array()?;
        let space = Space(space);
        match tag {
            PUT => batch.put(space, rest.field()?, rest.field()?),
            DELETE => batch.delete(space, rest.field()?),
            DELETE_RANGE => batch.delete_range(space, rest.field()?, rest.field()?),
            _ => return None,
        }
    }
    Some(batch)
}

/// Takes bytes from the front, never more than there are.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N as u64)?.try_into().ok()
    }

    fn field(&mut self) -> Option<Bytes> {
        let length = u64::from_le_bytes(self.array()?);
        self.take(length).map(Bytes::copy_from_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> WriteBatch {
        let mut batch = WriteBatch::new();
        batch.put(Space(0), &b"key"[..], &b"value"[..]);
        batch.put(Space(1), &b""[..], &b""[..]);
        batch.delete(Space(2), &b"gone"[..]);
        batch.delete_range(Space(255), &b"a"[..], &b"b"[..]);
        batch
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let mut bytes = vec![0xee; 5];
        encode(sample().operations(), &mut bytes);
        assert_eq!(decode(&bytes, 5), Ok((sample(), bytes.len())));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let mut bytes = Vec::new();
        encode(sample().operations(), &mut bytes);
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes, 0).is_err(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length], 0).is_err(), "cut at {length}");
        }
        assert!(decode(&[0; 64], 0).is_err(), "zeros are no record");
    }
}
