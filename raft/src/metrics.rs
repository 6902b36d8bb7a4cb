//! What operators see of the log: how often it is synced, how much at once, how long that takes.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Counters of the commit thread; clones share their values.
#[derive(Debug, Clone)]
pub struct CommitMetrics {
    requests: Counter,
    bytes: Counter,
    seconds: Histogram,
}

impl Default for CommitMetrics {
    fn default() -> Self {
        let buckets = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];
        Self { requests: Counter::default(), bytes: Counter::default(), seconds: Histogram::new(buckets) }
    }
}

impl CommitMetrics {
    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("log_commit_requests", "Appends and votes made durable", self.requests.clone());
        registry.register("log_commit_bytes", "Bytes of keys and values written to the log", self.bytes.clone());
        registry.register("log_commit_seconds", "Time of one write and fsync of the log", self.seconds.clone());
    }

    pub(crate) fn observe(&self, requests: usize, bytes: usize, time: Duration) {
        self.requests.inc_by(requests as u64);
        self.bytes.inc_by(bytes as u64);
        self.seconds.observe(time.as_secs_f64());
    }
}

/// Who gets a snapshot.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Receiver {
    shard: u32,
    node: u64,
}

/// Counters of the traffic to other nodes; clones share their values.
#[derive(Debug, Clone)]
pub struct PeerMetrics {
    appends: Counter,
    bytes: Counter,
    snapshot_bytes: Counter,
    snapshot_received: Counter,
    snapshot_resumed: Counter,
    snapshot_pending: Family<Receiver, Gauge>,
    seconds: Histogram,
}

impl Default for PeerMetrics {
    fn default() -> Self {
        let buckets = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0];
        Self {
            appends: Counter::default(),
            bytes: Counter::default(),
            snapshot_bytes: Counter::default(),
            snapshot_received: Counter::default(),
            snapshot_resumed: Counter::default(),
            snapshot_pending: Family::default(),
            seconds: Histogram::new(buckets),
        }
    }
}

impl PeerMetrics {
    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("peer_appends", "Appends sent to other nodes, heartbeats included", self.appends.clone());
        registry.register("peer_append_bytes", "Bytes of appends sent to other nodes", self.bytes.clone());
        registry.register("peer_snapshot_bytes", "Bytes of snapshots sent to other nodes", self.snapshot_bytes.clone());
        registry.register(
            "peer_snapshot_received_bytes",
            "Bytes of snapshots that came from other nodes",
            self.snapshot_received.clone(),
        );
        registry.register(
            "peer_snapshot_resumed_bytes",
            "Bytes of snapshots that were not sent, because the node had them from a transfer that broke off",
            self.snapshot_resumed.clone(),
        );
        registry.register(
            "peer_snapshot_pending_bytes",
            "Bytes of a snapshot that a node still needs; 0 when it is installed",
            self.snapshot_pending.clone(),
        );
        registry.register(
            "peer_append_seconds",
            "Time from sending an append until a peer has it on its disk",
            self.seconds.clone(),
        );
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.appends.inc();
        self.bytes.inc_by(bytes as u64);
    }

    pub(crate) fn answered(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }

    /// What a node still needs of a snapshot.
    pub(crate) fn snapshot_pending(&self, shard: u32, node: u64, bytes: u64) {
        self.snapshot_pending.get_or_create(&Receiver { shard, node }).set(bytes as i64);
    }

    pub(crate) fn snapshot_received(&self, bytes: usize) {
        self.snapshot_received.inc_by(bytes as u64);
    }

    pub(crate) fn snapshot_resumed(&self, bytes: u64) {
        self.snapshot_resumed.inc_by(bytes);
    }

    #[cfg(test)]
    pub(crate) fn snapshot_bytes(&self) -> (u64, u64) {
        (self.snapshot_bytes.get(), self.snapshot_resumed.get())
    }

    pub(crate) fn snapshot_sent(&self, bytes: usize) {
        self.snapshot_bytes.inc_by(bytes as u64);
    }
}
