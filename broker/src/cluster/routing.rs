//! Where a request goes: the node that leads the shard of its workspace.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tandem_raft::{Cluster, ProposeError};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

use super::Seat;
use crate::tls::TowardsNodes;

/// How long a request waits for a leader. An election takes less than one second.
const LEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection to another node may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// 64 KiB, the default, would stop a publisher of large batches after each round trip. What a client does not read stays in the window
/// of its stream; so that it takes nothing from others, that of the connection is as large as those of a thousand.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 30;
/// A node that does not answer a ping for this long has gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Who serves a workspace.
pub(crate) enum Place {
    /// This node.
    Here,
    /// Another node.
    There {
        /// Its id and address, as a hint for clients.
        leader: String,
        /// The way to its service for requests that are answered and over.
        channel: Channel,
        /// The same for streams, which may stand still for as long as their clients do.
        streams: Channel,
    },
}

/// Knows the leaders of all shards, and the ways to them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Routing(Arc<Inner>);

struct Inner {
    cluster: Cluster,
    seats: Vec<watch::Receiver<Seat>>,
    /// How the others speak to clients, and so to nodes that pass on requests; None: in the clear.
    tls: Option<TowardsNodes>,
    /// By service address and whether it is for streams, with the generation of the certificates that it was made with.
    channels: Mutex<HashMap<(String, bool), (u64, Channel)>>,
}

impl Routing {
    /// `seats` by shard.
    pub(crate) fn new(cluster: Cluster, seats: Vec<watch::Receiver<Seat>>, tls: Option<TowardsNodes>) -> Self {
        Self(Arc::new(Inner { cluster, seats, tls, channels: Mutex::default() }))
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    pub(crate) fn seat(&self, shard: u32) -> watch::Receiver<Seat> {
        self.0.seats[shard as usize].clone()
    }

    /// The node that leads a shard and can be reached. Waits a while for there to be one.
    pub(crate) async fn place(&self, shard: u32) -> Result<Place, ProposeError> {
        let mut seat = self.seat(shard);
        let mut connections = self.0.cluster.changes();
        let settled = async {
            loop {
                connections.mark_unchanged();
                let now = *seat.borrow_and_update();
                if let Some(place) = self.reachable(now) {
                    return place;
                }
                tokio::select! {
                    biased;
                    changed = seat.changed() => if changed.is_err() { std::future::pending::<()>().await },
                    changed = connections.changed() => if changed.is_err() { std::future::pending::<()>().await },
                }
            }
        };
        tokio::time::timeout(LEADER_TIMEOUT, settled).await.map_err(|_| ProposeError::NotLeader(None))
    }

    fn reachable(&self, seat: Seat) -> Option<Place> {
        match seat {
            Seat::Here => Some(Place::Here),
            Seat::Vacant => None,
            Seat::There(node) if !self.0.cluster.is_connected(node) => None,
            Seat::There(node) => {
                let address = self.0.cluster.service_address(node)?;
                let (channel, streams) = (self.channel(&address, false)?, self.channel(&address, true)?);
                Some(Place::There { leader: format!("n{node}={address}"), channel, streams })
            }
        }
    }

    fn channel(&self, address: &str, streams: bool) -> Option<Channel> {
        let tls = self.0.tls.as_ref().map(TowardsNodes::config);
        let generation = tls.as_ref().map_or(0, |(generation, _)| *generation);
        let mut channels = self.0.channels.lock();
        let place = (address.to_owned(), streams);
        if let Some((_, channel)) = channels.get(&place).filter(|(made, _)| *made == generation) {
            return Some(channel.clone());
        }
        let endpoint = match tls {
            None => Endpoint::from_shared(format!("http://{address}")).ok()?,
            Some((_, tls)) => Endpoint::from_shared(format!("https://{address}")).ok()?.tls_config(tls).ok()?,
        };
        let channel = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .connect_lazy();
        channels.insert(place, (generation, channel.clone()));
        Some(channel)
    }
}
