//! What can go wrong with replication.

use std::sync::Arc;

use crate::{damage::Part, encoding::DecodeError};

/// Why a command has no outcome.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead the shard, or not for sure. The command was not accepted here; try the leader, if one is
    /// named.
    #[error("this node does not lead the shard; {}", leader_hint(.0))]
    NotLeader(Option<u64>),
    /// The command may or may not have been committed: the leader changed or the node stops. Ask again with the same
    /// message id.
    #[error("the shard has no settled leader right now; try again")]
    Unsettled,
    /// Not every node can apply this command yet: an upgrade is under way.
    #[error("this needs level {needed}, and the cluster is at level {level}{}", waits_for(.who))]
    LevelTooLow {
        /// The level that the command needs.
        needed: u32,
        /// The level of the cluster.
        level: u32,
        /// Members that cannot apply it, or are not connected to say so.
        who: Vec<u64>,
    },
    /// The node has stopped this shard for good.
    #[error("the shard has stopped: {0}")]
    Stopped(String),
}

fn waits_for(who: &[u64]) -> String {
    let nodes: Vec<_> = who.iter().map(|node| format!("node {node}")).collect();
    if nodes.is_empty() { "; try again".into() } else { format!("; upgrade {}, or bring it back", nodes.join(" and ")) }
}

fn leader_hint(leader: &Option<u64>) -> String {
    leader
        .map_or_else(|| "no leader is known right now, try again".into(), |id| format!("send the request to node {id}"))
}

/// Why a node must stop rather than go on. All of these are fatal.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FatalError {
    /// The disk did not do what it was told, or gave back other bytes.
    #[error(transparent)]
    Storage(Arc<tandem_storage::Error>),
    /// An engine failed under a reader.
    #[error("{detail}")]
    Engine {
        /// The code of the engine's error.
        code: &'static str,
        /// What the engine said.
        detail: String,
    },
    /// A record cannot be read.
    #[error(
        "corrupt record at {place}: {detail}; restore the data directory from a backup, or in a cluster replace the node (tandem cluster replace)"
    )]
    Record {
        /// Which record.
        place: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Bytes on the disk are not those that were written. It was found when they were read, at a start, or by the scrub.
    #[error("{part} is damaged: {detail}; {advice}")]
    Damaged {
        /// What is damaged.
        part: Part,
        /// What was found, and where.
        detail: String,
        /// What to do.
        advice: &'static str,
    },
    /// The log has a hole.
    #[error(
        "shard {shard}: log entry {index} is missing although {last} exists; restore the data directory from a backup"
    )]
    MissingEntry {
        /// The shard.
        shard: u32,
        /// The index that is absent.
        index: u64,
        /// The newest index.
        last: u64,
    },
    /// The machine that applies commands cannot go on.
    #[error("shard {shard}: command {index} cannot be applied: {detail}")]
    Apply {
        /// The shard.
        shard: u32,
        /// Index of the entry.
        index: u64,
        /// What the machine said.
        detail: String,
    },
    /// All other nodes of the cluster refuse this one.
    #[error("no other node of the cluster takes this one: {detail}")]
    Refused {
        /// Why, as a stable code.
        code: &'static str,
        /// Why, for people.
        detail: String,
    },
    /// This node was taken out of its cluster.
    #[error("{detail}; its data directory is not needed any more")]
    Removed {
        /// Which node, and by whom.
        detail: String,
    },
    /// A newer version has written what this one cannot apply.
    #[error("{detail}; start this node with the version of the others")]
    TooOld {
        /// What it is.
        detail: String,
    },
    /// The Raft core has ended.
    #[error("shard {shard}: replication ended: {detail}")]
    Raft {
        /// The shard.
        shard: u32,
        /// What the core said.
        detail: String,
    },
}

impl FatalError {
    pub(crate) fn record(place: impl Into<String>, error: &DecodeError) -> Self {
        Self::Record { place: place.into(), detail: error.to_string() }
    }

    /// Whether it says that bytes on the disk are not those that were written.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Storage(error) => matches!(**error, tandem_storage::Error::Corrupt { .. }),
            Self::Record { .. } | Self::Damaged { .. } => true,
            _ => false,
        }
    }

    /// A stable code for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Engine { code, .. } => code,
            Self::Record { .. } => "LOG_CORRUPT",
            Self::Damaged { part, .. } => part.code(),
            Self::MissingEntry { .. } => "LOG_GAP",
            Self::Apply { .. } => "APPLY_FAILED",
            Self::Refused { code, .. } => code,
            Self::Removed { .. } => "NODE_REMOVED",
            Self::TooOld { .. } => "NODE_TOO_OLD",
            Self::Raft { .. } => "RAFT_STOPPED",
        }
    }
}

impl From<tandem_storage::Error> for FatalError {
    fn from(error: tandem_storage::Error) -> Self {
        Self::Storage(Arc::new(error))
    }
}

impl From<FatalError> for std::io::Error {
    fn from(error: FatalError) -> Self {
        Self::other(error)
    }
}

/// Where fatal errors go: the first one wins, and the process that owns the node ends.
#[derive(Debug, Clone)]
pub struct FatalSink(tokio::sync::watch::Sender<Option<FatalError>>);

impl Default for FatalSink {
    fn default() -> Self {
        Self(tokio::sync::watch::Sender::new(None))
    }
}

impl FatalSink {
    /// Remembers the error unless an earlier one is there, and logs it.
    pub fn report(&self, error: FatalError) {
        self.0.send_if_modified(|slot| {
            if slot.is_some() {
                return false;
            }
            tracing::error!(code = error.code(), %error, "the node stops");
            *slot = Some(error);
            true
        });
    }

    /// What was reported first, or else this error: why a start failed, rather than what it led to.
    pub(crate) fn first(&self, error: FatalError) -> FatalError {
        self.get().unwrap_or(error)
    }

    /// The error, once there is one.
    pub async fn wait(&self) -> FatalError {
        let mut watch = self.0.subscribe();
        loop {
            if let Some(error) = watch.borrow_and_update().clone() {
                return error;
            }
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The error, if there is one already.
    pub fn get(&self) -> Option<FatalError> {
        self.0.borrow().clone()
    }
}
