//! Lets time pass on a shard: proposes a tick when something is due, and says which sandboxes are alive because somebody is
//! subscribed to them. Leader only; sleeps while nothing is due.

use std::{sync::Arc, time::Duration};

use tandem_raft::Leadership;
use tokio::sync::watch;

use crate::{
    batcher::BatcherHandle,
    command::{Alive, Outcome, Tick, Verb, tick::Leased},
    delivery::Delivery,
    leader_time::LeaderTime,
    query::StateReader,
};

/// Entries of one tick at the most.
const MAX_ENTRIES: u32 = 1_024;
/// Leased messages that one tick names at the most. More only means that they are looked at again.
const MAX_LEASED: usize = 65_536;
/// Between two looks at what is due, at the most: the leader's clock may have been set.
const MAX_SLEEP: Duration = Duration::from_secs(10);
/// After a tick that could not be committed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// What a ticker works with.
pub(crate) struct Ticker {
    pub(crate) reader: StateReader,
    pub(crate) delivery: Arc<Delivery>,
    pub(crate) batcher: BatcherHandle,
    pub(crate) heartbeat_timeout_ms: u64,
    pub(crate) time: Arc<LeaderTime>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

impl Ticker {
    /// Runs until its task is aborted or the shard stops.
    pub(crate) async fn run(mut self) {
        let mut next_alive_ms = 0;
        loop {
            // Time passes where the leader is.
            if self.leadership.wait_for(|leadership| leadership.is_leader).await.is_err() {
                return;
            }
            let now_ms = match self.reader.time_ms() {
                Ok(newest_ms) => self.time.not_before(newest_ms),
                // Reported by the reader; the node ends.
                Err(_) => return,
            };
            if now_ms >= next_alive_ms {
                next_alive_ms = now_ms + (self.heartbeat_timeout_ms / 3).max(1);
                self.say_alive().await;
            }
            // Forgotten before it is read: what is scheduled in between wakes the sleep below.
            self.delivery.signals.reset_due();
            let due_ms = match self.reader.next_due_ms() {
                Ok(due_ms) => due_ms,
                // Reported by the reader; the node ends.
                Err(_) => return,
            };
            if due_ms.is_some_and(|due_ms| due_ms <= now_ms) {
                if !self.tick(now_ms).await {
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                continue;
            }
            let until_ms = due_ms.map_or(next_alive_ms, |due_ms| due_ms.min(next_alive_ms));
            let sleep = Duration::from_millis(until_ms.saturating_sub(now_ms)).min(MAX_SLEEP);
            drop(tokio::time::timeout(sleep, self.delivery.signals.scheduled()).await);
        }
    }

    async fn tick(&self, now_ms: u64) -> bool {
        let mut leased = self.delivery.leased_beyond_ttl(now_ms);
        leased.truncate(MAX_LEASED);
        let bytes = leased.len() * size_of::<Leased>();
        let tick = Tick { max_entries: MAX_ENTRIES, leased, heartbeat_timeout_ms: self.heartbeat_timeout_ms };
        match self.batcher.call(Verb::Tick(tick), bytes).await {
            Ok(Outcome::Tick(Ok(_))) => true,
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(%error, "a tick was not committed; it is repeated");
                false
            }
        }
    }

    async fn say_alive(&self) {
        let sandboxes = self.delivery.subscribed();
        if sandboxes.is_empty() {
            return;
        }
        let bytes = sandboxes.len() * 8;
        if let Err(error) = self.batcher.call(Verb::Alive(Alive { sandboxes }), bytes).await {
            tracing::debug!(%error, "heartbeats of subscriptions were not committed; they are repeated");
        }
    }
}
