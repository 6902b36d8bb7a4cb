//! A request and its response in one call.

use std::time::Duration;

use tandem_proto::messaging::v1::{RequestRequest, RequestResponse, request_service_client::RequestServiceClient};
use tonic::Code;

use super::Publisher;
use crate::{Error, Message, Undeliverable, clock, trace, wire_duration};

/// The shortest time that the broker waits.
const SHORTEST: Duration = Duration::from_millis(100);
/// The longest, a day.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How much longer than the broker this side waits, so that the broker's own word on the timeout arrives.
const GRACE: Duration = Duration::from_secs(5);

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The response, with the fields of the broker set.
    pub message: Message,
    /// The sequence of the request.
    pub request_sequence: u64,
    /// The request had been published by an earlier call, whose connection broke.
    pub resumed: bool,
}

impl Publisher {
    /// Publishes a request or command to a sandbox, or to one that has a capability, and returns the response that carries
    /// its correlation id. The response does not go through the inbox of the sender.
    ///
    /// A message without a correlation id gets one, a UUID of version 7. That makes a repeat safe: while the broker is
    /// unavailable the call is made again with the same message until the timeout ends, the message is published once, and a
    /// response that came meanwhile is returned.
    ///
    /// `timeout` is 100 ms to 24 h.
    ///
    /// # Errors
    /// [`Error::Refused`] with `RESPONSE_TIMEOUT` when no response came in time; a later one goes to the inbox of the sender.
    /// [`Error::Undeliverable`] when the request became a dead letter or expired. Otherwise as [`publish`](Self::publish).
    pub async fn request(&self, mut message: Message, timeout: Duration) -> Result<Response, Error> {
        if message.correlation_id.is_empty() {
            message.correlation_id = clock::new_id();
        }
        trace::put(&mut message);
        let settings = self.client.settings();
        super::check_size(&message, settings.max_request_bytes)?;
        let mut service = RequestServiceClient::new(self.client.channel())
            .max_encoding_message_size(settings.max_request_bytes)
            .max_decoding_message_size(settings.max_response_bytes);
        let allowance = clock::Allowance::of(timeout);
        let (mut attempt, mut wait) = (1, timeout);
        loop {
            let mut request = self.client.stream_request(RequestRequest {
                workspace_id: self.workspace_id.to_string(),
                message: Some(message.clone()),
                timeout: Some(wire_duration(wait)),
            });
            let limit = wait.min(LONGEST) + GRACE;
            request.set_timeout(limit);
            let error = match service.request(request).await {
                Ok(answer) => return Response::from_answer(answer.into_inner()),
                Err(status) => self.client.error_after(&status, limit),
            };
            let pause = clock::pause(error.retry_delay(), attempt);
            if error.code() != Code::Unavailable || pause >= allowance.left() {
                return Err(error);
            }
            tracing::debug!(%error, attempt, ?pause, "the request is tried again");
            tokio::time::sleep(pause).await;
            attempt += 1;
            // What is left, because the first call may never have reached the broker.
            wait = allowance.left().max(SHORTEST);
        }
    }
}

impl Response {
    fn from_answer(answer: RequestResponse) -> Result<Self, Error> {
        let RequestResponse { message, request_sequence, resumed } = answer;
        let message = message.ok_or_else(|| Error::Contract("an answer to a request holds no response".to_owned()))?;
        match Undeliverable::from_message(&message) {
            Some(undeliverable) => Err(Error::Undeliverable(Box::new(undeliverable))),
            None => Ok(Self { message, request_sequence, resumed }),
        }
    }
}
