//! What a history is made of.

use std::hash::{DefaultHasher, Hasher};

use serde::{Deserialize, Serialize};

/// One operation of one client, or one thing that was found at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Who saw it.
    pub client: String,
    /// When it was asked for, in nanoseconds since the run began, on the one clock of all clients. For what comes unasked the
    /// same as `done`.
    pub invoke: u64,
    /// When the outcome was known.
    pub done: u64,
    /// What it was.
    pub act: Act,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The broker confirmed it.
    Ok,
    /// The broker refused it for good: it has no effect, now or later.
    Refused,
    /// Nobody knows: the answer never came, or one of several tries has no answer.
    Unknown,
}

/// What was done or seen. Sequences are those of the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A message was published, over as many tries as it took.
    Publish {
        /// The name of the message within its workspace, which its content bears too: it is known again whatever id the
        /// broker gives it.
        id: String,
        /// The sandboxes that are to get it.
        to: Vec<String>,
        /// Its ordering key; empty for none.
        key: String,
        /// [`digest`] of its content.
        content: u64,
        /// Whether it may vanish unread, because it has a ttl.
        expires: bool,
        /// How often it was sent.
        tries: u32,
        /// Whether it was accepted.
        outcome: Outcome,
        /// Its sequence when it was, otherwise 0.
        sequence: u64,
    },
    /// An inbox was opened.
    Subscribe {
        /// The name of this subscription, used once.
        subscription: String,
        /// Whose inbox.
        sandbox: String,
    },
    /// A delivery came.
    Deliver {
        /// On this subscription.
        subscription: String,
        /// Of this inbox.
        sandbox: String,
        /// The sequence that it bears.
        sequence: u64,
        /// The name of the message, as its content says.
        id: String,
        /// [`digest`] of its content.
        content: u64,
        /// The how manieth attempt it is, as the broker counts.
        attempt: u32,
    },
    /// Deliveries were acknowledged together.
    Ack {
        /// On this subscription.
        subscription: String,
        /// Of this inbox.
        sandbox: String,
        /// Sequence and attempt of each.
        deliveries: Vec<(u64, u32)>,
        /// What the broker said to all of them.
        outcome: Outcome,
    },
    /// A delivery was given back as failed.
    Nack {
        /// On this subscription.
        subscription: String,
        /// Of this inbox.
        sandbox: String,
        /// Its sequence.
        sequence: u64,
        /// Whether it was to become a dead letter at once.
        dead_letter: bool,
        /// What the broker said.
        outcome: Outcome,
    },
    /// A reader of the log got these, in this order, behind what it had got before.
    Read {
        /// The name of the reader's stream, which goes on over breaks.
        stream: String,
        /// Sequence, name and [`digest`] of each.
        messages: Vec<(u64, String, u64)>,
    },
    /// At the end the log holds this.
    Log {
        /// Its sequence.
        sequence: u64,
        /// The name of the message.
        id: String,
        /// [`digest`] of its content.
        content: u64,
    },
    /// At the end this is a dead letter.
    DeadLetter {
        /// Whose.
        sandbox: String,
        /// The sequence of the message.
        sequence: u64,
    },
    /// At the end so many messages wait in an inbox.
    Rest {
        /// Whose.
        sandbox: String,
        /// How many.
        pending: u64,
    },
    /// At the end a node says this of its state.
    State {
        /// The node.
        node: u64,
        /// Of what.
        what: String,
        /// What it says.
        value: String,
    },
}

/// Stands for a content in a history.
pub fn digest(content: &[u8]) -> u64 {
    // Begins with fixed keys: the same content has the same digest in every process.
    let mut hasher = DefaultHasher::new();
    hasher.write(content);
    hasher.finish()
}
