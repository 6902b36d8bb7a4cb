//! What this server is.

use tandem_proto::server::v1::{
    GetCallerRequest, GetCallerResponse, GetServerInfoRequest, GetServerInfoResponse, Limits, Member, Shard,
    server_service_server::ServerService,
};
use tandem_raft::{Cluster, PeerState};
use tonic::{Request, Response, Status};

use super::{Edge, time::timestamp};
use crate::auth::Caller;

#[tonic::async_trait]
impl ServerService for Edge {
    async fn get_server_info(
        &self,
        request: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        Caller::of(&request)?;
        let shards = self.shards.iter().map(|shard| {
            let status = shard.group.status();
            Shard {
                shard_id: shard.group.shard(),
                leader_node_id: status.leadership.leader.unwrap_or(0),
                term: status.leadership.term,
                last_log_index: status.last_log_index,
                applied_index: status.applied_index,
                committed_index: status.committed_index,
                snapshot_index: status.snapshot_index,
            }
        });
        let limits = Limits {
            max_message_bytes: self.limits.max_message_bytes as u64,
            max_batch_messages: self.limits.max_batch_messages as u32,
            max_batch_bytes: self.limits.max_batch_bytes as u64,
            max_credit_messages: self.limits.max_credit_messages,
            max_credit_bytes: self.limits.max_credit_bytes,
            max_sandboxes_per_workspace: self.limits.max_sandboxes_per_workspace,
            max_inbox_messages: self.limits.max_inbox_messages,
            max_inbox_bytes: self.limits.max_inbox_bytes,
            dedupe_window: Some(super::time::duration(self.limits.dedupe_window_ms)),
            max_dead_letters_per_sandbox: self.limits.max_dead_letters_per_sandbox,
            heartbeat_timeout: Some(super::time::duration(self.limits.heartbeat_timeout_ms)),
        };
        Ok(Response::new(GetServerInfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            cluster_id: self.info.cluster_id.clone(),
            node_id: self.info.node_id,
            start_time: Some(timestamp(self.info.start_time_ms)),
            shards: shards.collect(),
            limits: Some(limits),
            storage_engine: self.info.storage_engine.into(),
            members: self.routing.as_ref().map(|routing| members(routing.cluster())).unwrap_or_default(),
        }))
    }

    async fn get_caller(&self, request: Request<GetCallerRequest>) -> Result<Response<GetCallerResponse>, Status> {
        let caller = Caller::of(&request)?;
        let identity = caller.identity();
        Ok(Response::new(GetCallerResponse {
            subject: identity.subject.clone(),
            roles: identity.roles.iter().map(|role| role.name().to_owned()).collect(),
            workspace_id: identity.workspace.clone().unwrap_or_default(),
            sandbox_id: identity.sandbox.clone().unwrap_or_default(),
            expire_time: identity.ends_s.map(|seconds| timestamp(seconds.saturating_mul(1_000))),
        }))
    }
}

fn members(cluster: &Cluster) -> Vec<Member> {
    let own = cluster.own_id();
    let first = Member {
        node_id: own,
        peer_address: cluster.members().get(&own).cloned().unwrap_or_default(),
        service_address: cluster.service_address(own).unwrap_or_default(),
        connected: true,
        ..Member::default()
    };
    let others = cluster.peers().into_iter().map(|peer| {
        let (reason, detail) = match &peer.state {
            PeerState::Connected => (String::new(), String::new()),
            PeerState::Connecting => ("PEER_UNREACHABLE".to_owned(), "not reached yet".to_owned()),
            PeerState::Down(refusal) => (refusal.code.code().to_owned(), refusal.text.clone()),
        };
        Member {
            node_id: peer.node_id,
            peer_address: peer.peer_address,
            service_address: peer.service_address,
            connected: peer.state == PeerState::Connected,
            reason,
            detail,
        }
    });
    std::iter::once(first).chain(others).collect()
}
