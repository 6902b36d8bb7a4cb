//! Cuts the log behind snapshots, but never what somebody still needs who is being brought up with one.

use std::{collections::BTreeMap, time::Duration};

use openraft::{Raft, async_runtime::WatchReceiver};

use crate::{
    apply::Apply,
    clock,
    metrics::PeerMetrics,
    node::NodeOptions,
    state_machine::StateMachine,
    transfers::{Look, Transfers},
    type_config::{LogId, TypeConfig},
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// What of the log is kept in any case.
pub(super) struct Limits {
    retained_entries: u64,
    held_bytes: u64,
}

impl From<&NodeOptions> for Limits {
    fn from(options: &NodeOptions) -> Self {
        Self { retained_entries: options.retained_log_entries, held_bytes: options.held_log_bytes }
    }
}

/// Purges the log of one shard.
pub(super) struct Purging<A: Apply> {
    pub(super) shard: u32,
    pub(super) raft: Raft<TypeConfig, StateMachine<A>>,
    pub(super) transfers: Transfers,
    pub(super) metrics: PeerMetrics,
    pub(super) limits: Limits,
}

impl<A: Apply> Purging<A> {
    /// Runs until the group has ended.
    pub(super) async fn run(self) {
        let mut shown = BTreeMap::new();
        let (mut newest, mut before) = (0, 0);
        loop {
            tokio::time::sleep(INTERVAL).await;
            let (snapshot, purged) = self.review();
            if snapshot > newest {
                (before, newest) = (newest, snapshot);
            }
            self.show(&mut shown);
            let kept_from = self.transfers.kept_from().unwrap_or(u64::MAX);
            // Entries have any size: what is retained is no more than what came between two snapshots.
            let upto = snapshot.saturating_sub(self.limits.retained_entries).max(before).min(kept_from);
            if upto > purged && self.raft.trigger().purge_log(upto).await.is_err() {
                return;
            }
        }
    }

    /// Returns up to where the newest snapshot reaches, and up to where the log is purged.
    fn review(&self) -> (u64, u64) {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
        let matched = metrics.replication.as_ref();
        let matched = matched.map(|logs| logs.iter().map(|(node, log)| (*node, index(log))).collect());
        let snapshot_index = index(&metrics.snapshot);
        let held_log_bytes = self.limits.held_bytes;
        self.transfers.review(&Look { matched, snapshot_index, held_log_bytes, now: clock::now() });
        (snapshot_index, index(&metrics.purged))
    }

    /// Shows operators who still needs how much.
    fn show(&self, shown: &mut BTreeMap<u64, u64>) {
        let progress = self.transfers.progress();
        let pending: BTreeMap<u64, u64> =
            progress.into_iter().map(|(node, (there, all))| (node, all.saturating_sub(there))).collect();
        for node in shown.keys().filter(|node| !pending.contains_key(node)) {
            self.metrics.snapshot_pending(self.shard, *node, 0);
        }
        for (node, bytes) in &pending {
            self.metrics.snapshot_pending(self.shard, *node, *bytes);
        }
        *shown = pending;
    }
}
