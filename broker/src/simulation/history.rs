//! What clients did and what they were told, in the order in which it happened.

use std::collections::BTreeMap;

/// A point in the order of all that was recorded.
pub(super) type Moment = u64;

/// Who led, as the stream of a subscription was opened: node and term.
pub(super) type Reign = (u64, u64);

/// What a publish came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nobody knows.
    Unknown,
    Accepted(u64),
    Refused(String),
}

/// A message that somebody published, perhaps in several attempts.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) workspace: &'static str,
    /// Names the message; its content.
    pub(super) label: String,
    /// The recipient; none for a broadcast.
    pub(super) to: Option<&'static str>,
    /// Its ordering key; 0 without one.
    pub(super) key: u64,
    /// It may go unseen.
    pub(super) expires: bool,
    pub(super) asked: Moment,
    /// When it was acknowledged or refused.
    pub(super) answered: Option<Moment>,
    pub(super) ended: Ended,
}

/// A message that was handed out.
#[derive(Debug, Clone)]
pub(super) struct Delivered {
    pub(super) workspace: &'static str,
    pub(super) sandbox: &'static str,
    pub(super) label: String,
    pub(super) sequence: u64,
    pub(super) stream: u64,
    pub(super) reign: Reign,
    pub(super) at: Moment,
}

/// An ack that was asked for.
#[derive(Debug, Clone)]
pub(super) struct Acked {
    pub(super) workspace: &'static str,
    pub(super) sandbox: &'static str,
    pub(super) sequence: u64,
    pub(super) stream: u64,
    pub(super) reign: Reign,
    /// When it was delivered on this stream.
    pub(super) delivered: Moment,
    pub(super) asked: Moment,
    /// When it was confirmed, if it was.
    pub(super) confirmed: Option<Moment>,
}

/// A part of a workspace's log, read from a node.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) workspace: &'static str,
    pub(super) node: u64,
    pub(super) asked: Moment,
    /// Sequences behind this one.
    pub(super) after: u64,
    pub(super) found: Vec<(u64, String)>,
}

/// Everything that was recorded.
#[derive(Debug, Default)]
pub(super) struct History {
    newest: Moment,
    pub(super) published: Vec<Published>,
    pub(super) delivered: Vec<Delivered>,
    pub(super) acked: Vec<Acked>,
    pub(super) reads: Vec<Read>,
    /// By shard and index: a hash of the command that was applied there, and the node that was first.
    pub(super) applied: BTreeMap<(u32, u64), (u64, u64)>,
    /// By shard and term.
    pub(super) leaders: BTreeMap<(u32, u64), u64>,
    /// Messages that were there already when they were published again.
    pub(super) repeated: usize,
    /// When all faults were over, and every node knew who leads.
    pub(super) settled: Option<Moment>,
    /// Nodes that had to stop, and why.
    pub(super) stopped: Vec<String>,
    /// What must not happen was seen while it happened.
    pub(super) broken: Vec<String>,
    /// What happened, for people and for comparison.
    pub(super) trace: Vec<String>,
}

impl History {
    pub(super) fn now(&mut self) -> Moment {
        self.newest += 1;
        self.newest
    }
}

/// What is in a workspace at the end, on the node that has applied most of it.
#[derive(Debug, Default)]
pub(super) struct Final {
    /// The cluster came to rest. Otherwise logs may lack their end: only what stands before it is there or is not.
    pub(super) at_rest: bool,
    /// The whole log: sequence and label.
    pub(super) log: BTreeMap<&'static str, Vec<(u64, String)>>,
    /// Dead letters: sandbox and sequence.
    pub(super) dead: BTreeMap<&'static str, Vec<(String, u64)>>,
    /// What inboxes still hold: sandbox and number of messages.
    pub(super) pending: BTreeMap<&'static str, Vec<(String, u64)>>,
    /// By shard: a digest of the state on each node.
    pub(super) digests: BTreeMap<u32, BTreeMap<u64, u64>>,
}

impl Final {
    /// Whether it is known what a log holds up to this sequence.
    pub(super) fn is_known(&self, workspace: &str, sequence: u64) -> bool {
        let newest = self.log.get(workspace).and_then(|log| log.last()).map_or(0, |(sequence, _)| *sequence);
        self.at_rest || sequence <= newest
    }
}
