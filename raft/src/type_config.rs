//! The types openraft works with here, and short names for them.

use std::fmt;

use bytes::Bytes;
use openraft::impls::{BasicNode, leader_id_adv::LeaderId};

/// A command as this crate sees it: bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// For whoever gives commands meaning.
    Apply(Bytes),
    /// A new roll of the cluster, for this crate itself.
    Roll(Bytes),
    /// Every node computes a digest of its state at this entry, for this crate itself. The bytes are empty.
    Digest(Bytes),
}

impl Command {
    pub(crate) fn bytes(&self) -> &Bytes {
        let (Self::Apply(bytes) | Self::Roll(bytes) | Self::Digest(bytes)) = self;
        bytes
    }
}

/// What a command came to: bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Outcome(pub(crate) Bytes);

openraft::declare_raft_types!(
    pub(crate) TypeConfig:
        D = Command,
        R = Outcome,
        NodeId = u64,
        Node = BasicNode,
        AsyncRuntime = crate::runtime::Runtime,
);

/// Who led when an entry was proposed.
pub(crate) type Leader = LeaderId<u64, u64>;
pub(crate) type LogId = openraft::LogId<Leader>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type IoFlushed = openraft::storage::IOFlushed<TypeConfig>;

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} bytes)", self.bytes().len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.bytes().len())
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outcome({} bytes)", self.0.len())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}
