//! The replicated verbs as data.
//!
//! ```text
//! command = format u8 | time_ms u64 | max_inbox_messages u64 | item*
//! item    = verb u8 | length u32 | payload
//! outcome = item*                       one for each item of the command, in order
//! ```
//!
//! All that applying needs travels inside: the time of the leader, the limits in force. Verbs and layouts are frozen;
//! a change takes a new verb or a new format.

pub(crate) mod ack;
pub(crate) mod create_workspace;
pub(crate) mod delete_workspace;
pub(crate) mod heartbeat;
pub(crate) mod publish;
pub(crate) mod register_sandbox;
pub(crate) mod unregister_sandbox;

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) use self::{
    ack::{Ack, Acked, AckedRange, FinishedRun, Lane, Source},
    create_workspace::CreateWorkspace,
    delete_workspace::DeleteWorkspace,
    heartbeat::Heartbeat,
    publish::{Publish, Published},
    register_sandbox::{RegisterSandbox, Registered},
    unregister_sandbox::{UnregisterSandbox, Unregistered},
};
use crate::{
    encoding::{DecodeError, Reader},
    rejection::Rejection,
};

const FORMAT: u8 = 1;
const HEADER: usize = 1 + 8 + 8;
const ITEM_HEADER: usize = 1 + 4;

/// Numbers of verbs. Frozen.
mod verb {
    pub(super) const PUBLISH: u8 = 1;
    pub(super) const ACK: u8 = 2;
    pub(super) const REGISTER_SANDBOX: u8 = 3;
    pub(super) const UNREGISTER_SANDBOX: u8 = 4;
    pub(super) const HEARTBEAT: u8 = 5;
    pub(super) const CREATE_WORKSPACE: u8 = 6;
    pub(super) const DELETE_WORKSPACE: u8 = 7;
}

/// What a leader says with every command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The leader's clock, in milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// How many messages an inbox may hold.
    pub(crate) max_inbox_messages: u64,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verb {
    Publish(Publish),
    Ack(Ack),
    RegisterSandbox(RegisterSandbox),
    UnregisterSandbox(UnregisterSandbox),
    Heartbeat(Heartbeat),
    CreateWorkspace(CreateWorkspace),
    DeleteWorkspace(DeleteWorkspace),
}

/// What one thing came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Publish(Result<Published, Rejection>),
    Ack(Result<Acked, Rejection>),
    RegisterSandbox(Result<Registered, Rejection>),
    UnregisterSandbox(Result<Unregistered, Rejection>),
    Heartbeat(Result<(), Rejection>),
    CreateWorkspace(Result<(), Rejection>),
    DeleteWorkspace(Result<(), Rejection>),
}

/// A command in the making.
pub(crate) struct CommandBuilder {
    out: BytesMut,
    header: Header,
}

impl CommandBuilder {
    pub(crate) fn new(header: Header, capacity: usize) -> Self {
        let mut out = BytesMut::with_capacity(HEADER + capacity);
        out.put_u8(FORMAT);
        out.put_u64(header.time_ms);
        out.put_u64(header.max_inbox_messages);
        Self { out, header }
    }

    /// Adds a verb that is not a publish.
    pub(crate) fn push(&mut self, verb: &Verb) {
        match verb {
            Verb::Publish(publish) => self.item(verb::PUBLISH, |out| publish.encode(out)),
            Verb::Ack(ack) => self.item(verb::ACK, |out| ack.encode(out)),
            Verb::RegisterSandbox(register) => self.item(verb::REGISTER_SANDBOX, |out| register.encode(out)),
            Verb::UnregisterSandbox(unregister) => self.item(verb::UNREGISTER_SANDBOX, |out| unregister.encode(out)),
            Verb::Heartbeat(heartbeat) => self.item(verb::HEARTBEAT, |out| heartbeat.encode(out)),
            Verb::CreateWorkspace(create) => self.item(verb::CREATE_WORKSPACE, |out| create.encode(out)),
            Verb::DeleteWorkspace(delete) => self.item(verb::DELETE_WORKSPACE, |out| delete.encode(out)),
        }
    }

    /// Adds a publish of the records of many requests to one workspace, encoded already: one copy, no decoding.
    pub(crate) fn push_records<'a>(&mut self, workspace: &str, count: u32, records: impl Iterator<Item = &'a Bytes>) {
        let time_ms = self.header.time_ms;
        self.item(verb::PUBLISH, |out| publish::encode_records(workspace, time_ms, count, records, out));
    }

    pub(crate) fn finish(self) -> Bytes {
        self.out.freeze()
    }

    fn item(&mut self, verb: u8, payload: impl FnOnce(&mut BytesMut)) {
        put_item(&mut self.out, verb, payload);
    }
}

fn put_item(out: &mut BytesMut, verb: u8, payload: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u8(verb);
    out.put_u32(0);
    payload(out);
    let length = (out.len() - start - ITEM_HEADER) as u32;
    out[start + 1..start + ITEM_HEADER].copy_from_slice(&length.to_be_bytes());
}

/// Reads a command. What a publish carries is a slice of `command`, not a copy.
pub(crate) fn decode(command: &Bytes) -> Result<(Header, Vec<Verb>), DecodeError> {
    let mut reader = Reader::new(command.clone(), "command");
    let format = reader.u8()?;
    if format != FORMAT {
        return Err(DecodeError::Unknown { what: "command format", value: format });
    }
    let header = Header { time_ms: reader.u64()?, max_inbox_messages: reader.u64()? };
    let mut verbs = Vec::new();
    while !reader.is_empty() {
        let number = reader.u8()?;
        let payload = reader.bytes()?;
        verbs.push(match number {
            verb::PUBLISH => Verb::Publish(Publish::decode(payload)?),
            verb::ACK => Verb::Ack(Ack::decode(payload)?),
            verb::REGISTER_SANDBOX => Verb::RegisterSandbox(RegisterSandbox::decode(payload)?),
            verb::UNREGISTER_SANDBOX => Verb::UnregisterSandbox(UnregisterSandbox::decode(payload)?),
            verb::HEARTBEAT => Verb::Heartbeat(Heartbeat::decode(payload)?),
            verb::CREATE_WORKSPACE => Verb::CreateWorkspace(CreateWorkspace::decode(payload)?),
            verb::DELETE_WORKSPACE => Verb::DeleteWorkspace(DeleteWorkspace::decode(payload)?),
            value => return Err(DecodeError::Unknown { what: "verb", value }),
        });
    }
    Ok((header, verbs))
}

/// Writes what the verbs of a command came to.
pub(crate) fn encode_outcomes(outcomes: &[Outcome]) -> Bytes {
    let mut out = BytesMut::with_capacity(outcomes.len() * 32);
    for outcome in outcomes {
        match outcome {
            Outcome::Publish(result) => put_outcome(&mut out, verb::PUBLISH, result, Published::encode),
            Outcome::Ack(result) => put_outcome(&mut out, verb::ACK, result, Acked::encode),
            Outcome::RegisterSandbox(result) => {
                put_outcome(&mut out, verb::REGISTER_SANDBOX, result, Registered::encode);
            }
            Outcome::UnregisterSandbox(result) => {
                put_outcome(&mut out, verb::UNREGISTER_SANDBOX, result, Unregistered::encode);
            }
            Outcome::Heartbeat(result) => put_outcome(&mut out, verb::HEARTBEAT, result, |(), _| ()),
            Outcome::CreateWorkspace(result) => put_outcome(&mut out, verb::CREATE_WORKSPACE, result, |(), _| ()),
            Outcome::DeleteWorkspace(result) => put_outcome(&mut out, verb::DELETE_WORKSPACE, result, |(), _| ()),
        }
    }
    out.freeze()
}

fn put_outcome<T>(out: &mut BytesMut, verb: u8, result: &Result<T, Rejection>, encode: impl FnOnce(&T, &mut BytesMut)) {
    put_item(out, verb, |out| match result {
        Ok(value) => {
            out.put_u8(0);
            encode(value, out);
        }
        Err(rejection) => {
            out.put_u8(1);
            rejection.encode(out);
        }
    });
}

/// Reads what `encode_outcomes` wrote.
pub(crate) fn decode_outcomes(bytes: Bytes) -> Result<Vec<Outcome>, DecodeError> {
    let mut reader = Reader::new(bytes, "outcome");
    let mut outcomes = Vec::new();
    while !reader.is_empty() {
        let number = reader.u8()?;
        let payload = Reader::new(reader.bytes()?, "outcome");
        outcomes.push(match number {
            verb::PUBLISH => Outcome::Publish(result(payload, Published::decode)?),
            verb::ACK => Outcome::Ack(result(payload, Acked::decode)?),
            verb::REGISTER_SANDBOX => Outcome::RegisterSandbox(result(payload, Registered::decode)?),
            verb::UNREGISTER_SANDBOX => Outcome::UnregisterSandbox(result(payload, Unregistered::decode)?),
            verb::HEARTBEAT => Outcome::Heartbeat(result(payload, |_| Ok(()))?),
            verb::CREATE_WORKSPACE => Outcome::CreateWorkspace(result(payload, |_| Ok(()))?),
            verb::DELETE_WORKSPACE => Outcome::DeleteWorkspace(result(payload, |_| Ok(()))?),
            value => return Err(DecodeError::Unknown { what: "verb", value }),
        });
    }
    Ok(outcomes)
}

fn result<T>(
    mut reader: Reader,
    decode: impl FnOnce(&mut Reader) -> Result<T, DecodeError>,
) -> Result<Result<T, Rejection>, DecodeError> {
    let result = match reader.u8()? {
        0 => Ok(decode(&mut reader)?),
        1 => Err(Rejection::decode(&mut reader)?),
        value => return Err(DecodeError::Unknown { what: "result", value }),
    };
    reader.end()?;
    Ok(result)
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
