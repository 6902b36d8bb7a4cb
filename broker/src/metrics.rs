//! What operators see.

use std::sync::Arc;

use bytes::Bytes;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tandem_raft::{CommitMetrics, PeerMetrics, ScrubMetrics};

use crate::{machine::events::EventKind, rejection::Reason};

/// Label of what belongs to a shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ShardLabel {
    pub(crate) shard: u32,
}

/// Label of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    reason: &'static str,
}

/// Label of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct EventLabel {
    r#type: &'static str,
}

/// What happens in the workspaces of this node; clones share their values.
#[derive(Debug, Clone, Default)]
pub(crate) struct EventMetrics(Family<EventLabel, Counter>);

impl EventMetrics {
    /// Counts the messages of an event, or the event itself when it is about none.
    pub(crate) fn count(&self, kind: EventKind, messages: u64) {
        self.0.get_or_create(&EventLabel { r#type: kind.name() }).inc_by(messages.max(1));
    }
}

/// Commands made by the batchers; clones share their values.
#[derive(Debug, Clone)]
pub(crate) struct BatchMetrics {
    requests: Histogram,
    messages: Counter,
    bytes: Counter,
}

impl BatchMetrics {
    pub(crate) fn observe(&self, command: &Bytes, sizes: &(usize, u64)) {
        self.requests.observe(sizes.0 as f64);
        self.messages.inc_by(sizes.1);
        self.bytes.inc_by(command.len() as u64);
    }
}

/// All metrics of a broker.
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) batches: BatchMetrics,
    pub(crate) commits: CommitMetrics,
    pub(crate) peers: PeerMetrics,
    pub(crate) scrub: ScrubMetrics,
    refusals: Family<ReasonLabel, Counter>,
    pub(crate) deliveries: Counter,
    pub(crate) acknowledged: Counter,
    pub(crate) nacked: Counter,
    pub(crate) leases_lapsed: Counter,
    pub(crate) events: EventMetrics,
    pub(crate) streams: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) shards: ShardGauges,
}

/// Gauges that are read from the shards when somebody asks.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShardGauges {
    pub(crate) leader: Family<ShardLabel, Gauge>,
    pub(crate) term: Family<ShardLabel, Gauge>,
    pub(crate) last_log_index: Family<ShardLabel, Gauge>,
    pub(crate) committed_index: Family<ShardLabel, Gauge>,
    pub(crate) applied_index: Family<ShardLabel, Gauge>,
    pub(crate) apply_lag: Family<ShardLabel, Gauge>,
    pub(crate) slowest_voter_lag: Family<ShardLabel, Gauge>,
    pub(crate) proposals_in_flight: Family<ShardLabel, Gauge>,
    pub(crate) snapshot_index: Family<ShardLabel, Gauge>,
    pub(crate) purged_index: Family<ShardLabel, Gauge>,
    pub(crate) open_inboxes: Family<ShardLabel, Gauge>,
    pub(crate) queued_bytes: Family<ShardLabel, Gauge>,
    pub(crate) state_bytes: Family<ShardLabel, Gauge>,
}

impl Metrics {
    pub(crate) fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("tandem");
        let sizes = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
        let batches =
            BatchMetrics { requests: Histogram::new(sizes), messages: Counter::default(), bytes: Counter::default() };
        registry.register("command_requests", "Requests that became one command", batches.requests.clone());
        registry.register("publish_messages", "Messages handed to the log", batches.messages.clone());
        registry.register("command_bytes", "Bytes of commands", batches.bytes.clone());
        let commits = CommitMetrics::default();
        commits.register(&mut registry);
        let peers = PeerMetrics::default();
        peers.register(&mut registry);
        let scrub = ScrubMetrics::default();
        scrub.register(&mut registry);
        let refusals = Family::default();
        registry.register("refusals", "Requests and messages refused, by reason", refusals.clone());
        let deliveries = Counter::default();
        registry.register("deliveries", "Messages handed to subscribers", deliveries.clone());
        let acknowledged = Counter::default();
        registry.register("acknowledged", "Messages that left an inbox by an ack", acknowledged.clone());
        let nacked = Counter::default();
        registry.register("nacked", "Messages that subscribers refused", nacked.clone());
        let leases_lapsed = Counter::default();
        registry.register("leases_lapsed", "Messages whose ack deadline passed", leases_lapsed.clone());
        let events = EventMetrics::default();
        registry.register("events", "What happened, by type: messages, or sandboxes", events.0.clone());
        let streams = Gauge::default();
        registry.register("streams", "Streams being served", streams.clone());
        let connections = Gauge::default();
        registry.register("connections", "Connections to the gRPC port", connections.clone());
        let connections_refused = Counter::default();
        let refused = "Connections to the gRPC port that were too many, too slow, or abused HTTP/2";
        registry.register("connections_refused", refused, connections_refused.clone());
        let shards = ShardGauges::default();
        shards.register(&mut registry);
        Arc::new(Self {
            registry,
            batches,
            commits,
            peers,
            scrub,
            refusals,
            deliveries,
            acknowledged,
            nacked,
            leases_lapsed,
            events,
            streams,
            connections,
            connections_refused,
            shards,
        })
    }

    /// Counts a refusal.
    pub(crate) fn refused(&self, reason: Reason) {
        self.refusals.get_or_create(&ReasonLabel { reason: reason.code() }).inc();
    }

    /// The text that Prometheus reads.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            // A metric that cannot be encoded must not end the scrape in silence.
            "# a metric could not be encoded\n".clone_into(&mut text);
        }
        text
    }
}

impl ShardGauges {
    fn register(&self, registry: &mut Registry) {
        registry.register("shard_is_leader", "1 when this node leads the shard", self.leader.clone());
        registry.register("shard_term", "Current Raft term", self.term.clone());
        registry.register("shard_last_log_index", "Newest entry of the log", self.last_log_index.clone());
        registry.register(
            "shard_committed_index",
            "Newest entry known to be on a majority",
            self.committed_index.clone(),
        );
        registry.register("shard_apply_lag", "Committed entries that are not applied yet", self.apply_lag.clone());
        registry.register(
            "shard_proposals_in_flight",
            "Entries that no majority is known to have yet; on the leader, 0 elsewhere",
            self.proposals_in_flight.clone(),
        );
        registry.register(
            "shard_slowest_voter_lag",
            "Entries that the voter which is furthest behind lacks; on the leader, 0 elsewhere",
            self.slowest_voter_lag.clone(),
        );
        registry.register("shard_applied_index", "Newest applied entry", self.applied_index.clone());
        registry.register("shard_snapshot_index", "Newest entry in a snapshot", self.snapshot_index.clone());
        registry.register("shard_purged_index", "Entry up to which the log is purged", self.purged_index.clone());
        registry.register("shard_open_inboxes", "Inboxes with subscribers", self.open_inboxes.clone());
        registry.register("shard_queued_bytes", "Bytes of publishes not answered yet", self.queued_bytes.clone());
        registry.register("shard_state_bytes", "Bytes of the state, approximately", self.state_bytes.clone());
    }
}
