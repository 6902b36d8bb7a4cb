//! Attributed: another verb, and who asked for it. Note: what the edge has to say to the audit.

use bytes::BytesMut;

use super::Verb;
use crate::{
    audit::Kind,
    encoding::{DecodeError, Field, Reader, encoded},
};

encoded! {
    /// Who makes a request, and from where.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub(crate) struct Origin {
        pub(crate) by: String,
        pub(crate) address: String,
        pub(crate) request_id: String,
    }
}

/// What somebody has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributed {
    pub(crate) origin: Origin,
    pub(crate) verb: Box<Verb>,
}

impl Field for Attributed {
    fn put(&self, out: &mut BytesMut) {
        self.origin.put(out);
        self.verb.encode(out);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        let origin = Origin::get(reader)?;
        let number = reader.u8()?;
        let payload = reader.bytes()?;
        match Verb::decode(number, payload)? {
            // Nobody asks for somebody who asks: a command is not deeper than this.
            Verb::Attributed(_) => Err(DecodeError::Unknown { what: "attributed verb", value: number }),
            verb => Ok(Self { origin, verb: Box::new(verb) }),
        }
    }
}

encoded! {
    /// Something that happened before any command.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Noted {
        pub(crate) kind: Kind,
        pub(crate) origin: Origin,
        pub(crate) about: String,
        pub(crate) count: u64,
        /// UTF-8.
        pub(crate) text: bytes::Bytes,
    }
}

encoded! {
    /// What is to be noted in the audit of a workspace, or, without one, in that of the shard.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Note {
        pub(crate) workspace: String,
        pub(crate) entries: Vec<Noted>,
    }
}
