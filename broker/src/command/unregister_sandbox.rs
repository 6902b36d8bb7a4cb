//! Unregister: a sandbox goes, with its inbox.

use bytes::{BufMut, Bytes, BytesMut};

use crate::encoding::{DecodeError, Reader, put_text};

/// The sandbox to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnregisterSandbox {
    pub(crate) workspace: String,
    pub(crate) sandbox: String,
}

/// What the removal came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unregistered {
    /// Messages that were still waiting.
    pub(crate) abandoned: u64,
}

impl UnregisterSandbox {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.workspace);
        put_text(out, &self.sandbox);
    }

    pub(super) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, "unregister");
        let (workspace, sandbox) = (reader.text()?, reader.text()?);
        reader.end()?;
        Ok(Self { workspace, sandbox })
    }
}

impl Unregistered {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.abandoned);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { abandoned: reader.u64()? })
    }
}
