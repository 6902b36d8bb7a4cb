//! Other nodes of the cluster: one connection to each, for all shards.
//!
//! Each node dials every other one and asks over the connection it dialed; answers come back on it. So there are two
//! connections between two nodes, one for each direction, and a node that cannot be dialed can still ask.

mod application;
pub(crate) mod connection;
mod dial;
mod frame;
pub(crate) mod handshake;
pub(crate) mod lender;
pub(crate) mod lending;
pub(crate) mod link;
pub(crate) mod network;
pub(crate) mod question;
mod refusal;
mod roster;
pub(crate) mod server;
pub(crate) mod snapshot;
pub(crate) mod wire;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub use self::{
    application::{Admission, Application},
    dial::{Accept, Dial, TcpDial, Wire},
    link::{PeerState, PeerStatus},
    refusal::{Refusal, RefusalCode},
};
pub(crate) use self::{handshake::Gate, link::Links, roster::Roster};

use crate::{level::Versions, metrics::PeerMetrics};

/// What a node says of itself to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// The cluster it belongs to.
    pub cluster_id: String,
    /// Its id in the cluster, from 1.
    pub node_id: u64,
    /// Which data directory it has: drawn when that was created.
    pub disk_id: String,
    /// How many shards its data directory was created with.
    pub shards: u32,
    /// Where it serves clients.
    pub service_address: String,
    /// What it can speak and apply.
    pub versions: Versions,
}

/// The secret that the nodes of a cluster share. Never printed, never sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// These bytes; none for a cluster that lets in everybody who reaches its port.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How a node takes part in a cluster.
pub struct ClusterOptions {
    /// What it says of itself.
    pub own: Introduction,
    /// What its peers must know.
    pub secret: Secret,
    /// All members with their peer addresses, this node too. The voters of a new cluster.
    pub members: BTreeMap<u64, String>,
    /// Whether this node joins a cluster that is there: its shards wait for a leader to take them in. Otherwise a new data
    /// directory becomes one of the voters.
    pub joins: bool,
    /// How others are reached.
    pub dial: Arc<dyn Dial>,
    /// Where others come in.
    pub accept: Box<dyn Accept>,
    /// What operators see of it.
    pub metrics: PeerMetrics,
}
