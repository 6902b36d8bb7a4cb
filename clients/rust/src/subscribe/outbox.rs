//! What a subscription still has to say to the broker.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{Stream, task::AtomicWaker};
use parking_lot::Mutex;
use tandem_proto::raw::messaging::v1::{self as raw, SubscribeRequest, subscribe_request::Kind};

use super::{
    SubscribeOptions,
    acks::{Tally, Waiting},
    credit::Credit,
};

/// Shared by the subscription, its ackers and the connection. Bounded: credit adds up in place, and acknowledgements are
/// bounded by what was delivered.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// Wakes the connection when something waits.
    connection: AtomicWaker,
}

#[derive(Debug)]
struct Queue {
    /// Goes first, once.
    open: Option<raw::Open>,
    credit: Credit,
    acks: Waiting,
    /// Deliveries acknowledged so far.
    acked: u64,
    /// `Ack`s that the connection has taken.
    acks_sent: u64,
    finished: bool,
}

impl Outbox {
    pub(super) fn new(workspace_id: String, sandbox_id: String, options: &SubscribeOptions) -> Arc<Self> {
        let queue = Queue {
            open: Some(raw::Open { workspace_id, sandbox_id }),
            credit: Credit { messages: options.credit_messages, bytes: options.credit_bytes },
            acks: Waiting::default(),
            acked: 0,
            acks_sent: 0,
            finished: false,
        };
        Arc::new(Self { queue: Mutex::new(queue), connection: AtomicWaker::new() })
    }

    pub(super) fn ack(&self, first: u64, last: u64) {
        {
            let mut queue = self.queue.lock();
            queue.acks.add(first, last);
            queue.acked += last.saturating_sub(first).saturating_add(1);
        }
        self.connection.wake();
    }

    pub(super) fn grant(&self, credit: Credit) {
        self.queue.lock().credit.add(credit);
        self.connection.wake();
    }

    /// The connection ends its half after what waits now.
    pub(super) fn finish(&self) {
        self.queue.lock().finished = true;
        self.connection.wake();
    }

    pub(super) fn acked(&self) -> u64 {
        self.queue.lock().acked
    }

    /// Whether every acknowledgement has been sent and answered, when `outcomes` answers have come.
    pub(super) fn settled(&self, outcomes: u64) -> bool {
        let queue = self.queue.lock();
        queue.acks.is_empty() && outcomes >= queue.acks_sent
    }

    /// How many `Ack`s have no answer, the one that waits included.
    pub(super) fn unanswered(&self, tally: &Tally) -> u64 {
        let queue = self.queue.lock();
        queue.acks_sent.saturating_sub(tally.outcomes) + u64::from(!queue.acks.is_empty())
    }

    fn take(&self) -> Poll<Option<SubscribeRequest>> {
        let mut queue = self.queue.lock();
        let kind = if let Some(open) = queue.open.take() {
            Kind::Open(open)
        } else if !queue.credit.is_none() {
            let credit = std::mem::take(&mut queue.credit);
            Kind::Credit(raw::Credit { messages: credit.messages, bytes: credit.bytes })
        } else if let Some(ranges) = queue.acks.take() {
            queue.acks_sent += 1;
            Kind::Ack(raw::Ack { ranges })
        } else if queue.finished {
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

/// Acknowledges deliveries of one subscription. Cheap to clone. Without effect once the subscription is gone.
#[derive(Debug, Clone)]
pub struct Acker {
    outbox: Arc<Outbox>,
}

impl Acker {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox }
    }

    /// Acknowledges one delivery.
    pub fn ack(&self, delivery_id: u64) {
        self.outbox.ack(delivery_id, delivery_id);
    }

    /// Acknowledges the deliveries from `first` to `last`, both included. Nothing when `first` is above `last`.
    pub fn ack_range(&self, first: u64, last: u64) {
        if first <= last {
            self.outbox.ack(first, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(outbox: &Outbox) -> Option<Kind> {
        match outbox.take() {
            Poll::Ready(Some(request)) => request.kind,
            _ => None,
        }
    }

    #[test]
    fn open_goes_first_then_credit_then_acks() {
        let outbox = Outbox::new("w".into(), "s".into(), &SubscribeOptions { credit_messages: 8, credit_bytes: 80 });
        Acker::new(Arc::clone(&outbox)).ack_range(3, 2);
        outbox.ack(1, 2);
        outbox.ack(3, 3);
        assert!(matches!(next(&outbox), Some(Kind::Open(open)) if open.sandbox_id == "s"));
        outbox.grant(Credit { messages: 1, bytes: 2 });
        assert!(matches!(next(&outbox), Some(Kind::Credit(raw::Credit { messages: 9, bytes: 82 }))));
        assert!(!outbox.settled(0));
        let Some(Kind::Ack(ack)) = next(&outbox) else { panic!("an ack must follow") };
        assert_eq!(ack.ranges, [raw::DeliveryRange { first: 1, last: 3 }]);
        assert_eq!((outbox.settled(0), outbox.settled(1), outbox.acked()), (false, true, 3));
        assert!(outbox.take().is_pending());
        outbox.finish();
        assert!(matches!(outbox.take(), Poll::Ready(None)));
    }
}
