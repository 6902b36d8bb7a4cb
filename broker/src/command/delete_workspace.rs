//! Delete workspace: with its log, sandboxes and inboxes.

use bytes::{Bytes, BytesMut};

use crate::encoding::{DecodeError, Reader, put_text};

/// The workspace to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeleteWorkspace {
    pub(crate) workspace: String,
}

impl DeleteWorkspace {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.workspace);
    }

    pub(super) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, "delete workspace");
        let workspace = reader.text()?;
        reader.end()?;
        Ok(Self { workspace })
    }
}
