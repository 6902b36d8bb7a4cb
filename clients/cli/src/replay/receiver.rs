//! One sandbox of a session: takes, notes and acknowledges what comes.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures_util::FutureExt as _;
use tandem_client::{Delivery, Subscription};
use tokio::sync::watch;

use super::{
    check::Got,
    plan::{SessionPlan, payload, turn_index},
};
use crate::{clock, exit::Failure};

/// When each turn was sent, by [`clock::nanos`].
pub(super) type SentNanos = Arc<Vec<OnceLock<u64>>>;

pub(super) struct Receiver {
    pub(super) inbox: Subscription,
    /// Index into the sandboxes of the plan.
    pub(super) sandbox: usize,
    /// How many messages must come.
    pub(super) expected: usize,
    pub(super) plan: Arc<SessionPlan>,
    pub(super) sent: SentNanos,
    /// Turns true after the last turn.
    pub(super) all_published: watch::Receiver<bool>,
    /// How long to wait for the next message after that.
    pub(super) timeout: Duration,
}

/// What one sandbox got.
pub(super) struct Received {
    pub(super) sandbox: usize,
    pub(super) got: Vec<Got>,
    pub(super) latencies_nanos: Vec<u64>,
    /// Deliveries whose acknowledgement the broker confirmed.
    pub(super) confirmed: u64,
}

impl Receiver {
    pub(super) async fn run(mut self) -> Result<Received, Failure> {
        let mut received =
            Received { sandbox: self.sandbox, got: Vec::new(), latencies_nanos: Vec::new(), confirmed: 0 };
        let mut all_published = self.all_published.clone();
        let mut published = Box::pin(async move { all_published.wait_for(|all| *all).await.is_ok() });
        loop {
            tokio::select! {
                batch = self.inbox.next_batch() => self.take(&mut received, batch?)?,
                _ = &mut published => break,
            }
        }
        while received.got.len() < self.expected {
            match tokio::time::timeout(self.timeout, self.inbox.next_batch()).await {
                Ok(batch) => self.take(&mut received, batch?)?,
                // What has not come by now is lost; the check says so.
                Err(_) => break,
            }
        }
        self.inbox.flush_acks().await?;
        // What came beside the confirmations can only be too much: see it.
        while let Some(Ok(batch @ Some(_))) = self.inbox.next_batch().now_or_never() {
            self.take(&mut received, batch)?;
        }
        received.confirmed = self.inbox.ack_counts().confirmed;
        Ok(received)
    }

    fn take(&self, received: &mut Received, batch: Option<Vec<Delivery>>) -> Result<(), Failure> {
        let now = clock::nanos();
        let ended = || Failure::failed("STREAM_ENDED", "the broker ended a subscription; it may be stopping");
        for delivery in batch.ok_or_else(ended)? {
            let message = &delivery.message;
            let turn = turn_index(&message.message_id).filter(|turn| *turn < self.plan.turns.len());
            let turn = turn.ok_or_else(|| {
                Failure::failed("FOREIGN_MESSAGE", format!("message {} is none of the replay", message.message_id))
            })?;
            if message.content != payload(&self.plan.turns[turn].content).0.as_bytes() {
                let text = format!("the content of turn {} arrived changed", self.plan.turns[turn].turn);
                return Err(Failure::failed("CONTENT_CHANGED", text));
            }
            received.got.push(Got { turn, sequence: message.sequence });
            if let Some(sent) = self.sent[turn].get() {
                received.latencies_nanos.push(now.saturating_sub(*sent));
            }
            self.inbox.ack(&delivery);
        }
        Ok(())
    }
}
