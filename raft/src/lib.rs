//! Replicates opaque commands: bytes go in, a majority makes them durable, every node applies them in the same order.
//!
//! Owns the Raft groups of a node (its shards), their logs on one shared engine, the one thread that writes and fsyncs for
//! all of them, and the snapshots of their states. It deliberately does not know what a command means, what a workspace
//! or a message is, or who speaks gRPC: [`Apply`] is the whole seam. `openraft` is named in this crate only.
//!
//! Read first: [`Apply`] (the contract of whoever gives commands meaning), [`Group`] (propose, read barrier, leadership),
//! and the module `commit_thread` (group commit).
//!
//! Invariants:
//! - A command has an outcome only after a majority has fsynced it.
//! - The position of a state is written in the same batch as the changes it stands for; a restart opens the state and
//!   applies from there.
//! - The log is purged only behind a snapshot, and a snapshot is durable before it is announced.
//! - Every record carries a checksum; a record that does not match, a hole in the log or a failed fsync ends the node
//!   ([`FatalSink`]) rather than letting it diverge.
//!
//! Tested by openraft's own suite for log stores on every engine, golden bytes, and crash tests over the fault engine.
//! Groups of three are tested in one process, over connections that a test can cut.

mod apply;
mod balance;
pub mod blocking;
mod change;
mod clock;
mod cluster;
mod commit_thread;
mod conform;
mod contents;
mod council;
mod damage;
mod digest;
mod encoding;
mod error;
mod group;
mod lease;
mod level;
mod log_store;
mod metrics;
mod node;
mod pace;
mod peers;
mod random;
mod rebuild;
mod roll;
mod runtime;
mod scrub;
mod shards;
pub mod simulation;
mod snapshot;
mod state_home;
mod state_machine;
mod succession;
mod throttle;
mod transfers;
mod type_config;
mod verify;

pub use apply::{Apply, ApplyError, OpenState, POSITION_SPACE};
pub use change::{Change, ChangeCode, ChangeError, MAX_MEMBERS};
pub use cluster::Cluster;
pub use damage::Part;
pub use digest::StateDigest;
pub use error::{FatalError, FatalSink, ProposeError};
pub use group::{Group, GroupStatus, Leadership, Pending, Standing};
pub use lease::Lease;
pub use level::{FIRST_LEVEL, NEWEST_LEVEL, Versions};
pub use metrics::{CommitMetrics, PeerMetrics};
pub use node::{Node, NodeOptions};
pub use peers::{
    Accept, Admission, Application, ClusterOptions, Dial, Introduction, PeerState, PeerStatus, Refusal, RefusalCode,
    Secret, TcpDial, Wire,
};

pub use roll::{MemberState, Roll, RollMember};
pub use scrub::{ScrubMetrics, ScrubOptions};
pub use verify::ShardDigests;

/// How many spaces the engine of the log has: entries, and votes with purge positions.
pub const LOG_SPACES: usize = 2;

#[cfg(test)]
mod tests;
