//! Request: publishes, waits for the response with the same correlation id, and returns it.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use tandem_proto::raw::messaging::v1::{RequestRequest, RequestResponse, request_service_server::RequestService};
use tonic::{Request, Response, Status};

use super::{Edge, time};
use crate::{
    auth::Caller,
    batch::{Batch, MessageRef},
    batcher::PublishRecords,
    clock,
    command::{Answered, Verb, publish::Exception},
    delivery::subscription::encode_message,
    error::RequestError,
    machine::{approval, keys, request::WaitingRequest},
    message::{self, Destination},
    rejection::{Reason, Rejection},
};

/// How long a call waits unless it says otherwise.
const TIMEOUT_MS: u64 = 30_000;
/// What a timeout may be.
const TIMEOUTS_MS: std::ops::RangeInclusive<u64> = 100..=24 * 3_600_000;
/// Beyond the deadline in the state, so that a tick that comes late is waited for.
const GRACE: Duration = Duration::from_secs(2);

#[tonic::async_trait]
impl RequestService for Edge {
    async fn request(&self, request: Request<RequestRequest>) -> Result<Response<RequestResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name: Arc<str> = caller.workspace(&request.workspace_id)?.into();
        let timeout_ms = time::milliseconds("timeout", request.timeout, TIMEOUTS_MS)?.unwrap_or(TIMEOUT_MS);
        let mut context = self.context(&caller, &name)?;
        let mut records = BytesMut::with_capacity(request.message.len() + 256);
        self.encode(&mut context, &request.message, (0, 0), timeout_ms, &mut records)?;
        let view = message::read(&request.message)?;
        check(&view)?;

        let shard = self.shards.of(&name);
        let workspace = shard.reader.workspace(&name)?;
        let sender = shard.reader.sandbox(workspace.number, view.from_sandbox_id)?.number;
        let correlation = keys::text_hash(view.correlation_id);
        // Heard of from now on: the response may come before the publish is answered.
        let awaiting = shard.delivery.signals.wait_for_response((workspace.number, sender, correlation));
        let publish = PublishRecords { workspace: Arc::clone(&name), count: 1, records: records.freeze() };
        let published = shard.batcher.publish_now(publish).await?;
        context.gift.arrived();
        let mut held_as = None;
        let resumed = match published.exceptions.into_iter().next() {
            None => false,
            Some((_, Exception::Duplicate { .. })) => true,
            // Its response may come once somebody has approved it; the answer that it was not approved comes the same way.
            Some((_, Exception::Held { approval })) => {
                held_as = Some(approval);
                false
            }
            Some((_, Exception::Refused(rejection))) => return Err(rejection.into()),
        };
        // The time of a shard may pass more slowly than that of who waits.
        let until = clock::now() + Duration::from_millis(timeout_ms);
        loop {
            let notified = awaiting.notify.notified();
            tokio::pin!(notified);
            // In line before the state is read, so that nothing between the two is missed.
            notified.as_mut().enable();
            let key = (workspace.number, sender, correlation);
            let Some(waiting) = shard.reader.waiting_request(key).map_err(internal)? else {
                return Err(timed_out(&view, timeout_ms, held_as).into());
            };
            if let Some((sequence, stored)) = &waiting.response {
                let batch = Batch::decode(*sequence, stored.clone()).map_err(|error| internal(error.into()))?;
                let message =
                    encode_message(shard.delivery.sealer(), &MessageRef { batch: batch.into(), index: 0 }, &name)?;
                if !waiting.answered {
                    let answered =
                        Verb::Answered(Answered { workspace: workspace.number, sandbox: sender, correlation });
                    shard.batcher.call(answered, 0).await?;
                }
                // It may have been held, and have got a sequence meanwhile.
                let request_sequence = approval::in_log(waiting.sequence);
                return Ok(Response::new(RequestResponse { message, request_sequence, resumed }));
            }
            let own = until.saturating_duration_since(clock::now());
            let left = remaining(&waiting, shard.time.now_ms()).min(own) + GRACE;
            tokio::select! {
                () = notified => {}
                () = tokio::time::sleep(left) => return Err(timed_out(&view, timeout_ms, held_as).into()),
                () = self.stopped() => return Err(super::status::shutting_down()),
            }
        }
    }
}

fn remaining(waiting: &WaitingRequest, now_ms: u64) -> Duration {
    Duration::from_millis(waiting.deadline_ms.saturating_sub(now_ms))
}

/// A request is answered by one, and tied to its response by the correlation id.
fn check(view: &message::MessageView<'_>) -> Result<(), Rejection> {
    if view.correlation_id.is_empty() {
        let text = "correlation_id is empty; give each request its own, and repeat it when you repeat the call";
        return Err(Rejection::field("message.correlation_id", text));
    }
    if !matches!(view.message_type, 1 | 4) {
        let text = "only a request or a command can be waited for; set the type accordingly";
        return Err(Rejection::field("message.type", text));
    }
    let to_one = match view.to {
        Destination::Sandbox(_) => true,
        Destination::Capability(wanted) => !wanted.all,
        _ => false,
    };
    if to_one {
        return Ok(());
    }
    let text = "a request goes to one sandbox, or to one that has a capability";
    Err(Rejection::field("message.destination", text))
}

fn timed_out(view: &message::MessageView<'_>, timeout_ms: u64, held_as: Option<u64>) -> Rejection {
    let mut text = format!(
        "no response to {:?} came within {timeout_ms} ms; one that comes later goes to the inbox of sandbox {:?}",
        view.correlation_id, view.from_sandbox_id
    );
    if let Some(approval) = held_as {
        text.push_str(&format!("; the request was held for approval {approval}"));
    }
    Rejection::new(Reason::ResponseTimeout, text)
}

fn internal(error: crate::machine::StateError) -> RequestError {
    RequestError::internal(error.to_string())
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
