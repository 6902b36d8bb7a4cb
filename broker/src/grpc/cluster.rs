//! Who the nodes are, and who of them leads.

use std::{fmt::Display, time::Duration};

use tandem_proto::cluster::v1::{
    AddNodeRequest, AddNodeResponse, Cluster as WireCluster, DrainNodeRequest, DrainNodeResponse, GetClusterRequest,
    GetClusterResponse, Node, NodeDigest, NodeState, RebalanceLeadersRequest, RebalanceLeadersResponse,
    RemoveNodeRequest, RemoveNodeResponse, ReplaceNodeRequest, ReplaceNodeResponse, ReplicatedLog, RetiredNode,
    ShardDigests as WireDigests, ShardMembers, SnapshotProgress, TransferLeaderRequest, TransferLeaderResponse,
    UndrainNodeRequest, UndrainNodeResponse, VerifyClusterRequest, VerifyClusterResponse,
    cluster_service_server::ClusterService,
};
use tandem_raft::{Change, ChangeCode, ChangeError, Cluster, MemberState, Roll, ShardDigests, Standing};
use tonic::{Request, Response, Status};

use super::Edge;
use crate::{
    audit::Kind,
    auth::Caller,
    cluster::progress,
    command::Noted,
    error::RequestError,
    rejection::{Reason, Rejection},
};

/// The longest address, in bytes.
const MAX_ADDRESS_BYTES: usize = 255;
/// How long a comparison of states may take unless the caller says so, and at the most.
const VERIFY_TIMEOUT_MS: u64 = 600_000;
const MAX_VERIFY_TIMEOUT_MS: u64 = 3_600_000;

#[tonic::async_trait]
impl ClusterService for Edge {
    async fn get_cluster(&self, request: Request<GetClusterRequest>) -> Result<Response<GetClusterResponse>, Status> {
        Caller::of(&request)?;
        let cluster = self.cluster()?;
        let newest = cluster.newest_roll().await;
        let current = newest.is_some();
        let roll = newest.unwrap_or_else(|| cluster.roll());
        let cluster = self.cluster_on_wire(cluster, roll, current).await;
        Ok(Response::new(GetClusterResponse { cluster: Some(cluster) }))
    }

    async fn add_node(&self, request: Request<AddNodeRequest>) -> Result<Response<AddNodeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let AddNodeRequest { node_id, peer_address } = request.into_inner();
        let node = id("node_id", node_id)?;
        let cluster = self.change(&caller, Change::Add { node, address: address(&peer_address)? }).await?;
        Ok(Response::new(AddNodeResponse { cluster: Some(cluster) }))
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Result<Response<RemoveNodeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let RemoveNodeRequest { node_id, force } = request.into_inner();
        let cluster = self.change(&caller, Change::Remove { node: id("node_id", node_id)?, force }).await?;
        Ok(Response::new(RemoveNodeResponse { cluster: Some(cluster) }))
    }

    async fn replace_node(
        &self,
        request: Request<ReplaceNodeRequest>,
    ) -> Result<Response<ReplaceNodeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let ReplaceNodeRequest { node_id, new_node_id, peer_address, force } = request.into_inner();
        let (old, new) = (id("node_id", node_id)?, id("new_node_id", new_node_id)?);
        let cluster =
            self.change(&caller, Change::Replace { old, new, address: address(&peer_address)?, force }).await?;
        Ok(Response::new(ReplaceNodeResponse { cluster: Some(cluster) }))
    }

    async fn drain_node(&self, request: Request<DrainNodeRequest>) -> Result<Response<DrainNodeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let node = id("node_id", request.into_inner().node_id)?;
        let cluster = self.change(&caller, Change::Drain { node }).await?;
        Ok(Response::new(DrainNodeResponse { cluster: Some(cluster) }))
    }

    async fn undrain_node(
        &self,
        request: Request<UndrainNodeRequest>,
    ) -> Result<Response<UndrainNodeResponse>, Status> {
        let caller = Caller::of(&request)?;
        let node = id("node_id", request.into_inner().node_id)?;
        let cluster = self.change(&caller, Change::Undrain { node }).await?;
        Ok(Response::new(UndrainNodeResponse { cluster: Some(cluster) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let caller = Caller::of(&request)?;
        let TransferLeaderRequest { shard_id: shard, node_id } = request.into_inner();
        let cluster = self.change(&caller, Change::Transfer { shard, to: id("node_id", node_id)? }).await?;
        Ok(Response::new(TransferLeaderResponse { cluster: Some(cluster) }))
    }

    async fn rebalance_leaders(
        &self,
        request: Request<RebalanceLeadersRequest>,
    ) -> Result<Response<RebalanceLeadersResponse>, Status> {
        let caller = Caller::of(&request)?;
        let cluster = self.change(&caller, Change::Rebalance).await?;
        Ok(Response::new(RebalanceLeadersResponse { cluster: Some(cluster) }))
    }

    async fn verify_cluster(
        &self,
        request: Request<VerifyClusterRequest>,
    ) -> Result<Response<VerifyClusterResponse>, Status> {
        Caller::of(&request)?;
        let timeout_ms = match request.into_inner().timeout_ms {
            0 => VERIFY_TIMEOUT_MS,
            asked if asked <= MAX_VERIFY_TIMEOUT_MS => asked,
            asked => {
                let text = format!("timeout_ms is {asked}; an hour is the most, {MAX_VERIFY_TIMEOUT_MS}");
                return Err(Rejection::field("timeout_ms", text).into());
            }
        };
        let found = self.cluster()?.verify(Duration::from_millis(timeout_ms)).await;
        let agree = found.iter().all(ShardDigests::agree);
        Ok(Response::new(VerifyClusterResponse { shards: found.iter().map(digests).collect(), agree }))
    }
}

impl Edge {
    fn cluster(&self) -> Result<&Cluster, Rejection> {
        let text = "this broker is alone, not a member of a cluster; it has nothing to change or to tell about one";
        let routing = self.routing.as_ref().ok_or_else(|| Rejection::new(Reason::NotACluster, text))?;
        Ok(routing.cluster())
    }

    async fn change(&self, caller: &Caller, change: Change) -> Result<WireCluster, Status> {
        let cluster = self.cluster()?;
        let roll = cluster.change(&change).await.map_err(refused)?;
        // Told to shard 0 like what others see, not by a command of its own: the cluster may have changed under it.
        self.door.refusals().tell(Noted {
            kind: Kind::ClusterChanged,
            origin: caller.origin(),
            about: String::new(),
            count: 1,
            text: format!("{change:?}").into(),
        });
        Ok(self.cluster_on_wire(cluster, roll, true).await)
    }

    async fn cluster_on_wire(&self, cluster: &Cluster, roll: Roll, current: bool) -> WireCluster {
        let standings = cluster.standings().await;
        let connected = |id: u64| id == cluster.own_id() || cluster.is_connected(id);
        let (addresses, levels) = (cluster.members(), cluster.levels());
        let nodes = roll.members.iter().map(|(id, member)| Node {
            node_id: *id,
            peer_address: addresses.get(id).unwrap_or(&member.address).clone(),
            service_address: cluster.service_address(*id).unwrap_or_default(),
            state: state(member.state).into(),
            drained: member.drained,
            replaces_node_id: member.replaces.unwrap_or(0),
            connected: connected(*id),
            newest_level: levels.get(id).copied().unwrap_or(0),
        });
        let retired = roll.retired.iter().map(|(id, disk_id)| RetiredNode { node_id: *id, disk_id: disk_id.clone() });
        let shards = standings.iter().map(|standing| shard(standing, &roll));
        WireCluster {
            cluster_id: self.info.cluster_id.clone(),
            revision: roll.revision,
            level: roll.level(),
            nodes: nodes.collect(),
            retired_nodes: retired.collect(),
            shards: shards.collect(),
            change: progress::of(&roll, &standings, connected),
            current,
        }
    }
}

pub(crate) fn state(state: MemberState) -> NodeState {
    match state {
        MemberState::Voting => NodeState::Voting,
        MemberState::Joining => NodeState::Joining,
        MemberState::Leaving => NodeState::Leaving,
    }
}

fn shard(standing: &Standing, roll: &Roll) -> ShardMembers {
    let config = |place: usize| standing.voters.get(place).into_iter().flatten().copied().collect();
    let logs = standing.matched.iter();
    let snapshots = standing.snapshots.iter();
    let snapshot = |(id, (there, all)): (&u64, &(u64, u64))| SnapshotProgress {
        node_id: *id,
        received_bytes: *there,
        total_bytes: *all,
    };
    ShardMembers {
        shard_id: standing.shard,
        leader_node_id: standing.leader.unwrap_or(0),
        voter_node_ids: config(0),
        next_voter_node_ids: config(1),
        learner_node_ids: standing.nodes.keys().copied().filter(|id| !standing.is_voter(*id)).collect(),
        last_log_index: standing.last_log_index,
        logs: logs.map(|(id, index)| ReplicatedLog { node_id: *id, last_log_index: *index }).collect(),
        snapshots: snapshots.map(snapshot).collect(),
        transferred_to_node_id: roll.pinned.get(&standing.shard).copied().unwrap_or(0),
    }
}

fn digests(found: &ShardDigests) -> WireDigests {
    let nodes = found.nodes.iter().map(|(id, digest)| match digest {
        Ok(digest) => NodeDigest {
            node_id: *id,
            digest: format!("{:032x}", digest.hash),
            keys: digest.keys,
            bytes: digest.bytes,
            missing: String::new(),
        },
        Err(why) => NodeDigest { node_id: *id, missing: why.clone(), ..NodeDigest::default() },
    });
    WireDigests { shard_id: found.shard, index: found.index, nodes: nodes.collect(), agree: found.agree() }
}

fn refused(error: ChangeError) -> RequestError {
    let (code, text) = match error {
        ChangeError::Refused { code, text } => (code, text),
        ChangeError::Unavailable(error) => return error.into(),
    };
    let reason = match code {
        ChangeCode::UnknownNode => Reason::UnknownNode,
        ChangeCode::UnknownShard => Reason::UnknownShard,
        ChangeCode::NodeExists => Reason::NodeExists,
        ChangeCode::NodeIdReused => Reason::NodeIdReused,
        ChangeCode::InProgress => Reason::ChangeInProgress,
        ChangeCode::QuorumAtRisk => Reason::QuorumAtRisk,
        ChangeCode::LastNode => Reason::LastNode,
        ChangeCode::TooManyNodes => Reason::TooManyNodes,
        ChangeCode::NodeNotReady => Reason::NodeNotReady,
    };
    Rejection::new(reason, text).into()
}

fn id(field: &'static str, id: u64) -> Result<u64, Rejection> {
    let wrong = || Rejection::field(field, format!("{field} is 0; ids of nodes begin at 1"));
    if id == 0 { Err(wrong()) } else { Ok(id) }
}

fn address(address: &str) -> Result<String, Rejection> {
    let wrong = |fault: &dyn Display| {
        Rejection::field("peer_address", format!("peer_address {address:?} {fault}; it must be host:port"))
    };
    if address.len() > MAX_ADDRESS_BYTES {
        return Err(Rejection::field("peer_address", format!("peer_address is longer than {MAX_ADDRESS_BYTES} bytes")));
    }
    let Some((host, port)) = address.rsplit_once(':') else { return Err(wrong(&"has no port")) };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == ',' || c == '=') {
        return Err(wrong(&"has no host that could be one"));
    }
    if !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(wrong(&format!("has {port:?} for a port")));
    }
    Ok(address.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for good in ["10.0.0.4:7001", "n4.example:1", "[::1]:7001"] {
            assert_eq!(address(good).unwrap(), good);
        }
        for wrong in ["", "n4", ":7001", "n4:", "n4:0", "n4:70000", "n4=a:1", "a b:1", "a,b:1"] {
            let refused = address(wrong).unwrap_err();
            assert_eq!(refused.field, "peer_address", "{wrong:?}");
        }
        assert!(address(&format!("{}:1", "x".repeat(300))).unwrap_err().text.contains("255"));
    }
}
