//! The replicated verbs as data.
//!
//! ```text
//! command = format u8 | time_ms u64 | limits u64 * 4 | item*
//! item    = verb u8 | length u32 | payload
//! outcome = item*                       one for each item of the command, in order
//! ```
//!
//! All that applying needs travels inside: the time of the leader, the limits in force. Verbs and layouts are frozen;
//! a change takes a new verb or a new format.

pub(crate) mod ack;
pub(crate) mod answered;
pub(crate) mod api_keys;
pub(crate) mod attributed;
pub(crate) mod create_workspace;
pub(crate) mod dead_letters;
pub(crate) mod decide;
pub(crate) mod delete_workspace;
pub(crate) mod heartbeat;
pub(crate) mod nack;
pub(crate) mod policy;
pub(crate) mod publish;
pub(crate) mod register_sandbox;
pub(crate) mod replay;
pub(crate) mod report_events;
pub(crate) mod set_quotas;
pub(crate) mod tick;
pub(crate) mod tokens;
pub(crate) mod topics;
pub(crate) mod trim;
pub(crate) mod unregister_sandbox;
pub(crate) mod update_workspace;

use bytes::{BufMut, Bytes, BytesMut};

pub(crate) use self::{
    ack::{Ack, Acked, AckedRange, FinishedRun, Lane, Source},
    answered::Answered,
    api_keys::{CreateKey, KeysUsed, RevokeKey},
    attributed::{Attributed, Note, Noted, Origin},
    create_workspace::CreateWorkspace,
    dead_letters::{Purge, Purged, Redrive, Redriven},
    decide::{Decide, Decided},
    delete_workspace::DeleteWorkspace,
    heartbeat::{Alive, Heartbeat},
    nack::{Nack, Nacked},
    policy::{PolicySet, SetPolicy},
    publish::{Publish, Published},
    register_sandbox::{RegisterSandbox, Registered},
    replay::{Replay, Replayed},
    report_events::{ReportEvents, ReportedEvent},
    set_quotas::SetQuotas,
    tick::{Tick, Ticked},
    tokens::{CreateToken, RevokeToken},
    topics::{CreateTopic, DeleteTopic, FollowTopics, Followed, TopicCreated, UnfollowTopics},
    trim::{Trim, Trimmed},
    unregister_sandbox::{UnregisterSandbox, Unregistered},
    update_workspace::UpdateWorkspace,
};
use crate::{
    encoding::{DecodeError, Field, Reader, encoded},
    rejection::Rejection,
};

const FORMAT: u8 = 2;
const HEADER: usize = 1 + 8 * 5;
const ITEM_HEADER: usize = 1 + 4;

macro_rules! verbs {
    ($($(#[$doc:meta])* $name:ident = $number:literal @ $level:literal -> $outcome:ty;)*) => {
        /// One thing to do. Numbers are frozen.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum Verb {
            $($(#[$doc])* $name($name),)*
        }

        /// What one thing came to.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(crate) enum Outcome {
            $($name(Result<$outcome, Rejection>),)*
        }

        impl Verb {
            /// The level of the cluster from which on this may be proposed: every node can apply it then.
            pub(crate) fn level(&self) -> u32 {
                match self {
                    $(Self::$name(_) => $level,)*
                }
            }

            fn encode(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$name(verb) => put_item(out, $number, |out| verb.put(out)),)*
                }
            }

            fn decode(number: u8, payload: Bytes) -> Result<Self, DecodeError> {
                match number {
                    $($number => $name::from_bytes(payload, stringify!($name)).map(Self::$name),)*
                    value => Err(DecodeError::Unknown { what: "verb", value }),
                }
            }
        }

        impl Outcome {
            fn encode(&self, out: &mut BytesMut) {
                match self {
                    $(Self::$name(result) => put_item(out, $number, |out| put_result(result, out)),)*
                }
            }

            fn decode(number: u8, payload: Bytes) -> Result<Self, DecodeError> {
                match number {
                    $($number => get_result(payload).map(Self::$name),)*
                    value => Err(DecodeError::Unknown { what: "verb", value }),
                }
            }
        }
    };
}

// Name = number @ level of the cluster from which on it may be proposed -> outcome. What is new takes a new level, in
// `tandem_raft`, where it says what a level is. A level grows until it is in a release, and never after.
verbs! {
    Publish = 1 @ 1 -> Published;
    Ack = 2 @ 1 -> Acked;
    RegisterSandbox = 3 @ 1 -> Registered;
    UnregisterSandbox = 4 @ 1 -> Unregistered;
    Heartbeat = 5 @ 1 -> ();
    CreateWorkspace = 6 @ 1 -> ();
    DeleteWorkspace = 7 @ 1 -> ();
    Nack = 8 @ 1 -> Nacked;
    Tick = 9 @ 1 -> Ticked;
    Redrive = 10 @ 1 -> Redriven;
    Purge = 11 @ 1 -> Purged;
    CreateTopic = 12 @ 1 -> TopicCreated;
    DeleteTopic = 13 @ 1 -> ();
    FollowTopics = 14 @ 1 -> Followed;
    UnfollowTopics = 15 @ 1 -> ();
    UpdateWorkspace = 16 @ 1 -> ();
    Trim = 17 @ 1 -> Trimmed;
    Replay = 18 @ 1 -> Replayed;
    Alive = 19 @ 1 -> ();
    Answered = 21 @ 1 -> ();
    SetPolicy = 22 @ 2 -> PolicySet;
    CreateKey = 23 @ 2 -> ();
    RevokeKey = 24 @ 2 -> ();
    KeysUsed = 25 @ 2 -> ();
    Decide = 26 @ 2 -> Decided;
    Attributed = 27 @ 2 -> ();
    Note = 28 @ 2 -> ();
    SetQuotas = 29 @ 2 -> ();
    CreateToken = 30 @ 2 -> ();
    RevokeToken = 31 @ 2 -> ();
    ReportEvents = 32 @ 2 -> ();
}

const PUBLISH: u8 = 1;

encoded! {
    /// What a leader says with every command: its clock, and the limits in force.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Header {
        /// The leader's clock, in milliseconds since 1970.
        pub(crate) time_ms: u64,
        /// How many messages an inbox may hold.
        pub(crate) max_inbox_messages: u64,
        /// How many bytes of messages an inbox may hold.
        pub(crate) max_inbox_bytes: u64,
        /// How many dead letters a sandbox may have.
        pub(crate) max_dead_letters: u64,
        /// For how long message ids, producers and conversations are remembered, in milliseconds.
        pub(crate) dedupe_window_ms: u64,
    }
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
        header.put(&mut out);
        Self { out, header }
    }

    /// Adds a verb.
    pub(crate) fn push(&mut self, verb: &Verb) {
        verb.encode(&mut self.out);
    }

    /// Adds a publish of the records of many requests to one workspace, encoded already: one copy, no decoding.
    pub(crate) fn push_records<'a>(&mut self, workspace: &str, count: u32, records: impl Iterator<Item = &'a Bytes>) {
        let time_ms = self.header.time_ms;
        put_item(&mut self.out, PUBLISH, |out| publish::encode_records(workspace, time_ms, count, records, out));
    }

    pub(crate) fn finish(self) -> Bytes {
        self.out.freeze()
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
    let header = Header::get(&mut reader)?;
    Ok((header, decode_items(reader, Verb::decode)?))
}

/// Writes what the verbs of a command came to.
pub(crate) fn encode_outcomes(outcomes: &[Outcome]) -> Bytes {
    let mut out = BytesMut::with_capacity(outcomes.len() * 32);
    outcomes.iter().for_each(|outcome| outcome.encode(&mut out));
    out.freeze()
}

/// Reads what `encode_outcomes` wrote.
pub(crate) fn decode_outcomes(bytes: Bytes) -> Result<Vec<Outcome>, DecodeError> {
    decode_items(Reader::new(bytes, "outcome"), Outcome::decode)
}

fn decode_items<T>(
    mut reader: Reader,
    decode: impl Fn(u8, Bytes) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut items = Vec::new();
    while !reader.is_empty() {
        items.push(decode(reader.u8()?, reader.bytes()?)?);
    }
    Ok(items)
}

fn put_result<T: Field>(result: &Result<T, Rejection>, out: &mut BytesMut) {
    match result {
        Ok(value) => {
            out.put_u8(0);
            value.put(out);
        }
        Err(rejection) => {
            out.put_u8(1);
            rejection.put(out);
        }
    }
}

fn get_result<T: Field>(payload: Bytes) -> Result<Result<T, Rejection>, DecodeError> {
    let mut reader = Reader::new(payload, "outcome");
    let result = match reader.u8()? {
        0 => Ok(T::get(&mut reader)?),
        1 => Err(Rejection::get(&mut reader)?),
        value => return Err(DecodeError::Unknown { what: "result", value }),
    };
    reader.end()?;
    Ok(result)
}

#[cfg(test)]
#[path = "command_tests.rs"]
mod tests;
