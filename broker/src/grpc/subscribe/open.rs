//! What a stream has once it is open, and what its client may say then.

use std::{collections::VecDeque, sync::Arc, task::Waker};

use parking_lot::Mutex;
use tandem_proto::raw::messaging::v1::{self as wire, AckRefusal, Credit, DeliveryRange, ExtendOutcome, LeasesLost};
use tokio::sync::oneshot;

use super::{
    Waiting,
    lapsing::{Lapsing, Leased},
};
use crate::{
    batcher::{BatcherHandle, VerbResult},
    command::{Ack, Nack, Outcome, nack::AttemptError},
    delivery::{
        leases::Refused,
        subscription::{Failure, Stop, Subscription},
    },
    field,
    grpc::{status, time},
    metrics::Metrics,
    rejection::{Reason, Rejection},
};

/// Ranges in one ack.
const MAX_ACK_RANGES: usize = 1_024;
/// What an ack deadline may be.
pub(super) const ACK_DEADLINES_MS: std::ops::RangeInclusive<u64> = 1_000..=24 * 3_600_000;
/// What the delay of a nack may be.
const DELAYS_MS: std::ops::RangeInclusive<u64> = 0..=24 * 3_600_000;
/// Bytes of the reason of a nack.
const MAX_REASON_BYTES: usize = 1_024;

/// See the module.
pub(super) struct Open {
    leased: Arc<Mutex<Leased>>,
    lapsing: Lapsing,
    batcher: BatcherHandle,
    subscription_id: String,
}

impl Open {
    /// To be called within the runtime: leases lapse in a task of their own.
    pub(super) fn new(
        subscription: Subscription,
        batcher: BatcherHandle,
        subscription_id: String,
        metrics: Arc<Metrics>,
    ) -> Self {
        let leased = Arc::new(Mutex::new(Leased::new(subscription)));
        let lapsing = Lapsing::spawn(&leased, batcher.clone(), metrics);
        Self { leased, lapsing, batcher, subscription_id }
    }

    /// The next deliveries, as `Subscription::next`, with their number. What nobody is to get is acknowledged on the way.
    pub(super) fn next(&self, waker: &Waker) -> Result<Option<(bytes::Bytes, u64)>, Stop> {
        let mut leased = self.leased.lock();
        let batch = leased.subscription.next(waker)?;
        if let Some(ack) = leased.subscription.dropped() {
            // In the name of the subscribers, who never see these; nobody waits for the outcome.
            drop(submit_ack(&self.batcher, &leased.subscription, ack));
        }
        self.lapsing.look_at(&mut leased);
        Ok(batch.map(|batch| (batch, leased.subscription.last_batch_len())))
    }

    pub(super) fn add_credit(&self, credit: &Credit) -> Result<(), Rejection> {
        self.leased.lock().subscription.add_credit(credit.messages, credit.bytes)
    }

    pub(super) fn had_credit(&self) -> bool {
        self.leased.lock().subscription.had_credit()
    }

    /// Leases that have lapsed since this was called last. The waker is called when others do.
    pub(super) fn lost(&self, waker: &Waker) -> Option<LeasesLost> {
        let ids = self.leased.lock().take_lost(waker);
        if ids.is_empty() {
            return None;
        }
        let text = "the ack deadline passed; the messages will come again. Use extend for work that takes longer";
        let status = status::rejected_in_response(&Rejection::new(Reason::LeaseLost, text));
        let ranges = ids.into_iter().map(|(first, last)| DeliveryRange { first, last }).collect();
        Some(LeasesLost { ranges, status: Some(status) })
    }

    /// The stream broke: all that it holds has failed.
    pub(super) fn break_off(self) {
        let mut leased = self.leased.lock();
        for nack in leased.subscription.break_off() {
            drop(submit_nack(&self.batcher, &leased.subscription, nack));
        }
    }

    pub(super) fn acknowledge(&self, ack: &wire::Ack) -> Result<Waiting, Rejection> {
        let ranges = ranges("ack.ranges", &ack.ranges)?;
        if let Some(refusals) = self.foreign(&ack.subscription_id, &ranges) {
            return Ok(Waiting { is_nack: false, results: VecDeque::new(), counts: (0, 0), refusals });
        }
        let mut leased = self.leased.lock();
        let (command, refused) = leased.subscription.acknowledge(&ranges);
        let submit = |command| submit_ack(&self.batcher, &leased.subscription, command);
        let results = command.map(submit).into_iter().collect();
        Ok(Waiting { is_nack: false, results, counts: (0, 0), refusals: refusals(refused) })
    }

    pub(super) fn refuse(&self, nack: &wire::Nack) -> Result<Waiting, Rejection> {
        let ranges = ranges("nack.ranges", &nack.ranges)?;
        if let Some(refusals) = self.foreign(&nack.subscription_id, &ranges) {
            return Ok(Waiting { is_nack: true, results: VecDeque::new(), counts: (0, 0), refusals });
        }
        if nack.reason.len() > MAX_REASON_BYTES {
            let text = format!("the reason has {} bytes; at most {MAX_REASON_BYTES} are allowed", nack.reason.len());
            return Err(Rejection::field("nack.reason", text));
        }
        let how = Failure {
            error: AttemptError::Nacked,
            text: nack.reason.clone().into(),
            delay_ms: time::milliseconds("nack.delay", nack.delay, DELAYS_MS)?,
            dead_letter: nack.dead_letter,
        };
        let mut leased = self.leased.lock();
        let (commands, refused) = leased.subscription.refuse(&ranges, how);
        let submit = |command| submit_nack(&self.batcher, &leased.subscription, command);
        let results = commands.into_iter().map(submit).collect();
        Ok(Waiting { is_nack: true, results, counts: (0, 0), refusals: refusals(refused) })
    }

    pub(super) fn extend(&self, extend: &wire::Extend) -> Result<ExtendOutcome, Rejection> {
        let ranges = ranges("extend.ranges", &extend.ranges)?;
        if let Some(refusals) = self.foreign(&extend.subscription_id, &ranges) {
            return Ok(ExtendOutcome { extended: 0, refusals });
        }
        let deadline_ms = time::milliseconds("extend.ack_deadline", extend.ack_deadline, ACK_DEADLINES_MS)?;
        let mut leased = self.leased.lock();
        let (extended, refused) = leased.subscription.extend(&ranges, deadline_ms);
        // It may also have been shortened.
        self.lapsing.look_at(&mut leased);
        Ok(ExtendOutcome { extended, refusals: refusals(refused) })
    }

    /// Refusals of all ranges when they are of another subscription, whose leases ended with it.
    fn foreign(&self, subscription_id: &str, ranges: &[(u64, u64)]) -> Option<Vec<AckRefusal>> {
        if subscription_id.is_empty() || subscription_id == self.subscription_id {
            return None;
        }
        let text = format!(
            "subscription {:?} has ended, and its leases with it; the messages come again",
            field::shown(subscription_id)
        );
        let why = Rejection::new(Reason::LeaseLost, text);
        Some(ranges.iter().map(|(first, last)| refusal(*first, *last, &why)).collect())
    }
}

fn ranges(field: &'static str, ranges: &[DeliveryRange]) -> Result<Vec<(u64, u64)>, Rejection> {
    if ranges.len() > MAX_ACK_RANGES {
        let text = format!("there are {} ranges; at most {MAX_ACK_RANGES} are allowed", ranges.len());
        return Err(Rejection::field(field, text));
    }
    Ok(ranges.iter().map(|range| (range.first, range.last)).collect())
}

/// Hands in a nack, as `submit_ack` does an ack.
pub(super) fn submit_nack(
    batcher: &BatcherHandle,
    subscription: &Subscription,
    nack: Nack,
) -> oneshot::Receiver<VerbResult> {
    let settle = subscription.settler(&mut nack.alone());
    let (sender, receiver) = oneshot::channel();
    let answer = move |result: VerbResult| {
        settle(matches!(result, Ok(Outcome::Nack(Ok(_)))));
        drop(sender.send(result));
    };
    batcher.refuse(nack, Box::new(answer));
    receiver
}

fn refusals(refused: Vec<Refused>) -> Vec<AckRefusal> {
    refused.into_iter().map(|(first, last, why)| refusal(first, last, &why)).collect()
}

/// Hands in an ack, and sees to it that the inbox hears how it ended even when the stream has gone by then.
fn submit_ack(batcher: &BatcherHandle, subscription: &Subscription, ack: Ack) -> oneshot::Receiver<VerbResult> {
    let settle = subscription.settler(&mut ack.alone());
    let (sender, receiver) = oneshot::channel();
    let answer = move |result: VerbResult| {
        settle(matches!(result, Ok(Outcome::Ack(Ok(_)))));
        // The stream may have gone; the ack stands.
        drop(sender.send(result));
    };
    batcher.acknowledge(ack, Box::new(answer));
    receiver
}

fn refusal(first: u64, last: u64, rejection: &Rejection) -> AckRefusal {
    AckRefusal { range: Some(DeliveryRange { first, last }), status: Some(status::rejected_in_response(rejection)) }
}
