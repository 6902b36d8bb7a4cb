//! Who belongs to a shard: its Raft membership, and the steps that change it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::{
    ChangeMembers, async_runtime::WatchReceiver, errors::ClientWriteError, errors::RaftError, impls::BasicNode,
    impls::ProgressResponder,
};

use super::{Group, Pending};
use crate::{
    apply::Apply,
    encoding::{DecodeError, take_u8, take_u32, take_u64},
    error::ProposeError,
    roll::{Roll, put_text, take_text},
    type_config::Command,
};

/// How long one step of a change may take before it is looked at again.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a shard stands, with its members.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// The shard.
    pub shard: u32,
    /// Who leads it, as far as the node knows that was asked.
    pub leader: Option<u64>,
    /// Who votes. Two sets while a change is under way: a majority of each is needed then; the last is the one to come.
    pub voters: Vec<BTreeSet<u64>>,
    /// Everybody who gets the log, with peer addresses: voters and learners.
    pub nodes: BTreeMap<u64, String>,
    /// Index of the newest log entry of the node that was asked.
    pub last_log_index: u64,
    /// How far the log of each node is; only a leader knows.
    pub matched: BTreeMap<u64, u64>,
    /// Bytes that a node has of the snapshot that it gets, and all bytes of that; only a leader knows.
    pub snapshots: BTreeMap<u64, (u64, u64)>,
    /// Whether a majority has these members, and the node that was asked has applied them.
    pub settled: bool,
}

impl Standing {
    /// Whether a node votes, before and after a change that may be under way.
    pub fn is_voter(&self, node: u64) -> bool {
        self.voters.iter().any(|config| config.contains(&node))
    }

    /// Whether a change from one set of voters to another is under way.
    pub fn is_joint(&self) -> bool {
        self.voters.len() > 1
    }

    pub(crate) fn put(&self, out: &mut BytesMut) {
        out.put_u32(self.shard);
        out.put_u64(self.leader.unwrap_or(0));
        out.put_u32(self.voters.len() as u32);
        for config in &self.voters {
            out.put_u32(config.len() as u32);
            config.iter().for_each(|node| out.put_u64(*node));
        }
        out.put_u32(self.nodes.len() as u32);
        for (node, address) in &self.nodes {
            out.put_u64(*node);
            put_text(out, address);
        }
        out.put_u64(self.last_log_index);
        out.put_u32(self.matched.len() as u32);
        for (node, index) in &self.matched {
            out.put_u64(*node);
            out.put_u64(*index);
        }
        out.put_u32(self.snapshots.len() as u32);
        for (node, (there, all)) in &self.snapshots {
            out.put_u64(*node);
            out.put_u64(*there);
            out.put_u64(*all);
        }
        out.put_u8(u8::from(self.settled));
    }

    pub(crate) fn take(mut body: Bytes) -> Result<Self, DecodeError> {
        let body = &mut body;
        let shard = take_u32(body)?;
        let leader = Some(take_u64(body)?).filter(|node| *node > 0);
        let mut voters = Vec::new();
        for _ in 0..take_u32(body)? {
            let count = take_u32(body)?;
            voters.push((0..count).map(|_| take_u64(body)).collect::<Result<_, _>>()?);
        }
        let count = take_u32(body)?;
        let nodes = (0..count).map(|_| Ok((take_u64(body)?, take_text(body)?))).collect::<Result<_, DecodeError>>()?;
        let last_log_index = take_u64(body)?;
        let count = take_u32(body)?;
        let matched = (0..count).map(|_| Ok((take_u64(body)?, take_u64(body)?))).collect::<Result<_, DecodeError>>()?;
        let count = take_u32(body)?;
        let snapshot = |body: &mut Bytes| Ok((take_u64(body)?, (take_u64(body)?, take_u64(body)?)));
        let snapshots = (0..count).map(|_| snapshot(body)).collect::<Result<_, DecodeError>>()?;
        let settled = take_u8(body)? == 1;
        if body.has_remaining() { Err(DecodeError::Short) } else { Ok(()) }?;
        Ok(Self { shard, leader, voters, nodes, last_log_index, matched, snapshots, settled })
    }
}

impl<A: Apply> Group<A> {
    /// Where the shard stands, as this node knows it.
    pub fn standing(&self) -> Standing {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let stored = &metrics.membership_config;
        let membership = stored.membership();
        let nodes = membership.nodes().map(|(node, there)| (*node, there.addr.clone()));
        let matched = metrics.replication.iter().flatten();
        Standing {
            shard: self.shard,
            leader: self.leadership.borrow().leader,
            voters: membership.get_joint_config().clone(),
            nodes: nodes.collect(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            matched: matched.map(|(node, log)| (*node, log.as_ref().map_or(0, |id| id.index))).collect(),
            snapshots: self.transfers.progress(),
            settled: stored.log_id().is_some() && *stored.log_id() <= metrics.last_applied,
        }
    }

    /// Proposes a roll. False: it was not made from the newest one.
    pub(crate) async fn propose_roll(&self, roll: &Roll) -> Result<bool, ProposeError> {
        let (responder, outcome) = ProgressResponder::complete_only();
        let submitted = self.raft.client_write_ff(Command::Roll(roll.encode()), Some(responder)).await;
        submitted.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        Ok(Pending(outcome).outcome().await?.first() == Some(&1))
    }

    /// Takes in a node that gets the log and does not vote.
    pub(crate) async fn add_learner(&self, node: u64, address: String) -> Result<(), ProposeError> {
        self.change_members(ChangeMembers::AddNodes(BTreeMap::from([(node, BasicNode { addr: address })]))).await
    }

    /// Parts with a node that does not vote.
    pub(crate) async fn remove_learner(&self, node: u64) -> Result<(), ProposeError> {
        self.change_members(ChangeMembers::RemoveNodes(BTreeSet::from([node]))).await
    }

    /// Makes learners voters and parts with voters, in one joint change. With nothing to change it ends one that is under way.
    pub(crate) async fn change_voters(&self, add: BTreeSet<u64>, remove: BTreeSet<u64>) -> Result<(), ProposeError> {
        let changes = vec![ChangeMembers::AddVoterIds(add), ChangeMembers::RemoveVoters(remove)];
        self.change_members(ChangeMembers::Batch(changes)).await
    }

    async fn change_members(&self, change: ChangeMembers<u64, BasicNode>) -> Result<(), ProposeError> {
        let changing = self.raft.change_membership(change, false);
        match tokio::time::timeout(STEP_TIMEOUT, changing).await {
            Err(_) => Err(ProposeError::Unsettled),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::Fatal(error))) => Err(ProposeError::Stopped(error.to_string())),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                Err(ProposeError::NotLeader(to.leader_id))
            }
            Ok(Err(RaftError::APIError(error))) => {
                tracing::debug!(shard = self.shard, %error, "a step of a change of members has to wait");
                Err(ProposeError::Unsettled)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_comes_back() {
        let standing = Standing {
            shard: 3,
            leader: Some(2),
            voters: vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 4])],
            nodes: BTreeMap::from([(1, "a:1".into()), (4, String::new())]),
            last_log_index: 9,
            matched: BTreeMap::from([(4, 7)]),
            snapshots: BTreeMap::from([(4, (5, 6))]),
            settled: true,
        };
        let mut out = BytesMut::new();
        standing.put(&mut out);
        assert_eq!(Standing::take(out.clone().freeze()).unwrap(), standing);
        for cut in 0..out.len() {
            assert!(Standing::take(Bytes::copy_from_slice(&out[..cut])).is_err(), "cut at {cut}");
        }
    }
}
