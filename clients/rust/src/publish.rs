//! Publishing, one message or many.

mod batch;
mod batch_stream;
mod codec;
mod outbox;
mod pending;
mod producer;
mod receipt;
mod request;
mod stream;

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use tandem_proto::messaging::v1::{PublishRequest, PublishResponse, publish_service_client::PublishServiceClient};
use tonic::{Code, Request, Status};

use self::producer::Numbering;
pub use self::{
    batch::Batch,
    batch_stream::BatchStream,
    pending::PendingReceipt,
    producer::Producer,
    receipt::{BatchReceipt, ExceptionKind, Placed, PublishException, Receipt},
    request::Response,
    stream::{PublishStream, PublishStreamOptions},
};
use crate::{Client, Error, Message, ProducerPosition, Refusal, again, clock, leaders, trace};

/// What a request holds beside its message, in bytes: more than it does.
const BESIDE_BYTES: usize = 1 << 10;

/// Publishes into one workspace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    client: Client,
    workspace_id: Arc<str>,
}

/// How many bytes it has. What no request has room for ends here: while it was sent, the connection would only be told that
/// it is broken.
fn check_size(message: &Message, most: usize) -> Result<usize, Error> {
    let bytes = message.encoded_len();
    if bytes.saturating_add(BESIDE_BYTES) <= most {
        return Ok(bytes);
    }
    Err(Error::Refused(Box::new(Refusal {
        code: Code::InvalidArgument,
        reason: "MESSAGE_TOO_LARGE".to_owned(),
        text: format!("the message has {bytes} bytes; this client sends at most {most}, and the broker may take less"),
        field_violations: Vec::new(),
        retry_delay: None,
    })))
}

impl Publisher {
    pub(crate) fn new(client: Client, workspace_id: String) -> Self {
        Self { client, workspace_id: workspace_id.into() }
    }

    /// Publishes one message and returns once it is durable.
    ///
    /// A message without an id gets one, a UUID of version 7. That makes a repeat safe: while the broker is unavailable
    /// the message is tried again, [`attempts`](crate::Settings::attempts) times in all, and is
    /// accepted once.
    ///
    /// # Errors
    /// [`Error::Refused`] when the broker does not accept the message, and every error of the way there.
    pub async fn publish(&self, mut message: Message) -> Result<Receipt, Error> {
        if message.message_id.is_empty() {
            message.message_id = clock::new_id();
        }
        self.publish_with_retries(message, None).await
    }

    /// Publishes one message as the next of a producer, and returns once it is durable. The position makes a repeat safe,
    /// so the message needs no id and gets none: what was accepted before comes back with its sequence, marked as a
    /// duplicate. Tried again like [`publish`](Self::publish).
    ///
    /// Sequences of a producer begin anywhere and rise by 1, with refused messages too.
    ///
    /// # Errors
    /// As [`publish`](Self::publish); with `PRODUCER_GAP` when the broker misses messages before this one.
    pub async fn publish_as(&self, message: Message, position: ProducerPosition) -> Result<Receipt, Error> {
        self.publish_with_retries(message, Some(position)).await
    }

    async fn publish_with_retries(
        &self,
        mut message: Message,
        producer: Option<ProducerPosition>,
    ) -> Result<Receipt, Error> {
        trace::put(&mut message);
        let settings = self.client.settings();
        check_size(&message, settings.max_request_bytes)?;
        let workspace_id = self.workspace_id.to_string();
        let request = PublishRequest { workspace_id, message: Some(message), producer };
        let limit = settings.request_timeout;
        let allowance = (limit > Duration::ZERO).then(|| clock::Allowance::of(limit));
        let mut attempt = 1;
        loop {
            // The clone shares the content; the last attempt could spare it, but nearly always the first is the last.
            let mut request = self.client.request(request.clone());
            if let Some(allowance) = allowance {
                request.set_timeout(allowance.left());
            }
            let Some(called) = self.call(request).await else { continue };
            let error = match called {
                Ok(answer) => {
                    self.client.budget().succeeded();
                    return Ok(Receipt::from_response(answer));
                }
                Err(status) => self.client.error(&status),
            };
            let wait = clock::pause(error.retry_delay(), attempt);
            let too_long = allowance.is_some_and(|allowance| wait >= allowance.left());
            let may_help = error.is_momentary() && wait <= again::LONGEST && attempt < settings.attempts && !too_long;
            if !may_help || !self.client.budget().take() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, ?wait, "the publish is tried again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Publishes once: at the node that leads the workspace, where that is known. None: it did not answer, and the next call goes
    /// another way.
    async fn call(&self, request: Request<PublishRequest>) -> Option<Result<PublishResponse, Status>> {
        let (settings, leaders) = (self.client.settings(), self.client.leaders());
        let way = leaders.way(&self.workspace_id);
        let channel = way.as_ref().map_or_else(|| self.client.channel(), |way| way.channel.clone());
        let mut service = PublishServiceClient::new(channel)
            .max_encoding_message_size(settings.max_request_bytes)
            .max_decoding_message_size(settings.max_response_bytes);
        let calling = service.publish(request);
        let called = match &way {
            None => calling.await,
            Some(way) => match tokio::time::timeout(leaders::PATIENCE, calling).await {
                Ok(called) if called.as_ref().err().is_none_or(|status| status.code() != Code::Unavailable) => called,
                _ => {
                    leaders.avoid(way);
                    return None;
                }
            },
        };
        Some(called.map(|answer| {
            if settings.follow_leader {
                leaders.note(settings, &self.workspace_id, answer.metadata());
            }
            answer.into_inner()
        }))
    }

    /// Opens a stream that batches by itself: each message gets its own receipt, and whatever waits while the connection
    /// is busy goes out as one request.
    pub fn stream(&self, options: PublishStreamOptions) -> PublishStream {
        PublishStream::open(self.client.clone(), &self.workspace_id, options)
    }

    /// Opens a stream for callers that form batches themselves, without a producer: only messages with an id are safe to
    /// send again after a break.
    pub fn batch_stream(&self) -> BatchStream {
        BatchStream::open(&self.client, &self.workspace_id, Numbering::default())
    }

    /// Opens a stream for callers that form batches themselves. The first message gets this position, the others follow,
    /// also those that are refused. After a break send what has no answer again, on a stream that begins with its position:
    /// what had been accepted comes back as a duplicate.
    pub fn batch_stream_as(&self, first: ProducerPosition) -> BatchStream {
        BatchStream::open(&self.client, &self.workspace_id, Numbering::starting_at(first))
    }
}
