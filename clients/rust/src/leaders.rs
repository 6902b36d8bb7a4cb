//! Straight ways to the nodes that lead. An answer that another node gave for the one that was asked says which; the next
//! publish into that workspace can go there and spare the hop.
//!
//! Only what may be repeated goes this way: a node that was named may be away, or out of this client's reach, and then the
//! endpoints of the settings serve as before. Whoever leads no more passes on what it gets, and names its successor.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tonic::{
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

use crate::{Settings, clock::Moment};

/// Where answers name the leader: `n`, its id, `=` and its address.
const LEADER: &str = "aintandem-leader";
/// How long a call may take that goes straight. Then it is tried again at the endpoints, which know of a new leader by then.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// A node that failed is not gone straight to for so long.
const AVOID: Duration = Duration::from_secs(10);
/// More are forgotten: the endpoints name them again.
const MAX_WORKSPACES: usize = 1_024;
const MAX_NODES: usize = 64;

/// Of one client and its clones.
#[derive(Debug, Default)]
pub(crate) struct Leaders(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// Address of the node that leads it.
    by_workspace: HashMap<String, Arc<str>>,
    nodes: HashMap<Arc<str>, Node>,
}

#[derive(Debug)]
enum Node {
    Connecting,
    Reached(Channel),
    Avoided { since: Moment },
}

/// A way to the node that leads a workspace.
pub(crate) struct Way {
    pub(crate) channel: Channel,
    address: Arc<str>,
}

impl Leaders {
    /// The way to the leader of a workspace, where one is known and open.
    pub(crate) fn way(&self, workspace: &str) -> Option<Way> {
        let known = self.0.lock();
        let address = known.by_workspace.get(workspace)?;
        match known.nodes.get(address)? {
            Node::Reached(channel) => Some(Way { channel: channel.clone(), address: Arc::clone(address) }),
            Node::Connecting | Node::Avoided { .. } => None,
        }
    }

    /// It failed, or took too long.
    pub(crate) fn avoid(&self, way: &Way) {
        let mut known = self.0.lock();
        known.nodes.insert(Arc::clone(&way.address), Node::Avoided { since: Moment::now() });
    }

    /// Takes note of who gave an answer for the node that was asked, and opens a way there.
    pub(crate) fn note(&self, settings: &Settings, workspace: &str, answer: &MetadataMap) {
        let Some(address) = answer.get(LEADER).and_then(|value| address(value.to_str().ok()?)) else { return };
        let mut known = self.0.lock();
        if known.by_workspace.get(workspace).is_none_or(|found| **found != *address) {
            if known.by_workspace.len() >= MAX_WORKSPACES {
                known.by_workspace.clear();
            }
            known.by_workspace.insert(workspace.to_owned(), address.into());
        }
        let again = match known.nodes.get(address) {
            None => true,
            Some(Node::Avoided { since }) => since.elapsed() >= AVOID,
            Some(Node::Connecting | Node::Reached(_)) => false,
        };
        if !again {
            return;
        }
        // As encrypted as the endpoints are.
        let scheme =
            settings.endpoints.first().and_then(|url| url.split_once("://")).map_or("http", |(scheme, _)| scheme);
        if let Ok(endpoint) = settings.endpoint(&format!("{scheme}://{address}")) {
            if known.nodes.len() >= MAX_NODES {
                known.nodes.clear();
            }
            known.nodes.insert(address.into(), Node::Connecting);
            tokio::spawn(reach(Arc::clone(&self.0), address.into(), endpoint));
        }
    }
}

async fn reach(known: Arc<Mutex<Known>>, address: Arc<str>, endpoint: Endpoint) {
    let reached = endpoint.connect().await;
    if let Err(error) = &reached {
        tracing::debug!(%address, %error, "the node that leads is not within reach; others pass on what it is to get");
    }
    let node = reached.map_or_else(|_| Node::Avoided { since: Moment::now() }, Node::Reached);
    known.lock().nodes.insert(address, node);
}

/// Of `n2=127.0.0.1:8002`.
fn address(leader: &str) -> Option<&str> {
    let (_, address) = leader.split_once('=')?;
    (!address.is_empty()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_nothing_else_is() {
        assert_eq!(address("n2=10.0.0.2:8001"), Some("10.0.0.2:8001"));
        assert_eq!(address("n12=[::1]:8001"), Some("[::1]:8001"));
        for wrong in ["", "n2", "2", "n2="] {
            assert_eq!(address(wrong), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let (leaders, settings) = (Leaders::default(), Settings::default());
        for number in 0..3_000 {
            let mut answer = MetadataMap::new();
            answer.insert(LEADER, format!("n1=127.0.0.1:{number}").parse().unwrap());
            leaders.note(&settings, &format!("w{number}"), &answer);
        }
        let known = leaders.0.lock();
        assert!(known.by_workspace.len() <= MAX_WORKSPACES && known.nodes.len() <= MAX_NODES);
    }
}
