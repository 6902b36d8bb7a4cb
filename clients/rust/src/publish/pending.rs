//! The outcome of a batch, awaited message by message.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

use super::receipt::{BatchReceipt, Placed, Receipt};
use crate::Error;

/// One per batch, shared by the receipts of its messages: a batch of a thousand costs one allocation and, when one task
/// awaits them all, one wake.
#[derive(Debug)]
pub(super) struct BatchOutcome {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Waiting(Vec<Waker>),
    Done(Arc<Result<BatchReceipt, Error>>),
}

impl BatchOutcome {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Waiting(Vec::new())) })
    }

    /// Sets the outcome and wakes who waits. The first call counts.
    pub(super) fn complete(&self, outcome: Result<BatchReceipt, Error>) {
        let outcome = Arc::new(outcome);
        let wakers = match &mut *self.state.lock() {
            State::Done(_) => return,
            state @ State::Waiting(_) => match std::mem::replace(state, State::Done(outcome)) {
                State::Waiting(wakers) => wakers,
                State::Done(_) => return,
            },
        };
        for waker in wakers {
            waker.wake();
        }
    }

    /// The outcome, or None after arranging for `waker` to be woken. `registered` remembers where its waker stands.
    fn poll(&self, waker: &Waker, registered: &mut Option<usize>) -> Option<Arc<Result<BatchReceipt, Error>>> {
        match &mut *self.state.lock() {
            State::Done(outcome) => Some(Arc::clone(outcome)),
            State::Waiting(wakers) => {
                let known = registered.and_then(|at| wakers.get(at)).is_some_and(|known| known.will_wake(waker));
                if !known {
                    // One task that awaits the whole batch in order finds its waker at the end.
                    if !wakers.last().is_some_and(|last| last.will_wake(waker)) {
                        wakers.push(waker.clone());
                    }
                    *registered = Some(wakers.len() - 1);
                }
                None
            }
        }
    }
}

/// The receipt of one message, ready when the broker has answered its batch. Dropping it does not take the message back.
///
/// # Errors
/// [`Error::Refused`] when the broker does not accept the message; the error of the stream when that broke, in which case
/// the message may or may not have committed.
#[derive(Debug)]
#[must_use = "the outcome of the message is known only by awaiting it"]
pub struct PendingReceipt {
    pub(super) batch: Arc<BatchOutcome>,
    pub(super) index: u32,
    /// The id that the message came with; empty when the broker names it.
    pub(super) message_id: String,
    /// 0 when the stream has no producer.
    pub(super) producer_sequence: u64,
    pub(super) registered: Option<usize>,
}

impl PendingReceipt {
    /// The number of the message under the producer of its stream; None when that has none. To send it again, should the
    /// stream break: see [`Producer::Resume`](super::Producer::Resume).
    pub fn producer_sequence(&self) -> Option<u64> {
        (self.producer_sequence > 0).then_some(self.producer_sequence)
    }
}

impl Future for PendingReceipt {
    type Output = Result<Receipt, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Some(outcome) = this.batch.poll(cx.waker(), &mut this.registered) else { return Poll::Pending };
        let batch = match outcome.as_ref() {
            Ok(batch) => batch,
            Err(error) => return Poll::Ready(Err(error.clone())),
        };
        Poll::Ready(batch.placed(this.index).map(|placed| {
            let (sequence, duplicate, approval_id) = match placed {
                Placed::New(sequence) => (sequence, false, None),
                Placed::DuplicateOf(sequence) => (sequence, true, None),
                Placed::Held { approval_id } => (0, false, Some(approval_id)),
            };
            let message_id = match std::mem::take(&mut this.message_id) {
                id if id.is_empty() && approval_id.is_none() => format!("seq-{sequence}"),
                id => id,
            };
            Receipt { sequence, message_id, server_time: batch.server_time, duplicate, approval_id }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_that_awaits_a_whole_batch_is_woken_once() {
        let batch = BatchOutcome::new();
        let receipt = |index| PendingReceipt {
            batch: Arc::clone(&batch),
            index,
            message_id: String::new(),
            producer_sequence: 0,
            registered: None,
        };
        let mut receipts: Vec<_> = (0..1000).map(receipt).collect();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        for receipt in receipts.iter_mut().chain(&mut (0..3).map(receipt).collect::<Vec<_>>()) {
            assert!(Pin::new(&mut *receipt).poll(&mut context).is_pending());
            assert!(Pin::new(receipt).poll(&mut context).is_pending());
        }
        batch.complete(Err(Error::Closed { stream: "publish" }));
        batch.complete(Err(Error::Contract("the first outcome counts".to_owned())));
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        for receipt in &mut receipts {
            let Poll::Ready(Err(error)) = Pin::new(receipt).poll(&mut context) else { panic!("it must be ready") };
            assert_eq!(error.reason(), "STREAM_CLOSED");
        }
    }

    #[test]
    fn every_waiting_task_is_woken() {
        let batch = BatchOutcome::new();
        let tasks: Vec<_> = (0..5).map(|_| Arc::new(Wakes::default())).collect();
        for (index, wakes) in tasks.iter().enumerate() {
            let mut receipt = PendingReceipt {
                batch: Arc::clone(&batch),
                index: index as u32,
                message_id: String::new(),
                producer_sequence: 0,
                registered: None,
            };
            let waker = Waker::from(Arc::clone(wakes));
            assert!(Pin::new(&mut receipt).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        batch.complete(Err(Error::Closed { stream: "publish" }));
        assert!(tasks.iter().all(|wakes| wakes.0.load(Ordering::Relaxed) == 1));
    }
}
