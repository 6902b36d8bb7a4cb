//! Register: a sandbox gets an inbox, or a new description.

use bytes::{BufMut, Bytes, BytesMut};

use crate::encoding::{DecodeError, Reader, put_bytes, put_text};

/// A sandbox as its owner describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegisterSandbox {
    pub(crate) workspace: String,
    pub(crate) sandbox: String,
    /// The encoded `Sandbox` of the contract, with the client's fields. Opaque here.
    pub(crate) description: Bytes,
    /// How many sandboxes a workspace may have.
    pub(crate) max_sandboxes: u32,
}

/// What a registration came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registered {
    /// False when the sandbox had been there.
    pub(crate) created: bool,
}

impl RegisterSandbox {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        put_text(out, &self.workspace);
        put_text(out, &self.sandbox);
        put_bytes(out, &self.description);
        out.put_u32(self.max_sandboxes);
    }

    pub(super) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, "register");
        let (workspace, sandbox) = (reader.text()?, reader.text()?);
        let (description, max_sandboxes) = (reader.bytes()?, reader.u32()?);
        reader.end()?;
        Ok(Self { workspace, sandbox, description, max_sandboxes })
    }
}

impl Registered {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(self.created));
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { created: reader.u8()? == 1 })
    }
}
