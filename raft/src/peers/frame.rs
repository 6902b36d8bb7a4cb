//! Frames: what goes over a connection between two nodes.
//!
//! ```text
//! frame = length u32 | crc32c u32 | kind u8 | shard u32 | call u64 | body
//! ```
//!
//! The length counts what follows the checksum; the checksum covers the same. Numbers are big-endian. Kinds are frozen per
//! protocol version (`crate::level`).

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Length and checksum.
const PREFIX: usize = 4 + 4;
/// Kind, shard and call.
const HEADER: usize = 1 + 4 + 8;
/// The most that a frame may hold behind its checksum. A read of the log hands out 4 MiB and the entry that crosses it; a
/// command is at most 4 MiB and one request of at most 16 MiB.
pub(crate) const MAX_FRAME_BYTES: usize = 64 << 20;

/// How a TLS connection begins: as a frame it would be far too large.
const TLS_RECORD: [u8; 2] = [0x16, 0x03];

/// What a frame is about. Questions go from the node that dialed; answers come back.
pub(crate) mod kind {
    /// Are you there? Answered with [`ANSWER`].
    pub(crate) const PING: u8 = 1;
    /// The one answer of a question, or one of the answers of a stream.
    pub(crate) const ANSWER: u8 = 2;
    /// The question cannot be answered; the body is a text.
    pub(crate) const FAILURE: u8 = 3;
    /// The first append of a stream.
    pub(crate) const APPEND_FIRST: u8 = 10;
    /// A later one.
    pub(crate) const APPEND_NEXT: u8 = 11;
    /// No more appends come on this stream.
    pub(crate) const APPEND_END: u8 = 12;
    /// A vote is asked for.
    pub(crate) const VOTE: u8 = 20;
    /// Would a vote be given?
    pub(crate) const PRE_VOTE: u8 = 21;
    /// The leader hands over.
    pub(crate) const TRANSFER: u8 = 22;
    /// Up to where must a state be applied, to hold all that is acknowledged?
    pub(crate) const READ_INDEX: u8 = 30;
    /// Where does the shard stand, and who has its log up to where?
    pub(crate) const STANDING: u8 = 31;
    /// A snapshot begins.
    pub(crate) const SNAPSHOT_BEGIN: u8 = 40;
    /// A piece of a file of it.
    pub(crate) const SNAPSHOT_PIECE: u8 = 41;
    /// It is complete.
    pub(crate) const SNAPSHOT_END: u8 = 42;
    /// How much of a file of it is there already?
    pub(crate) const SNAPSHOT_FILE: u8 = 43;
    /// Who are the members?
    pub(crate) const ROLL: u8 = 50;
    /// Change who they are.
    pub(crate) const CHANGE: u8 = 51;
    /// Propose that every member computes a digest of its state.
    pub(crate) const DIGEST_BEGIN: u8 = 60;
    /// What is the digest of the state at an entry?
    pub(crate) const DIGEST: u8 = 61;
    /// Lend a snapshot to a node that lost its state.
    pub(crate) const LEND: u8 = 70;
    /// A piece of a file of it.
    pub(crate) const LEND_PIECE: u8 = 71;
    /// A file of it arrived with another checksum than was announced, again and again.
    pub(crate) const LEND_DAMAGED: u8 = 72;
}

/// A frame that came.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) shard: u32,
    /// Which question or stream it belongs to; chosen by the node that dialed.
    pub(crate) call: u64,
    pub(crate) body: Bytes,
}

/// Writes a frame; `body` appends what it holds.
pub(crate) fn encode(kind: u8, shard: u32, call: u64, capacity: usize, body: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::with_capacity(PREFIX + HEADER + capacity);
    out.put_u64(0);
    out.put_u8(kind);
    out.put_u32(shard);
    out.put_u64(call);
    body(&mut out);
    let length = (out.len() - PREFIX) as u32;
    let checksum = crc32c::crc32c(&out[PREFIX..]);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out[4..PREFIX].copy_from_slice(&checksum.to_be_bytes());
    out.freeze()
}

/// Reads frames, many with one system call.
pub(crate) struct FrameReader<R> {
    from: R,
    buffer: BytesMut,
    max_bytes: usize,
}

/// How much room a new buffer has.
const READ_BYTES: usize = 256 << 10;
/// A buffer with less room than this is left to those who hold parts of it: commands in the log's cache are slices of what
/// was read, and a buffer that is given up early would be held for a small part of it.
const SPARE_BYTES: usize = 16 << 10;

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Reads from `from`; no frame may be larger than `max_bytes`.
    pub(crate) fn new(from: R, max_bytes: usize) -> Self {
        Self { from, buffer: BytesMut::new(), max_bytes }
    }

    /// The next frame; None when the other side has closed. Safe to cancel.
    ///
    /// # Errors
    /// The connection broke, or what came is no frame: too large, too short, or with another checksum than its bytes have.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if self.buffer.capacity() - self.buffer.len() < SPARE_BYTES {
                self.buffer.reserve(READ_BYTES);
            }
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                let cut = !self.buffer.is_empty();
                return if cut { Err(broken("the connection ended within a frame")) } else { Ok(None) };
            }
        }
    }

    /// The connection itself, once the frames of a handshake are done.
    pub(crate) fn allow(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    fn take(&mut self) -> io::Result<Option<Frame>> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        let (length, checksum) = ((&prefix[..4]).get_u32() as usize, (&prefix[4..]).get_u32());
        if prefix[..2] == TLS_RECORD && length > self.max_bytes {
            let text = "a connection with TLS came, and this node takes none; give all nodes cluster.tls_ca_file and the files \
                        that go with it, or none of them";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        if length > self.max_bytes || length < HEADER {
            return Err(broken(format!("a frame of {length} bytes; {HEADER} to {} are allowed", self.max_bytes)));
        }
        if self.buffer.len() < PREFIX + length {
            self.buffer.reserve(PREFIX + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let mut body = self.buffer.split_to(length).freeze();
        if crc32c::crc32c(&body) != checksum {
            return Err(broken("a frame whose checksum does not match its bytes"));
        }
        let (kind, shard, call) = (body.get_u8(), body.get_u32(), body.get_u64());
        Ok(Some(Frame { kind, shard, call, body }))
    }
}

fn broken(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Bytes {
        encode(kind::PING, 7, 9, 0, |out| out.put_slice(b"hello"))
    }

    #[test]
    fn a_frame_has_these_bytes() {
        let expected = [
            0, 0, 0, 18, // length
            0x0f, 0x0e, 0x49, 0x6c, // crc32c of the rest
            1,    // ping
            0, 0, 0, 7, // shard
            0, 0, 0, 0, 0, 0, 0, 9, // call
            b'h', b'e', b'l', b'l', b'o',
        ];
        let frame = hello();
        assert_eq!((&frame[..4], &frame[8..]), (&expected[..4], &expected[8..]));
        assert_eq!(crc32c::crc32c(&frame[8..]).to_be_bytes(), frame[4..8]);
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let wire = [hello(), encode(kind::ANSWER, 0, 1, 0, |_| ()), hello()].concat();
        for cut in 0..wire.len() {
            let (mut to, from) = tokio::io::duplex(1 << 16);
            let mut reader = FrameReader::new(from, 100);
            let (first, second) = wire.split_at(cut);
            tokio::io::AsyncWriteExt::write_all(&mut to, first).await.unwrap();
            let mut kinds = Vec::new();
            while let Ok(frame) = tokio::time::timeout(std::time::Duration::ZERO, reader.next()).await {
                kinds.push(frame.unwrap().unwrap().kind);
            }
            tokio::io::AsyncWriteExt::write_all(&mut to, second).await.unwrap();
            drop(to);
            while let Some(frame) = reader.next().await.unwrap() {
                kinds.push(frame.kind);
            }
            assert_eq!(kinds, [kind::PING, kind::ANSWER, kind::PING], "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn every_flipped_byte_is_found() {
        let frame = hello();
        for place in 0..frame.len() {
            let mut damaged = frame.to_vec();
            damaged[place] ^= 0x10;
            let mut reader = FrameReader::new(damaged.as_slice(), 100);
            assert!(reader.next().await.is_err(), "byte {place}");
        }
    }

    #[tokio::test]
    async fn a_large_frame_is_refused_before_it_is_read() {
        let frame = encode(kind::PING, 0, 0, 0, |out| out.put_bytes(0, 200));
        let error = FrameReader::new(&frame[..8], 100).next().await.unwrap_err();
        assert!(error.to_string().contains("213 bytes"), "{error}");
    }
}
