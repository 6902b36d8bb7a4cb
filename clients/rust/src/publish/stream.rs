//! A publish stream that batches by itself.

use std::sync::Arc;

use super::{
    codec,
    outbox::{Outbox, Requests},
    pending::PendingReceipt,
    producer::{Numbering, Producer},
};
use crate::{Client, Error, Message, clock, subscribe::STANDS, trace};

/// Bounds of a [`PublishStream`], and who publishes.
#[derive(Debug, Clone)]
pub struct PublishStreamOptions {
    /// Messages that may wait for their receipt; [`send`](PublishStream::send) waits while the window is full. At least 1.
    /// Default: 1,024.
    pub window_messages: u32,
    /// The same in bytes of encoded messages; a larger message goes alone. At least 1. Default: 8 MiB.
    pub window_bytes: u32,
    /// Most messages in one request. The broker takes 1,000 unless its settings say otherwise. Default: 1,000.
    pub batch_messages: u32,
    /// Most bytes in one request; a larger message goes alone. Default: 1 MiB.
    pub batch_bytes: u32,
    /// Under which producer messages are numbered. Default: a new one.
    pub producer: Producer,
    /// How often in a row the stream opens another connection when one breaks; 0: a break ends it. Default: None, as the
    /// [settings](crate::Settings::resume_attempts) of the client say.
    pub resume_attempts: Option<u32>,
}

impl Default for PublishStreamOptions {
    fn default() -> Self {
        Self {
            window_messages: 1024,
            window_bytes: 8 << 20,
            batch_messages: 1000,
            batch_bytes: 1 << 20,
            producer: Producer::New,
            resume_attempts: None,
        }
    }
}

/// Publishes messages over one stream, in the order of [`send`](Self::send). There is no timer: a message goes out at once
/// when the connection is free, and what gathers meanwhile becomes the next request.
///
/// Unless told otherwise the stream is a [`Producer`] and numbers its messages, so that what has no outcome when the connection
/// breaks is sent again without being published twice: it opens another one by itself, at another node if need be,
/// [`resume_attempts`](crate::Settings::resume_attempts) times in a row. Another process goes on with [`Producer::Resume`], the
/// [`producer_id`](Self::producer_id) and the [`producer_sequence`](PendingReceipt::producer_sequence) of the first message
/// without an outcome. Without a producer ([`Producer::Off`]) a break ends the stream.
///
/// Dropping the stream sends what waits and lets the receipts complete; nothing new can be sent.
#[derive(Debug)]
pub struct PublishStream {
    outbox: Arc<Outbox>,
    producer_id: Option<Box<str>>,
    max_request_bytes: usize,
}

impl PublishStream {
    pub(super) fn open(client: Client, workspace_id: &str, options: PublishStreamOptions) -> Self {
        let options = PublishStreamOptions {
            window_messages: options.window_messages.max(1),
            window_bytes: options.window_bytes.max(1),
            batch_messages: options.batch_messages.max(1),
            ..options
        };
        let numbering = Numbering::from(options.producer.clone());
        let producer_id = numbering.producer_id().map(Into::into);
        let (most, max_request_bytes) = (options.resume_attempts, client.settings().max_request_bytes);
        let outbox = Outbox::new(workspace_id.to_owned(), options, numbering);
        tokio::spawn(take_answers(client, Arc::clone(&outbox), most));
        Self { outbox, producer_id, max_request_bytes }
    }

    /// The producer that the stream is; None when it is none.
    pub fn producer_id(&self) -> Option<&str> {
        self.producer_id.as_deref()
    }

    /// Adds a message and returns its receipt to be. Waits only while the window is full. A message without an id is named
    /// by the broker.
    ///
    /// # Errors
    /// The error of the stream once it has broken. `MESSAGE_TOO_LARGE` for what no request has room for; the stream goes on.
    pub async fn send(&self, mut message: Message) -> Result<PendingReceipt, Error> {
        trace::put(&mut message);
        let message_bytes = super::check_size(&message, self.max_request_bytes)?;
        self.outbox.send(message, message_bytes).await
    }

    /// Returns once every message sent so far has its outcome.
    ///
    /// # Errors
    /// The error of the stream when it has broken.
    pub async fn flush(&self) -> Result<(), Error> {
        self.outbox.settled().await
    }
}

impl Drop for PublishStream {
    fn drop(&mut self) {
        self.outbox.finish();
    }
}

/// Runs until the stream ends; every message has an outcome afterwards.
async fn take_answers(client: Client, outbox: Arc<Outbox>, most: Option<u32>) {
    let (mut connection, mut attempt) = (0, 1);
    let end = loop {
        let opened = clock::Moment::now();
        let (has_answered, end) = serve(&client, &outbox, connection).await;
        let error = match (end, outbox.outstanding()) {
            (Err(error), _) => error,
            (Ok(()), 0) if outbox.is_finished() => break Error::Closed { stream: "publish" },
            (Ok(()), unanswered) => Error::StreamEnded { stream: "publish", unanswered },
        };
        // Also one that had nothing to say, until its token ended.
        attempt = if has_answered || opened.elapsed() >= STANDS { 1 } else { attempt };
        let may_go_on = most.is_none_or(|most| attempt <= most);
        let Some(wait) = client.next_try(&error, attempt).filter(|_| may_go_on) else { break error };
        let Some(next) = outbox.rewind() else { break error };
        tracing::info!(%error, attempt, ?wait, "a publish stream is opened again");
        tokio::time::sleep(wait).await;
        (connection, attempt) = (next, attempt + 1);
    };
    outbox.fail(end);
}

/// Runs one connection to its end. Returns whether the broker has answered anything, and why it ended.
async fn serve(client: &Client, outbox: &Arc<Outbox>, connection: u64) -> (bool, Result<(), Error>) {
    let requests = Requests { outbox: Arc::clone(outbox), connection };
    let mut answers = match codec::open(client, requests).await {
        Ok(answers) => answers,
        Err(status) => return (false, Err(client.error(&status))),
    };
    let mut has_answered = false;
    loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                if let Err(error) = outbox.answer(answer) {
                    return (has_answered, Err(error));
                }
                has_answered = true;
            }
            Ok(None) => return (has_answered, Ok(())),
            Err(status) => return (has_answered, Err(client.error(&status))),
        }
    }
}
