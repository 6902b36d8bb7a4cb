//! The nodes of a cluster, and who of them leads.

use std::time::Duration;

use tandem_proto::cluster::v1::{
    AddNodeRequest, Cluster as ClusterState, DrainNodeRequest, GetClusterRequest, RebalanceLeadersRequest,
    RemoveNodeRequest, ReplaceNodeRequest, TransferLeaderRequest, UndrainNodeRequest, VerifyClusterRequest,
    VerifyClusterResponse, cluster_service_client::ClusterServiceClient,
};
use tonic::transport::Channel;

use crate::{Client, Error};

/// What a comparison of states may take besides the comparing.
const VERIFY_MARGIN: Duration = Duration::from_secs(60);
/// A broker refuses a longer time.
const LONGEST_VERIFY: Duration = Duration::from_secs(3_600);

/// The cluster of a broker. Cheap to clone.
///
/// A change is committed when its call returns, and then carried out step by step; [`Cluster::get`] tells how far it is. Every
/// call can be repeated. [`Error::Refused`] with `NOT_A_CLUSTER` says that the broker is alone.
#[derive(Debug, Clone)]
pub struct Cluster {
    client: Client,
}

impl Cluster {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    fn service(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.client.channel())
    }

    /// The nodes, the members of each shard, and the change that is under way.
    ///
    /// # Errors
    /// [`Error::Refused`] on a broker that is alone.
    pub async fn get(&self) -> Result<ClusterState, Error> {
        let answer = self.service().get_cluster(self.client.request(GetClusterRequest {})).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().cluster)
    }

    /// Takes in a node that is, or will be, started with `--join`. `peer_address` is where the other nodes dial it, `host:port`.
    ///
    /// # Errors
    /// [`Error::Refused`]: `NODE_ID_REUSED`, `NODE_EXISTS`, `CHANGE_IN_PROGRESS`, `QUORUM_AT_RISK`, `TOO_MANY_NODES`.
    pub async fn add_node(&self, node_id: u64, peer_address: impl Into<String>) -> Result<ClusterState, Error> {
        let request = AddNodeRequest { node_id, peer_address: peer_address.into() };
        let answer = self.service().add_node(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().cluster)
    }

    /// Takes out a node for good. With `force` also where too few of those that stay are connected; the change then waits for
    /// them.
    ///
    /// # Errors
    /// [`Error::Refused`]: `UNKNOWN_NODE`, `CHANGE_IN_PROGRESS`, `QUORUM_AT_RISK`, `LAST_NODE`.
    pub async fn remove_node(&self, node_id: u64, force: bool) -> Result<ClusterState, Error> {
        let request = RemoveNodeRequest { node_id, force };
        let answer = self.service().remove_node(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().cluster)
    }

    /// Takes in `new_node_id`, and gives it the place of `node_id`, which is taken out for good.
    ///
    /// # Errors
    /// [`Error::Refused`] as with [`Self::add_node`] and [`Self::remove_node`].
    pub async fn replace_node(
        &self,
        node_id: u64,
        new_node_id: u64,
        peer_address: impl Into<String>,
        force: bool,
    ) -> Result<ClusterState, Error> {
        let request = ReplaceNodeRequest { node_id, new_node_id, peer_address: peer_address.into(), force };
        let answer = self.service().replace_node(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().cluster)
    }

    /// Moves what a node leads to others, and gives it nothing until [`Self::undrain_node`] or until it starts again.
    ///
    /// # Errors
    /// [`Error::Refused`]: `UNKNOWN_NODE`, `NODE_NOT_READY` when no other node could lead.
    pub async fn drain_node(&self, node_id: u64) -> Result<ClusterState, Error> {
        let answer = self.service().drain_node(self.client.request(DrainNodeRequest { node_id })).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().cluster)
    }

    /// Lets a node lead again.
    ///
    /// # Errors
    /// [`Error::Refused`]: `UNKNOWN_NODE`.
    pub async fn undrain_node(&self, node_id: u64) -> Result<ClusterState, Error> {
        let answer = self.service().undrain_node(self.client.request(UndrainNodeRequest { node_id })).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().cluster)
    }

    /// Has a node lead a shard from now on, whenever it can.
    ///
    /// # Errors
    /// [`Error::Refused`]: `UNKNOWN_NODE`, `UNKNOWN_SHARD`, `NODE_NOT_READY`.
    pub async fn transfer_leader(&self, shard_id: u32, node_id: u64) -> Result<ClusterState, Error> {
        let request = TransferLeaderRequest { shard_id, node_id };
        let answer = self.service().transfer_leader(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().cluster)
    }

    /// Spreads leaders over the nodes again, whatever was transferred before.
    ///
    /// # Errors
    /// [`Error::Refused`] on a broker that is alone.
    pub async fn rebalance_leaders(&self) -> Result<ClusterState, Error> {
        let answer = self.service().rebalance_leaders(self.client.request(RebalanceLeadersRequest {})).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().cluster)
    }

    /// Compares the states of all nodes, each shard at the same entry of its log. Nodes that have not answered within
    /// `timeout`, an hour at the most, are said to be missing. Takes about as long as reading the largest state at
    /// 128 MiB a second.
    ///
    /// # Errors
    /// [`Error::Refused`] on a broker that is alone. That states differ, or that a node is missing, is in the answer.
    pub async fn verify(&self, timeout: Duration) -> Result<VerifyClusterResponse, Error> {
        let (timeout_ms, patience) = verify_times(timeout);
        let mut request = self.client.request(VerifyClusterRequest { timeout_ms });
        request.set_timeout(patience);
        let answer = self.service().verify_cluster(request).await;
        answer.map(|answer| answer.into_inner()).map_err(|status| self.client.error_after(&status, patience))
    }
}

/// What the broker is told, which takes 0 for its default, and how long to wait for its answer: looking for leaders and asking
/// again comes on top.
fn verify_times(timeout: Duration) -> (u64, Duration) {
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1);
    (timeout_ms, timeout.min(LONGEST_VERIFY) * 2 + VERIFY_MARGIN)
}

fn required(cluster: Option<ClusterState>) -> Result<ClusterState, Error> {
    cluster.ok_or_else(|| Error::Contract("an answer about the cluster holds none".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_time_for_a_comparison_can_be_said_and_waited_for() {
        let (hour, margin) = (Duration::from_secs(3_600), VERIFY_MARGIN);
        assert_eq!(verify_times(Duration::ZERO), (1, margin), "0 would mean the default of the broker");
        assert_eq!(verify_times(Duration::from_micros(1)), (1, margin + Duration::from_micros(2)));
        assert_eq!(verify_times(Duration::from_secs(5)), (5_000, Duration::from_secs(10) + margin));
        assert_eq!(verify_times(hour), (3_600_000, hour * 2 + margin));
        let (timeout_ms, patience) = verify_times(Duration::MAX);
        assert_eq!((timeout_ms, patience), (u64::MAX, hour * 2 + margin), "the broker refuses it in its own words");
        tonic::Request::new(()).set_timeout(patience);
    }
}
