//! What a subscription still has to say to the broker.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, task::AtomicWaker};
use parking_lot::Mutex;
use tandem_proto::raw::messaging::v1::{self as raw, SubscribeRequest, subscribe_request::Kind};

use super::{
    credit::Credit,
    settlement::{Outcome, Settlement, Verdict},
    verdict::{Nack, Verdicts},
};
use crate::Error;

/// Shared by the subscription, its ackers and the connection. Bounded: credit adds up in place, and verdicts are bounded by
/// what was delivered.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// Wakes the connection when something waits.
    connection: AtomicWaker,
    /// The newest delivery id that has come.
    delivered: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    /// Goes first, once.
    open: Option<raw::Open>,
    credit: Credit,
    verdicts: Verdicts,
    /// What somebody waits for. A subscription has these or those.
    settlement: Settlement,
    /// Deliveries acknowledged so far.
    acked: u64,
    /// Deliveries given back so far.
    nacked: u64,
    finished: bool,
}

impl Outbox {
    pub(super) fn new(open: raw::Open, credit: Credit) -> Arc<Self> {
        let (verdicts, settlement) = (Verdicts::default(), Settlement::default());
        let queue = Queue { open: Some(open), credit, verdicts, settlement, acked: 0, nacked: 0, finished: false };
        Arc::new(Self { queue: Mutex::new(queue), connection: AtomicWaker::new(), delivered: AtomicU64::new(0) })
    }

    pub(super) fn ack(&self, first: u64, last: u64) {
        {
            let mut queue = self.queue.lock();
            queue.verdicts.ack(first, last);
            queue.acked += last.saturating_sub(first).saturating_add(1);
        }
        self.connection.wake();
    }

    pub(super) fn nack(&self, first: u64, last: u64, nack: Nack) {
        {
            let mut queue = self.queue.lock();
            queue.verdicts.nack(first, last, nack);
            queue.nacked += last.saturating_sub(first).saturating_add(1);
        }
        self.connection.wake();
    }

    pub(super) fn extend(&self, first: u64, last: u64, deadline: Option<Duration>) {
        self.queue.lock().verdicts.extend(first, last, deadline);
        self.connection.wake();
    }

    /// Says what shall become of a delivery, for somebody who may wait for the outcome.
    pub(super) fn settle(&self, delivery_id: u64, verdict: Verdict) -> Outcome {
        let outcome = self.queue.lock().settlement.add(delivery_id, verdict);
        self.connection.wake();
        outcome
    }

    /// The outcome of the oldest ack or nack.
    pub(super) fn settled(&self, refusals: &[raw::AckRefusal]) {
        self.queue.lock().settlement.settled(refusals);
        self.connection.wake();
    }

    /// The outcome of the oldest extension.
    pub(super) fn extended(&self, refusals: &[raw::AckRefusal]) {
        self.queue.lock().settlement.extended(refusals);
        self.connection.wake();
    }

    /// The stream has ended: nobody hears of an outcome any more.
    pub(super) fn break_off(&self, error: &Error) {
        self.queue.lock().settlement.fail(error);
    }

    /// Whether nothing new is taken in.
    pub(super) fn is_finished(&self) -> bool {
        self.queue.lock().finished
    }

    /// Whether the stream has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.queue.lock().settlement.has_ended()
    }

    pub(super) fn grant(&self, credit: Credit) {
        self.queue.lock().credit.add(credit);
        self.connection.wake();
    }

    /// The connection ends its half after the verdicts that wait now.
    pub(super) fn finish(&self) {
        self.queue.lock().finished = true;
        self.connection.wake();
    }

    /// Deliveries up to this id have come.
    pub(super) fn has_delivered(&self, delivery_id: u64) {
        self.delivered.fetch_max(delivery_id, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(super) fn acked(&self) -> u64 {
        self.queue.lock().acked
    }

    pub(super) fn nacked(&self) -> u64 {
        self.queue.lock().nacked
    }

    /// Verdicts without an answer, those that wait included, when `outcomes` answers have come.
    pub(super) fn unanswered(&self, outcomes: u64) -> u64 {
        let queue = self.queue.lock();
        queue.verdicts.unanswered(outcomes) + queue.settlement.unanswered()
    }

    fn take(&self) -> Poll<Option<SubscribeRequest>> {
        let mut queue = self.queue.lock();
        let kind = if let Some(open) = queue.open.take() {
            Kind::Open(open)
        } else if !queue.credit.is_none() && !queue.finished {
            let credit = std::mem::take(&mut queue.credit);
            Kind::Credit(raw::Credit { messages: credit.messages, bytes: credit.bytes })
        } else if let Some(verdict) = queue.verdicts.take().or_else(|| queue.settlement.take()) {
            verdict
        } else if queue.finished && queue.settlement.has_sent_all() {
            // What comes now cannot be sent any more.
            queue.settlement.refuse_new(&Error::Closed { stream: "subscribe" });
            return Poll::Ready(None);
        } else {
            return Poll::Pending;
        };
        Poll::Ready(Some(SubscribeRequest { kind: Some(kind) }))
    }
}

/// What the connection polls when it can write.
pub(super) struct Requests(pub(super) Arc<Outbox>);

impl Stream for Requests {
    type Item = SubscribeRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SubscribeRequest>> {
        // Registered before looking: what is added in between wakes.
        self.0.connection.register(cx.waker());
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Acker;

    fn outbox() -> Arc<Outbox> {
        let open = raw::Open { sandbox_id: "s".into(), ..raw::Open::default() };
        Outbox::new(open, Credit { messages: 8, bytes: 80 })
    }

    fn next(outbox: &Outbox) -> Option<Kind> {
        match outbox.take() {
            Poll::Ready(Some(request)) => request.kind,
            _ => None,
        }
    }

    #[test]
    fn open_goes_first_then_credit_then_verdicts() {
        let outbox = outbox();
        Acker::new(Arc::clone(&outbox)).ack_range(3, 2);
        outbox.ack(1, 2);
        outbox.ack(3, 3);
        assert!(matches!(next(&outbox), Some(Kind::Open(open)) if open.sandbox_id == "s"));
        outbox.grant(Credit { messages: 1, bytes: 2 });
        assert!(matches!(next(&outbox), Some(Kind::Credit(raw::Credit { messages: 9, bytes: 82 }))));
        assert_eq!(outbox.unanswered(0), 1);
        let Some(Kind::Ack(ack)) = next(&outbox) else { panic!("an ack must follow") };
        assert_eq!(ack.ranges, [raw::DeliveryRange { first: 1, last: 3 }]);
        assert_eq!((outbox.unanswered(0), outbox.unanswered(1), outbox.acked()), (1, 0, 3));
        assert!(outbox.take().is_pending());
    }

    #[test]
    fn the_end_follows_the_verdicts_and_asks_for_nothing_more() {
        let outbox = outbox();
        assert!(matches!(next(&outbox), Some(Kind::Open(_))));
        outbox.nack(1, 2, Nack::default());
        outbox.grant(Credit { messages: 1, bytes: 1 });
        outbox.finish();
        assert!(matches!(next(&outbox), Some(Kind::Nack(_))));
        assert!(matches!(outbox.take(), Poll::Ready(None)));
        assert_eq!(outbox.nacked(), 2);
    }

    #[test]
    fn a_heartbeat_is_one_range_over_what_has_come() {
        let outbox = outbox();
        let acker = Acker::new(Arc::clone(&outbox));
        acker.extend_all(None);
        assert_eq!(outbox.unanswered(0), 0, "nothing has come");
        outbox.has_delivered(7);
        outbox.has_delivered(5);
        acker.extend_all(None);
        assert!(matches!(next(&outbox), Some(Kind::Open(_))));
        assert!(matches!(next(&outbox), Some(Kind::Credit(_))));
        let Some(Kind::Extend(extend)) = next(&outbox) else { panic!("an extend must follow") };
        assert_eq!(extend.ranges, [raw::DeliveryRange { first: 1, last: 7 }]);
    }
}
