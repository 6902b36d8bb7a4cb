//! Wakes those who wait for something else than messages: the ticker, streams of events, callers that wait for a response.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

/// Workspace, sandbox that asks, hash of the correlation id.
pub(crate) type RequestKey = (u32, u32, u128);

/// See the module.
pub(crate) struct Signals {
    /// The earliest time at which something may be due, as far as is known.
    next_due_ms: AtomicU64,
    due: Notify,
    /// Counts events of all workspaces of the shard.
    events: watch::Sender<u64>,
    /// Counts batches of all workspaces of the shard.
    appended: watch::Sender<u64>,
    requests: Mutex<HashMap<RequestKey, Arc<Notify>>>,
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            // Whatever the state holds may be due.
            next_due_ms: AtomicU64::new(0),
            due: Notify::new(),
            events: watch::Sender::new(0),
            appended: watch::Sender::new(0),
            requests: Mutex::default(),
        }
    }
}

impl Signals {
    pub(super) fn schedule(&self, time_ms: u64) {
        if self.next_due_ms.fetch_min(time_ms, Ordering::AcqRel) > time_ms {
            self.due.notify_one();
        }
    }

    /// Resolves when something earlier than what was known may be due.
    pub(crate) async fn scheduled(&self) {
        self.due.notified().await;
    }

    /// From now on nothing is known of what is due; the caller reads it from the state.
    pub(crate) fn reset_due(&self) {
        self.next_due_ms.store(u64::MAX, Ordering::Release);
    }

    pub(super) fn event(&self) {
        self.events.send_modify(|count| *count += 1);
    }

    /// Changes with every event of the shard.
    pub(crate) fn events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    pub(super) fn append(&self) {
        self.appended.send_modify(|count| *count += 1);
    }

    /// Changes with every batch of the shard.
    pub(crate) fn appended(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    pub(super) fn answered(&self, key: RequestKey) {
        if let Some(waiting) = self.requests.lock().get(&key) {
            waiting.notify_waiters();
        }
    }

    /// Lets a caller hear of its response. To be taken before the state is read.
    pub(crate) fn wait_for_response(self: &Arc<Self>, key: RequestKey) -> Awaiting {
        let notify = Arc::clone(self.requests.lock().entry(key).or_default());
        Awaiting { signals: Arc::clone(self), key, notify }
    }
}

/// A caller that waits for a response.
pub(crate) struct Awaiting {
    signals: Arc<Signals>,
    key: RequestKey,
    pub(crate) notify: Arc<Notify>,
}

impl Drop for Awaiting {
    fn drop(&mut self) {
        let mut requests = self.signals.requests.lock();
        // The table and this one hold it, and nobody else.
        if requests.get(&self.key).is_some_and(|known| Arc::strong_count(known) <= 2) {
            requests.remove(&self.key);
        }
    }
}
