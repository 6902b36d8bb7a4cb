//! Heartbeat: a sandbox is alive.

use bytes::{Bytes, BytesMut};

use crate::encoding::{DecodeError, Reader, put_text};

/// The sandbox that is alive, as of the time of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heartbeat {
    pub(crate) workspace: String,
    pub(crate) sandbox: String,
}

impl Heartbeat {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.workspace);
        put_text(out, &self.sandbox);
    }

    pub(super) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, "heartbeat");
        let (workspace, sandbox) = (reader.text()?, reader.text()?);
        reader.end()?;
        Ok(Self { workspace, sandbox })
    }
}
