//! Messages that can be known again whatever the broker calls them: the content begins with their name.

use std::time::Duration;

use tandem_client::{Message, wire_duration};
use tandem_tests::{
    Random, broadcast, direct,
    history::{Act, Outcome, digest},
};

use super::SANDBOXES;

const BROADCAST_PERCENT: u64 = 5;
const KEY_PERCENT: u64 = 20;
const TTL_PERCENT: u64 = 2;
const KEYS: u64 = 3;

/// A message, and what will be noted of it.
#[derive(Clone)]
pub(super) struct Draft {
    pub(super) message: Message,
    pub(super) id: String,
    to: Vec<String>,
    expires: bool,
    /// When it was sent first.
    pub(super) invoke: u64,
    pub(super) tries: u32,
}

impl Draft {
    /// A message from `from` to anybody.
    pub(super) fn new(id: String, from: &str, random: &mut Random) -> Self {
        let content = format!("{id} {}", "x".repeat(random.between(0, 300) as usize));
        let others: Vec<_> = SANDBOXES.into_iter().filter(|name| *name != from).collect();
        let (message, to) = if random.percent(BROADCAST_PERCENT) {
            (broadcast(from, content), others.iter().map(|name| (*name).to_owned()).collect())
        } else {
            let to = others[random.between(0, others.len() as u64 - 1) as usize];
            (direct(from, to, content), vec![to.to_owned()])
        };
        let mut draft = Self { message, id, to, expires: false, invoke: 0, tries: 0 };
        if random.percent(KEY_PERCENT) {
            draft.message.ordering_key = format!("key-{}", random.between(1, KEYS));
        } else if random.percent(TTL_PERCENT) {
            draft.message.ttl = Some(wire_duration(Duration::from_secs(2)));
            draft.expires = true;
        }
        draft
    }

    /// A message to somebody whom nobody knows, which is refused.
    pub(super) fn to_nobody(id: String, from: &str) -> Self {
        let message = direct(from, "nobody", format!("{id} "));
        Self { message, id, to: vec!["nobody".to_owned()], expires: false, invoke: 0, tries: 0 }
    }

    /// What became of it.
    pub(super) fn act(&self, outcome: Outcome, sequence: u64) -> Act {
        Act::Publish {
            id: self.id.clone(),
            to: self.to.clone(),
            key: self.message.ordering_key.clone(),
            content: digest(&self.message.content),
            expires: self.expires,
            tries: self.tries,
            outcome,
            sequence,
        }
    }
}

/// The name of a message, as its content says, and the digest of that.
pub(crate) fn name_and_digest(message: &Message) -> (String, u64) {
    let name = message.content.split(|byte| *byte == b' ').next().unwrap_or_default();
    (String::from_utf8_lossy(name).into_owned(), digest(&message.content))
}
