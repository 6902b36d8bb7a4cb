//! Ends leases when their deadlines pass, whether the stream is polled or not: a client that has stopped reading, and whose
//! window is full, must not keep messages from the other streams of its sandbox.

use std::{
    sync::{Arc, Weak},
    task::Waker,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use super::open::submit_nack;
use crate::{batcher::BatcherHandle, clock, delivery::subscription::Subscription, metrics::Metrics};

/// A subscription, which its stream and its timer share.
pub(super) struct Leased {
    pub(super) subscription: Subscription,
    /// First and last id of leases that have lapsed, until the stream says so. As many as there can be leases, at the most:
    /// nothing new is delivered before.
    lost: Vec<(u64, u64)>,
    /// Of the stream.
    waker: Option<Waker>,
    /// When the timer looks next, in milliseconds since the subscription was opened.
    looks_ms: u64,
}

impl Leased {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self { subscription, lost: Vec::new(), waker: None, looks_ms: u64::MAX }
    }

    /// What has lapsed since this was called last. The waker is called when there is more.
    pub(super) fn take_lost(&mut self, waker: &Waker) -> Vec<(u64, u64)> {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        std::mem::take(&mut self.lost)
    }

    /// Ends the leases whose deadline has passed. Returns when to look again.
    fn lapse(&mut self, batcher: &BatcherHandle, metrics: &Metrics) -> Option<Instant> {
        if self.subscription.next_deadline_ms().is_some_and(|at_ms| at_ms <= self.subscription.elapsed_ms()) {
            let (nacks, ids) = self.subscription.lapse();
            for nack in nacks {
                drop(submit_nack(batcher, &self.subscription, nack));
            }
            metrics.leases_lapsed.inc_by(ids.iter().map(|(first, last)| last - first + 1).sum());
            self.lost.extend(&ids);
            if let Some(waker) = self.waker.take_if(|_| !ids.is_empty()) {
                waker.wake();
            }
        }
        let next_ms = self.subscription.next_deadline_ms();
        self.looks_ms = next_ms.unwrap_or(u64::MAX);
        let left_ms = next_ms?.saturating_sub(self.subscription.elapsed_ms());
        Some(Instant::from_std(clock::now()) + Duration::from_millis(left_ms))
    }
}

/// The timer of one stream. It ends when this is dropped.
pub(super) struct Lapsing {
    sooner: Arc<Notify>,
    task: AbortHandle,
}

impl Lapsing {
    pub(super) fn spawn(leased: &Arc<Mutex<Leased>>, batcher: BatcherHandle, metrics: Arc<Metrics>) -> Self {
        let sooner = Arc::new(Notify::new());
        let task = tokio::spawn(run(Arc::downgrade(leased), Arc::clone(&sooner), batcher, metrics));
        Self { sooner, task: task.abort_handle() }
    }

    /// Leases were added or prolonged: the timer is told when it would look too late. Mostly it would not, so that a
    /// delivery costs nothing here; when it looks too early, it looks again.
    pub(super) fn look_at(&self, leased: &mut Leased) {
        if let Some(next_ms) = leased.subscription.next_deadline_ms()
            && next_ms < leased.looks_ms
        {
            leased.looks_ms = next_ms;
            self.sooner.notify_one();
        }
    }
}

impl Drop for Lapsing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(leased: Weak<Mutex<Leased>>, sooner: Arc<Notify>, batcher: BatcherHandle, metrics: Arc<Metrics>) {
    loop {
        let next = match leased.upgrade() {
            Some(leased) => leased.lock().lapse(&batcher, &metrics),
            None => return,
        };
        match next {
            Some(at) => tokio::select! {
                () = tokio::time::sleep_until(at) => {}
                () = sooner.notified() => {}
            },
            None => sooner.notified().await,
        }
    }
}
