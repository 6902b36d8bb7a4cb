//! Publish: messages of one workspace, of as many requests as waited.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    batch,
    encoding::{DecodeError, Field, Reader, encoded, put_text},
    rejection::Rejection,
};

/// Messages for one workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) workspace: String,
    /// A batch; its records are checked when it is applied.
    pub(crate) batch: Bytes,
}

encoded! {
    /// What a publish came to: message `i` has the sequence `first_sequence + i`, except those listed.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Published {
        pub(crate) first_sequence: u64,
        pub(crate) time_ms: u64,
        /// By rising index.
        pub(crate) exceptions: Vec<(u32, Exception)>,
    }
}

/// Why a message has no sequence of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exception {
    /// Accepted before, with this sequence and time.
    Duplicate { sequence: u64, time_ms: u64 },
    /// Refused.
    Refused(Rejection),
    /// Waits for approval, under this number.
    Held { approval: u64 },
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

impl Field for Publish {
    fn put(&self, out: &mut BytesMut) {
        put_text(out, &self.workspace);
        out.put_slice(&self.batch);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { workspace: reader.text()?, batch: reader.take_rest() })
    }
}

impl Field for Exception {
    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Duplicate { sequence, time_ms } => {
                out.put_u8(0);
                out.put_u64(*sequence);
                out.put_u64(*time_ms);
            }
            Self::Refused(rejection) => {
                out.put_u8(1);
                rejection.put(out);
            }
            Self::Held { approval } => {
                out.put_u8(2);
                out.put_u64(*approval);
            }
        }
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Self::Duplicate { sequence: reader.u64()?, time_ms: reader.u64()? }),
            1 => Ok(Self::Refused(Rejection::get(reader)?)),
            2 => Ok(Self::Held { approval: reader.u64()? }),
            value => Err(DecodeError::Unknown { what: "exception", value }),
        }
    }
}
