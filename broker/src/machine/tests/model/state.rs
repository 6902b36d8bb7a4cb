//! What a workspace is, told as simply as possible: lists of everything, and no indexes. Written from the contract in `proto/`
//! and the design, not from the machine.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    command::{create_workspace::Settings, nack::AttemptError, register_sandbox::InboxSettings},
    machine::{dead_letter::DeadReason, events::EventKind},
};

/// The limits in force in all cases: small, so that they are met often.
pub(super) const MAX_INBOX: u64 = 9;
pub(super) const MAX_INBOX_BYTES: u64 = 900;
pub(super) const MAX_DEAD: u64 = 3;
pub(super) const WINDOW_MS: u64 = 15_000;
pub(super) const HEARTBEAT_MS: u64 = 20_000;
pub(super) const MAX_WORKSPACES: u32 = 2;
pub(super) const MAX_SANDBOXES: u32 = 4;
pub(super) const MAX_TOPICS: u32 = 3;
pub(super) const MAX_FOLLOWS: u32 = 3;

/// A shard.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) now: u64,
    pub(super) workspaces: BTreeMap<String, Workspace>,
    pub(super) created: u32,
}

#[derive(Debug)]
pub(super) struct Workspace {
    pub(super) number: u32,
    pub(super) settings: Settings,
    pub(super) last: u64,
    pub(super) log: BTreeMap<u64, Message>,
    /// By number; a sandbox that comes again has another one.
    pub(super) sandboxes: BTreeMap<u32, Sandbox>,
    pub(super) registered: u32,
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) topics_created: u32,
    pub(super) events: Vec<Event>,
    pub(super) ids: BTreeMap<String, Remembered<KnownId>>,
    pub(super) producers: BTreeMap<u128, Remembered<Producer>>,
    pub(super) conversations: BTreeMap<u128, Remembered<Conversation>>,
    /// By recipient and sequence.
    pub(super) dead: BTreeMap<(u32, u64), Dead>,
    /// Answers in the place of recipients, not published yet.
    pub(super) notices: Vec<(Message, String)>,
}

/// Something that is forgotten when nobody has touched it in this window of time and the one before.
#[derive(Debug, Clone)]
pub(super) struct Remembered<T> {
    pub(super) window: u64,
    pub(super) value: T,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownId {
    pub(super) sequence: u64,
    pub(super) digest: u64,
    pub(super) time: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Producer {
    pub(super) last: u64,
    /// Sequence and time of each position that was accepted.
    pub(super) accepted: BTreeMap<u64, (u64, u64)>,
}

/// Who has received what under a correlation id.
#[derive(Debug, Clone, Default)]
pub(super) struct Conversation {
    /// Recipient and hops.
    pub(super) received: Vec<(u32, u8)>,
    /// Sender and hops of what went to everybody.
    pub(super) shared: Vec<(u32, u8)>,
    /// The first sequence with each number of hops.
    pub(super) chain: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: EventKind,
    pub(super) about: u64,
    pub(super) count: u64,
    pub(super) time: u64,
    pub(super) sandbox: [u8; 8],
}

/// A name as events hold it.
pub(super) fn short(name: &str) -> [u8; 8] {
    std::array::from_fn(|at| name.as_bytes().get(at).copied().unwrap_or(0))
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) order: u32,
    pub(super) messages: u64,
    pub(super) last: u64,
    pub(super) created: u64,
}

#[derive(Debug, Default)]
pub(super) struct Sandbox {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) settings: InboxSettings,
    pub(super) capabilities: Vec<String>,
    pub(super) heard: u64,
    pub(super) online: bool,
    /// When it is looked whether it was heard.
    pub(super) watch: u64,
    pub(super) inbox: Vec<Waiting>,
    /// Pattern, and the first sequence that counts.
    pub(super) follows: BTreeMap<String, u64>,
    pub(super) requests: BTreeMap<u128, Request>,
    /// Told that it is full, and nothing went in since.
    pub(super) full: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) sequence: u64,
    pub(super) digest: u64,
    pub(super) deadline: u64,
    pub(super) response: Option<Message>,
    pub(super) answered: bool,
}

/// Where a message goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum To {
    Sandbox(String),
    Several(Vec<u32>),
    #[default]
    Broadcast,
    Topic(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// 0 until it is committed; so is the time.
    pub(super) sequence: u64,
    pub(super) time: u64,
    pub(super) from: String,
    pub(super) to: To,
    pub(super) priority: u8,
    /// 1 request, 2 response, 3 notification, 4 command.
    pub(super) kind: u8,
    pub(super) id: String,
    pub(super) digest: u64,
    pub(super) ttl: u64,
    pub(super) not_before: u64,
    pub(super) key: u64,
    pub(super) correlation: u128,
    pub(super) producer: (u128, u64),
    pub(super) requires_response: bool,
    pub(super) dead_letter_on_expiry: bool,
    pub(super) reply_timeout: u64,
    pub(super) hops: u8,
    /// Said by the broker in a recipient's place.
    pub(super) by_broker: bool,
    pub(super) body: Bytes,
    /// First sequence of the batch it came in.
    pub(super) batch: u64,
    /// Which topic of that name; it may be deleted and created again.
    pub(super) topic: u32,
}

/// From where a message reaches a recipient. Of equal sequences the first comes first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Direct,
    Broadcast,
    /// On its own: delayed, failed, put back.
    Alone,
    Topic(u32, String),
}

/// A message in an inbox.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    pub(super) source: Source,
    pub(super) message: Message,
    /// The next attempt.
    pub(super) attempt: u32,
    /// The time of the next attempt, once that was set.
    pub(super) due: u64,
    /// That time has not come.
    pub(super) deferred: bool,
    /// 0 never.
    pub(super) expires: u64,
    /// When it is looked whether it has expired; 0 never.
    pub(super) look: u64,
    /// It is looked again, because somebody worked on it or there was no room among the dead letters.
    pub(super) again: bool,
    /// It failed before: others of its key wait.
    pub(super) retry: bool,
    pub(super) history: Vec<Failed>,
    /// Somebody works on it.
    pub(super) leased: bool,
    /// It was given back, and is the next one of its key.
    pub(super) turn: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) attempt: u32,
    pub(super) time: u64,
    pub(super) error: AttemptError,
    pub(super) text: String,
}

#[derive(Debug, Clone)]
pub(super) struct Dead {
    pub(super) sandbox: String,
    pub(super) message: Message,
    pub(super) reason: DeadReason,
    pub(super) time: u64,
    pub(super) history: Vec<Failed>,
    pub(super) chain: Vec<u64>,
}

impl Message {
    /// Counted from its commit or from `not_before`; 0 never.
    pub(super) fn expires(&self) -> u64 {
        if self.ttl == 0 { 0 } else { self.time.max(self.not_before) + self.ttl }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.body.len() as u64
    }
}

impl Workspace {
    pub(super) fn named(&mut self, name: &str) -> Option<&mut Sandbox> {
        self.sandboxes.values_mut().find(|sandbox| sandbox.name == name)
    }

    pub(super) fn number_of(&self, name: &str) -> Option<u32> {
        self.sandboxes.values().find(|sandbox| sandbox.name == name).map(|sandbox| sandbox.number)
    }

    pub(super) fn dead_of(&self, sandbox: u32) -> u64 {
        self.dead.keys().filter(|(recipient, _)| *recipient == sandbox).count() as u64
    }

    pub(super) fn raise(&mut self, time: u64, kind: EventKind, sandbox: &str, about: u64, count: u64) {
        self.events.push(Event { kind, about, count, time, sandbox: short(sandbox) });
    }
}

impl Sandbox {
    /// What was addressed to it, or became its own by failing: what its limits count.
    pub(super) fn held(&self) -> impl Iterator<Item = &Waiting> {
        self.inbox.iter().filter(|waiting| matches!(waiting.source, Source::Direct | Source::Alone))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.held().map(|waiting| waiting.message.bytes()).sum()
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let limit = |own: u64, most: u64| if own == 0 { most } else { own.min(most) };
        (self.held().count() as u64) < limit(self.settings.max_messages, MAX_INBOX)
            && self.bytes() + bytes <= limit(self.settings.max_bytes, MAX_INBOX_BYTES)
    }
}
