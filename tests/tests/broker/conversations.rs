//! What agents say to each other, and what becomes of it: asked and answered, published once, in circles, read again, refused,
//! and told. One file for each numbered line of what the broker does beyond delivery.

mod events;
mod full;
mod loops;
mod once;
mod replay;
mod request;
mod resume;
mod slow;

use tandem_client::{Message, MessageBuilder, to_sandbox};

/// A request under a correlation id.
fn question(from: &str, to: &str, correlation_id: &str) -> Message {
    MessageBuilder::request(from, to_sandbox(to), "what is it?").correlation_id(correlation_id).build()
}

/// The response of the recipient.
fn reply(request: &Message, content: &str) -> Message {
    let from = match request.destination.as_ref().and_then(|destination| destination.kind.as_ref()) {
        Some(tandem_client::destination::Kind::SandboxId(recipient)) => recipient,
        other => panic!("nobody in particular was asked: {other:?}"),
    };
    MessageBuilder::response_to(request, from.as_str(), content.to_owned()).build()
}
