//! The way to other nodes. A group has one voter in this version, so there is nobody to call: a membership that names
//! another node is refused before it is proposed, and a call that came here all the same says so.

use std::io;

use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    impls::BasicNode,
    network::RPCOption,
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};

use crate::{
    snapshot::SnapshotDir,
    type_config::{TypeConfig, Vote},
};

type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotDir>;

/// Connects to nobody.
#[derive(Debug, Clone, Default)]
pub(crate) struct SingleNode;

/// A peer that cannot be reached.
#[derive(Debug)]
pub(crate) struct NoPeer(u64);

impl NoPeer {
    fn unreachable(&self) -> Unreachable<TypeConfig> {
        let text = format!("node {} cannot be reached: this version serves one node", self.0);
        Unreachable::new(&io::Error::new(io::ErrorKind::Unsupported, text))
    }
}

impl RaftNetworkFactory<TypeConfig> for SingleNode {
    type Network = NoPeer;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> NoPeer {
        NoPeer(target)
    }
}

impl RaftNetworkV2<TypeConfig> for NoPeer {
    type SnapshotData = SnapshotDir;

    async fn append_entries(
        &mut self,
        _rpc: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(
        &mut self,
        _rpc: VoteRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _snapshot: Snapshot,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}
