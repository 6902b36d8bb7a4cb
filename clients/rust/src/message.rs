//! Destinations in one word.

use tandem_proto::messaging::v1::{Broadcast, Destination, destination};

/// The durable inbox of one sandbox.
pub fn to_sandbox(sandbox_id: impl Into<String>) -> Destination {
    Destination { kind: Some(destination::Kind::SandboxId(sandbox_id.into())) }
}

/// Every sandbox that is registered when the message commits, but the sender.
pub fn broadcast() -> Destination {
    Destination { kind: Some(destination::Kind::Broadcast(Broadcast {})) }
}
