//! Create workspace.

use bytes::{BufMut, Bytes, BytesMut};

use crate::encoding::{DecodeError, Reader, put_text};

/// The workspace to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateWorkspace {
    pub(crate) workspace: String,
    /// How many workspaces a shard may have.
    pub(crate) max_workspaces: u32,
}

impl CreateWorkspace {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.workspace);
        out.put_u32(self.max_workspaces);
    }

    pub(super) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, "create workspace");
        let (workspace, max_workspaces) = (reader.text()?, reader.u32()?);
        reader.end()?;
        Ok(Self { workspace, max_workspaces })
    }
}
