//! A subscriber that acknowledges and checks everything that it gets.

use std::sync::{Arc, atomic::Ordering};

use futures_util::FutureExt as _;
use tandem_client::{RawDelivery, Subscription};
use tokio::sync::watch;

use super::{
    live::{Live, SharedHistogram},
    order::InboxOrder,
    payload,
};
use crate::{clock, exit::Failure};

pub(super) struct Follower {
    pub(super) inbox: Subscription,
    pub(super) order: InboxOrder,
    pub(super) live: Arc<Live>,
    pub(super) latency: SharedHistogram,
    /// Turns true when everything has been delivered.
    pub(super) done: watch::Receiver<bool>,
}

/// What a subscriber got.
pub(super) struct Followed {
    pub(super) order: InboxOrder,
    /// Deliveries whose acknowledgement the broker has confirmed.
    pub(super) confirmed: u64,
    /// When the last confirmation was in.
    pub(super) last_nanos: u64,
}

impl Follower {
    pub(super) async fn run(mut self) -> Result<Followed, Failure> {
        let mut done = self.done.clone();
        let mut done = Box::pin(async move { done.wait_for(|done| *done).await.is_ok() });
        loop {
            tokio::select! {
                biased;
                batch = self.inbox.next_raw_batch() => {
                    let ended = || Failure::failed("STREAM_ENDED", "the broker ended a subscription; it may be stopping");
                    let batch = batch?.ok_or_else(ended)?;
                    self.take(&batch)?;
                }
                _ = &mut done => break,
            }
        }
        self.inbox.flush_acks().await?;
        // What came beside the confirmations can only be too much: see it.
        while let Some(Ok(Some(batch))) = self.inbox.next_raw_batch().now_or_never() {
            self.take(&batch)?;
        }
        let confirmed = self.inbox.ack_counts().confirmed;
        Ok(Followed { order: self.order, confirmed, last_nanos: clock::nanos() })
    }

    fn take(&mut self, batch: &[RawDelivery]) -> Result<(), Failure> {
        let now = clock::nanos();
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let mut sent = Vec::with_capacity(batch.len());
        self.order.begin_batch();
        for (expected_id, delivery) in (first.delivery_id..).zip(batch) {
            let (sequence, stamp) = payload::look(&delivery.message)?;
            let stranger = || Failure::failed("FOREIGN_MESSAGE", "a message arrived in an inbox it was not sent to");
            if self.order.see(sequence, stamp).ok_or_else(stranger)? {
                sent.push(stamp.sent_nanos);
            }
            if delivery.delivery_id != expected_id {
                let text = format!("delivery {} came where {expected_id} was due", delivery.delivery_id);
                return Err(Failure::failed("CONTRACT_BROKEN", text));
            }
        }
        self.inbox.acker().ack_range(first.delivery_id, last.delivery_id);
        self.live.delivered.fetch_add(sent.len() as u64, Ordering::Relaxed);
        self.latency.record_all(sent.iter().map(|sent| now.saturating_sub(*sent)));
        Ok(())
    }
}
