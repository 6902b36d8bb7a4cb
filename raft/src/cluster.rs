//! The cluster as the rest of a node sees it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    change::{Change, ChangeError},
    council::Decide,
    group::Standing,
    peers::{Links, PeerStatus},
    roll::Roll,
    verify::ShardDigests,
};

/// The cluster that a node is a member of. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    links: Arc<Links>,
    council: Arc<dyn Decide>,
}

impl Cluster {
    pub(crate) fn new(links: Arc<Links>, council: Arc<dyn Decide>) -> Self {
        Self { links, council }
    }

    /// The members with their peer addresses, this node too.
    pub fn members(&self) -> BTreeMap<u64, String> {
        self.links.gate.roster.members()
    }

    /// This node.
    pub fn own_id(&self) -> u64 {
        self.links.gate.own.node_id
    }

    /// The newest level that each member can apply, as far as it is connected.
    pub fn levels(&self) -> BTreeMap<u64, u32> {
        self.links.levels()
    }

    /// Where a member serves clients; None until it was connected once.
    pub fn service_address(&self, node_id: u64) -> Option<String> {
        if node_id == self.own_id() {
            return Some(self.links.gate.own.service_address.clone());
        }
        self.links.service_address(node_id)
    }

    /// Whether a member is connected right now.
    pub fn is_connected(&self, node_id: u64) -> bool {
        self.links.connection(node_id).is_some()
    }

    /// How things stand with every other member.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.links.status()
    }

    /// Changes whenever a connection to a member comes about or ends.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.links.changes()
    }

    /// Who the members should be, as this node knows it.
    pub fn roll(&self) -> Roll {
        self.links.gate.roster.roll()
    }

    /// The same as a majority has it; None where that cannot be known now.
    pub async fn newest_roll(&self) -> Option<Roll> {
        self.council.newest_roll().await
    }

    /// Where each shard stands with its members, from its leader where that one answers.
    pub async fn standings(&self) -> Vec<Standing> {
        self.council.standings().await
    }

    /// Has every member compute a digest of each shard's state at the same entry of its log, one shard after the other, while
    /// commands go on. Whoever has not answered within `timeout` is said to be missing.
    pub async fn verify(&self, timeout: Duration) -> Vec<ShardDigests> {
        self.council.verify(timeout).await
    }

    /// Changes who the members are or who leads, and returns once that is committed; what follows from it takes its time. Safe
    /// to ask for again. Any node passes it on to the one that decides.
    ///
    /// # Errors
    /// [`ChangeError::Refused`] with a code and a text; [`ChangeError::Unavailable`] when nobody could decide it for 5 s.
    pub async fn change(&self, change: &Change) -> Result<Roll, ChangeError> {
        self.council.change(change).await
    }
}
