//! What a [`PublishStream`](super::PublishStream) still has to send and what it waits for.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, task::AtomicWaker};
use parking_lot::Mutex;
use tandem_proto::messaging::v1::PublishStreamResponse;
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

use super::{
    codec::EncodedRequest,
    pending::{BatchOutcome, PendingReceipt},
    producer::Numbering,
    receipt::BatchReceipt,
    stream::PublishStreamOptions,
};
use crate::{Batch, Error, Message, ProducerPosition};

/// Shared by the sending half, the connection that takes batches, and the task that takes answers.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    /// Wakes the connection when something waits.
    connection: AtomicWaker,
    /// Free places in the window.
    messages: Semaphore,
    /// Free bytes in the window.
    bytes: Semaphore,
    options: PublishStreamOptions,
}

#[derive(Debug, Default)]
struct Queue {
    /// Takes messages until the connection takes it, or until it is full and moves to `full`.
    open: Option<Waiting>,
    full: VecDeque<Waiting>,
    unanswered: VecDeque<Unanswered>,
    /// What the broker has to be sent again, since the connection broke.
    again: VecDeque<Unanswered>,
    /// Counts the connections, from 0: an old one gets nothing more.
    connection: u64,
    /// Whether this connection knows the workspace.
    is_named: bool,
    last_request_id: u64,
    workspace_id: String,
    /// Of messages, when they are sent; of requests, when the connection takes them. Both give the same numbers.
    numbering: Numbering,
    request_numbering: Numbering,
    finished: bool,
    failed: Option<Error>,
}

/// A batch that the connection has not taken.
#[derive(Debug)]
struct Waiting {
    batch: Batch,
    window_bytes: usize,
    outcome: Arc<BatchOutcome>,
}

/// A batch that the broker has not answered.
#[derive(Debug)]
struct Unanswered {
    request_id: u64,
    messages: u32,
    window_bytes: usize,
    outcome: Arc<BatchOutcome>,
    /// Position and messages: of a producer, whom the broker believes nothing twice.
    sent: Option<(ProducerPosition, Bytes)>,
}

impl Outbox {
    pub(super) fn new(workspace_id: String, options: PublishStreamOptions, numbering: Numbering) -> Arc<Self> {
        let request_numbering = numbering.clone();
        Arc::new(Self {
            queue: Mutex::new(Queue { workspace_id, numbering, request_numbering, ..Queue::default() }),
            connection: AtomicWaker::new(),
            messages: Semaphore::new(options.window_messages as usize),
            bytes: Semaphore::new(options.window_bytes as usize),
            options,
        })
    }

    /// Waits for room in the window and puts the message into the open batch.
    pub(super) async fn send(&self, mut message: Message, message_bytes: usize) -> Result<PendingReceipt, Error> {
        // A message larger than the window may go alone.
        let window_bytes = u32::try_from(message_bytes).unwrap_or(u32::MAX).min(self.options.window_bytes);
        let place = self.room(&self.messages, 1).await?;
        let room = self.room(&self.bytes, window_bytes).await?;
        let receipt = self.push(&mut message, message_bytes, window_bytes as usize)?;
        // Given back when the answer comes.
        SemaphorePermit::forget(place);
        SemaphorePermit::forget(room);
        self.connection.wake();
        Ok(receipt)
    }

    /// Tries first: waiting counts against the task's budget also when there is room, and a task that runs out of it
    /// yields, which would cut what it sends into batches of 64.
    async fn room<'a>(&self, window: &'a Semaphore, amount: u32) -> Result<SemaphorePermit<'a>, Error> {
        match window.try_acquire_many(amount) {
            Ok(permit) => Ok(permit),
            Err(TryAcquireError::Closed) => Err(self.failure()),
            Err(TryAcquireError::NoPermits) => window.acquire_many(amount).await.map_err(|_| self.failure()),
        }
    }

    fn push(&self, message: &mut Message, message_bytes: usize, window_bytes: usize) -> Result<PendingReceipt, Error> {
        let mut queue = self.queue.lock();
        if let Some(error) = &queue.failed {
            return Err(error.clone());
        }
        let is_full = queue.open.as_ref().is_some_and(|open| {
            open.batch.len() >= self.options.batch_messages as usize
                || open.batch.encoded_bytes() + message_bytes > self.options.batch_bytes as usize
        });
        if is_full {
            let full = queue.open.take();
            queue.full.extend(full);
        }
        let producer_sequence = queue.numbering.take_one();
        let open = queue.open.get_or_insert_with(|| Waiting {
            batch: Batch::new(),
            window_bytes: 0,
            outcome: BatchOutcome::new(),
        });
        let receipt = PendingReceipt {
            batch: Arc::clone(&open.outcome),
            index: u32::try_from(open.batch.len()).unwrap_or(u32::MAX),
            message_id: String::new(),
            producer_sequence,
            registered: None,
        };
        open.batch.push(message);
        open.window_bytes += window_bytes;
        Ok(PendingReceipt { message_id: std::mem::take(&mut message.message_id), ..receipt })
    }

    /// Returns once nothing waits for an answer.
    pub(super) async fn settled(&self) -> Result<(), Error> {
        // All places are free: nothing is on its way.
        let all = self.messages.acquire_many(self.options.window_messages).await;
        all.map(drop).map_err(|_| self.failure())
    }

    /// No more messages come: the connection may end its half after the last batch.
    pub(super) fn finish(&self) {
        self.queue.lock().finished = true;
        self.connection.wake();
    }

    /// Matches an answer with the oldest batch that has none.
    pub(super) fn answer(&self, response: PublishStreamResponse) -> Result<(), Error> {
        let Some(batch) = self.queue.lock().unanswered.pop_front() else {
            let id = response.request_id;
            return Err(Error::Contract(format!("an answer to request {id} came, which is answered")));
        };
        let receipt = BatchReceipt::from_response(response, batch.request_id, batch.messages);
        let broken = receipt.as_ref().err().cloned();
        batch.outcome.complete(receipt);
        self.messages.add_permits(batch.messages as usize);
        self.bytes.add_permits(batch.window_bytes);
        broken.map_or(Ok(()), Err)
    }

    /// The connection broke: what has no answer goes to the next one first. Returns the number of that; None: messages have no
    /// numbers, so that they must not be sent twice.
    pub(super) fn rewind(&self) -> Option<u64> {
        let mut queue = self.queue.lock();
        queue.numbering.producer_id()?;
        let mut again = std::mem::take(&mut queue.unanswered);
        again.append(&mut queue.again);
        queue.again = again;
        queue.connection += 1;
        queue.is_named = false;
        Some(queue.connection)
    }

    /// Gives every message without an answer this error, and all that follow. The first failure counts.
    pub(super) fn fail(&self, error: Error) {
        let (unanswered, waiting) = {
            let mut queue = self.queue.lock();
            queue.failed.get_or_insert_with(|| error.clone());
            queue.finished = true;
            let waiting: Vec<_> = std::mem::take(&mut queue.full).into_iter().chain(queue.open.take()).collect();
            let mut unanswered = std::mem::take(&mut queue.unanswered);
            unanswered.append(&mut queue.again);
            (unanswered, waiting)
        };
        self.messages.close();
        self.bytes.close();
        self.connection.wake();
        let outcomes = unanswered.into_iter().map(|batch| batch.outcome);
        for outcome in outcomes.chain(waiting.into_iter().map(|batch| batch.outcome)) {
            outcome.complete(Err(error.clone()));
        }
    }

    /// Whether no more messages come.
    pub(super) fn is_finished(&self) -> bool {
        self.queue.lock().finished
    }

    /// How many batches wait for an answer or for the connection.
    pub(super) fn outstanding(&self) -> u64 {
        let queue = self.queue.lock();
        (queue.unanswered.len() + queue.again.len() + queue.full.len() + usize::from(queue.open.is_some())) as u64
    }

    fn failure(&self) -> Error {
        self.queue.lock().failed.clone().unwrap_or(Error::Closed { stream: "publish" })
    }

    /// The next request, if one waits; Ready(None) after the last.
    fn take(&self, connection: u64) -> Poll<Option<EncodedRequest>> {
        let mut queue = self.queue.lock();
        if queue.connection != connection {
            return Poll::Ready(None);
        }
        if let Some(again) = queue.again.pop_front() {
            let (producer, body) = again.sent.clone().unzip();
            let request_id = again.request_id;
            queue.unanswered.push_back(again);
            let body = body.unwrap_or_default();
            return Poll::Ready(Some(EncodedRequest { workspace_id: queue.name(), request_id, producer, body }));
        }
        let Some(Waiting { batch, window_bytes, outcome }) = queue.full.pop_front().or_else(|| queue.open.take())
        else {
            return if queue.finished { Poll::Ready(None) } else { Poll::Pending };
        };
        queue.last_request_id += 1;
        let request_id = queue.last_request_id;
        let messages = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let producer = queue.request_numbering.take(messages);
        let body = batch.into_body().freeze();
        let sent = producer.clone().map(|producer| (producer, body.clone()));
        queue.unanswered.push_back(Unanswered { request_id, messages, window_bytes, outcome, sent });
        Poll::Ready(Some(EncodedRequest { workspace_id: queue.name(), request_id, producer, body }))
    }
}

impl Queue {
    /// The workspace, once for each connection.
    fn name(&mut self) -> String {
        if std::mem::replace(&mut self.is_named, true) { String::new() } else { self.workspace_id.clone() }
    }
}

/// What the connection polls when it can write: everything that has gathered since becomes one request.
pub(super) struct Requests {
    pub(super) outbox: Arc<Outbox>,
    /// See [`Outbox::rewind`].
    pub(super) connection: u64,
}

impl Stream for Requests {
    type Item = EncodedRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<EncodedRequest>> {
        // An old connection must not take the place of the one that is to be woken.
        if self.outbox.queue.lock().connection != self.connection {
            return Poll::Ready(None);
        }
        // Registered before looking: a message that comes in between wakes.
        self.outbox.connection.register(cx.waker());
        self.outbox.take(self.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::{Producer, PublishStreamOptions};

    fn outbox(producer: Producer) -> Arc<Outbox> {
        let options = PublishStreamOptions { batch_messages: 1, producer: producer.clone(), ..Default::default() };
        Outbox::new("w".to_owned(), options, Numbering::from(producer))
    }

    async fn send(outbox: &Outbox, content: &'static str) -> PendingReceipt {
        let message = Message { content: content.into(), ..Message::default() };
        let bytes = prost::Message::encoded_len(&message);
        outbox.send(message, bytes).await.unwrap()
    }

    fn next(outbox: &Outbox, connection: u64) -> Option<(String, u64, u64, Bytes)> {
        match outbox.take(connection) {
            Poll::Ready(Some(EncodedRequest { workspace_id, request_id, producer, body })) => {
                Some((workspace_id, request_id, producer.map_or(0, |position| position.sequence), body))
            }
            _ => None,
        }
    }

    #[tokio::test]
    async fn what_has_no_answer_goes_to_the_next_connection_first_as_it_was() {
        let outbox = outbox(Producer::New);
        let mut receipts = Vec::new();
        for content in ["a", "b", "c"] {
            receipts.push(send(&outbox, content).await);
        }
        let (first, second) = (next(&outbox, 0).unwrap(), next(&outbox, 0).unwrap());
        assert_eq!((first.0.as_str(), first.2, second.0.as_str(), second.2), ("w", 1, "", 2));
        let answer = PublishStreamResponse { request_id: 1, first_sequence: 7, accepted: 1, ..Default::default() };
        outbox.answer(answer).unwrap();
        let connection = outbox.rewind().unwrap();
        assert!(matches!(outbox.take(0), Poll::Ready(None)), "the old connection gets nothing more");
        let again = next(&outbox, connection).unwrap();
        assert_eq!(again, ("w".to_owned(), second.1, second.2, second.3.clone()));
        // It breaks once more, before what is new was sent.
        let connection = outbox.rewind().unwrap();
        let sequences: Vec<_> =
            std::iter::from_fn(|| next(&outbox, connection)).map(|(_, _, sequence, _)| sequence).collect();
        assert_eq!(sequences, [2, 3]);
        assert_eq!(outbox.outstanding(), 2);
    }

    #[tokio::test]
    async fn without_numbers_nothing_is_sent_twice() {
        let outbox = outbox(Producer::Off);
        let receipt = send(&outbox, "").await;
        assert!(next(&outbox, 0).is_some());
        assert_eq!(outbox.rewind(), None);
        outbox.fail(Error::Closed { stream: "publish" });
        assert_eq!(receipt.await.unwrap_err().reason(), "STREAM_CLOSED");
    }
}
