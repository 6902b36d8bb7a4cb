//! Publish: messages of one workspace, of as many requests as waited.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    batch,
    encoding::{DecodeError, Reader, put_text},
    rejection::Rejection,
};

/// Messages for one workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) workspace: String,
    /// A batch; its records are checked when it is applied.
    pub(crate) batch: Bytes,
}

/// What a publish came to: message `i` has the sequence `first_sequence + i`, except those listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) first_sequence: u64,
    pub(crate) time_ms: u64,
    /// By rising index.
    pub(crate) exceptions: Vec<(u32, Exception)>,
}

/// Why a message has no sequence of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exception {
    /// Accepted before, with this sequence and time.
    Duplicate { sequence: u64, time_ms: u64 },
    /// Refused.
    Refused(Rejection),
}

pub(super) fn encode_records<'a>(
    workspace: &str,
    time_ms: u64,
    count: u32,
    records: impl Iterator<Item = &'a Bytes>,
    out: &mut BytesMut,
) {
    put_text(out, workspace);
    batch::encode_header(time_ms, count, out);
    records.for_each(|records| out.put_slice(records));
}

impl Publish {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.workspace);
        out.put_slice(&self.batch);
    }

    pub(super) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, "publish");
        Ok(Self { workspace: reader.text()?, batch: reader.rest() })
    }
}

impl Published {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.first_sequence);
        out.put_u64(self.time_ms);
        out.put_u32(self.exceptions.len() as u32);
        for (index, exception) in &self.exceptions {
            out.put_u32(*index);
            match exception {
                Exception::Duplicate { sequence, time_ms } => {
                    out.put_u8(0);
                    out.put_u64(*sequence);
                    out.put_u64(*time_ms);
                }
                Exception::Refused(rejection) => {
                    out.put_u8(1);
                    rejection.encode(out);
                }
            }
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let (first_sequence, time_ms) = (reader.u64()?, reader.u64()?);
        let mut exceptions = Vec::new();
        for _ in 0..reader.u32()? {
            let index = reader.u32()?;
            let exception = match reader.u8()? {
                0 => Exception::Duplicate { sequence: reader.u64()?, time_ms: reader.u64()? },
                1 => Exception::Refused(Rejection::decode(reader)?),
                value => return Err(DecodeError::Unknown { what: "exception", value }),
            };
            exceptions.push((index, exception));
        }
        Ok(Self { first_sequence, time_ms, exceptions })
    }
}
