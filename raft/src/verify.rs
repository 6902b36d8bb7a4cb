//! Compares the states of all members, shard by shard, at the same entry of the log.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    apply::Apply,
    clock,
    digest::{DigestAnswer, StateDigest},
    error::ProposeError,
    group::Group,
    peers::{Links, connection::CallError, question},
};

/// Between two looks at who has computed its digest.
const GLANCE: Duration = Duration::from_millis(50);
/// How often a shard is tried again because a node started anew or a newer digest took the place of this one.
const MAX_TRIES: u32 = 3;
/// How long one shard waits for a leader.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the members say of one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardDigests {
    /// The shard.
    pub shard: u32,
    /// Index of the entry after which all states were looked at; 0 when nobody could propose it.
    pub index: u64,
    /// By node id: the digest, or why there is none.
    pub nodes: BTreeMap<u64, Result<StateDigest, String>>,
}

impl ShardDigests {
    /// Whether every member has a digest, and all have the same.
    pub fn agree(&self) -> bool {
        let mut digests = self.nodes.values();
        let Some(Ok(first)) = digests.next() else { return false };
        digests.all(|digest| digest.as_ref() == Ok(first))
    }
}

/// One comparison.
struct Comparison<'a, A: Apply> {
    group: &'a Group<A>,
    links: &'a Links,
    begun: Instant,
    timeout: Duration,
}

/// Compares one shard after the other, for `timeout` at the most; what is not there by then is said to be missing.
pub(crate) async fn run<A: Apply>(groups: &[Arc<Group<A>>], links: &Links, timeout: Duration) -> Vec<ShardDigests> {
    let begun = clock::now();
    let mut found = Vec::with_capacity(groups.len());
    for group in groups {
        found.push(Comparison { group, links, begun, timeout }.run().await);
    }
    found
}

impl<A: Apply> Comparison<'_, A> {
    async fn run(&self) -> ShardDigests {
        let shard = self.group.shard();
        let mut tries = 0;
        loop {
            tries += 1;
            let members: Vec<u64> = self.links.gate.roster.members().into_keys().collect();
            let index = match self.begin().await {
                Ok(index) => index,
                Err(error) => {
                    let nodes = members.into_iter().map(|node| (node, Err(error.to_string()))).collect();
                    return ShardDigests { shard, index: 0, nodes };
                }
            };
            let asking = members.iter().map(|node| self.wait_for(*node, index));
            let answers: Vec<_> = futures_util::future::join_all(asking).await;
            let again = tries < MAX_TRIES && answers.iter().any(|answer| matches!(answer, Ok(None)));
            if !again {
                let gone =
                    || format!("it has no digest of entry {index}: it started again or got a snapshot; ask again");
                let nodes = members.into_iter().zip(answers);
                let nodes = nodes.map(|(node, answer)| (node, answer.and_then(|found| found.ok_or_else(gone))));
                return ShardDigests { shard, index, nodes: nodes.collect() };
            }
        }
    }

    /// Has the leader propose the entry.
    async fn begin(&self) -> Result<u64, ProposeError> {
        let begun = clock::now();
        loop {
            let leadership = *self.group.leadership().borrow();
            let proposed = match leadership.leader {
                Some(_) if leadership.is_leader => self.group.propose_digest().await,
                Some(leader) => match self.links.connection(leader) {
                    Some(there) => question::begin_digest(&there, self.group.shard()).await,
                    None => Err(ProposeError::Unsettled),
                },
                None => Err(ProposeError::Unsettled),
            };
            match proposed {
                Err(ProposeError::NotLeader(_) | ProposeError::Unsettled) if begun.elapsed() < LEADER_TIMEOUT => {
                    tokio::time::sleep(GLANCE).await;
                }
                settled => return settled,
            }
        }
    }

    /// The digest of a node; None when it has none and will not have one.
    async fn wait_for(&self, node: u64, index: u64) -> Result<Option<StateDigest>, String> {
        let own = node == self.links.gate.own.node_id;
        loop {
            let answer = if own {
                Some(self.group.digest_at(index))
            } else {
                let there = self.links.connection(node).ok_or("it is not connected")?;
                match question::digest(&there, self.group.shard(), index).await {
                    Ok(answer) => Some(answer),
                    // Busy; who is gone loses its connection.
                    Err(CallError::Timeout(_) | CallError::Closed) => None,
                    Err(error) => return Err(format!("it does not answer: {error}")),
                }
            };
            let state = match answer {
                Some(DigestAnswer::Taken(digest)) => return Ok(Some(digest)),
                Some(DigestAnswer::Gone) => return Ok(None),
                Some(DigestAnswer::Failed(text)) => return Err(text),
                Some(DigestAnswer::Behind) => "it has not applied the entry",
                Some(DigestAnswer::Computing) => "it is still computing",
                None => "it has not answered",
            };
            if self.begun.elapsed() >= self.timeout {
                return Err(format!("{state} after {} s", self.timeout.as_secs()));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_agrees_when_all_have_the_same_digest() {
        let digest = |hash| Ok(StateDigest { hash, keys: 1, bytes: 2 });
        let of = |nodes: &[(u64, Result<StateDigest, String>)]| ShardDigests {
            shard: 0,
            index: 7,
            nodes: nodes.iter().cloned().collect(),
        };
        assert!(of(&[(1, digest(5)), (2, digest(5))]).agree());
        assert!(!of(&[(1, digest(5)), (2, digest(6))]).agree());
        assert!(!of(&[(1, digest(5)), (2, Err("away".into()))]).agree());
        assert!(!of(&[(1, Err("away".into())), (2, Err("away".into()))]).agree());
        assert!(!of(&[]).agree(), "nothing was compared");
    }
}
