//! A publish stream that batches by itself.

use std::sync::Arc;

use super::{
    codec,
    outbox::{Outbox, Requests},
    pending::PendingReceipt,
};
use crate::{Client, Error, Message};

/// Bounds of a [`PublishStream`].
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
}

impl Default for PublishStreamOptions {
    fn default() -> Self {
        Self { window_messages: 1024, window_bytes: 8 << 20, batch_messages: 1000, batch_bytes: 1 << 20 }
    }
}

/// Publishes messages over one stream, in the order of [`send`](Self::send). There is no timer: a message goes out at once
/// when the connection is free, and what gathers meanwhile becomes the next request.
///
/// Dropping the stream sends what waits and lets the receipts complete; nothing new can be sent.
#[derive(Debug)]
pub struct PublishStream {
    outbox: Arc<Outbox>,
}

impl PublishStream {
    pub(super) fn open(client: Client, workspace_id: &str, options: PublishStreamOptions) -> Self {
        let options = PublishStreamOptions {
            window_messages: options.window_messages.max(1),
            window_bytes: options.window_bytes.max(1),
            batch_messages: options.batch_messages.max(1),
            ..options
        };
        let outbox = Outbox::new(workspace_id.to_owned(), options);
        tokio::spawn(take_answers(client, Arc::clone(&outbox)));
        Self { outbox }
    }

    /// Adds a message and returns its receipt to be. Waits only while the window is full. A message without an id is named
    /// by the broker.
    ///
    /// # Errors
    /// The error of the stream once it has broken.
    pub async fn send(&self, message: Message) -> Result<PendingReceipt, Error> {
        self.outbox.send(message).await
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
async fn take_answers(client: Client, outbox: Arc<Outbox>) {
    let end = match codec::open(&client, Requests(Arc::clone(&outbox))).await {
        Err(status) => Err(client.error(&status)),
        Ok(mut answers) => loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    if let Err(error) = outbox.answer(answer) {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(()),
                Err(status) => break Err(client.error(&status)),
            }
        },
    };
    let unanswered = outbox.outstanding();
    outbox.fail(match end {
        Err(error) => error,
        Ok(()) if unanswered > 0 => Error::StreamEnded { stream: "publish", unanswered },
        Ok(()) => Error::Closed { stream: "publish" },
    });
}
