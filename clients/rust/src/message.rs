//! Messages and where they go.

mod builder;

use tandem_proto::messaging::v1::{Broadcast, CapabilityDestination, Destination, destination};

pub use self::builder::MessageBuilder;

/// The durable inbox of one sandbox.
pub fn to_sandbox(sandbox_id: impl Into<String>) -> Destination {
    Destination { kind: Some(destination::Kind::SandboxId(sandbox_id.into())) }
}

/// Every sandbox that is registered when the message commits, but the sender.
pub fn broadcast() -> Destination {
    Destination { kind: Some(destination::Kind::Broadcast(Broadcast {})) }
}

/// Every sandbox that follows a topic, but the sender. The topic must have been created.
pub fn to_topic(name: impl Into<String>) -> Destination {
    Destination { kind: Some(destination::Kind::Topic(name.into())) }
}

/// One sandbox that is online and has an agent with this capability: the one with the fewest waiting messages, or with an
/// ordering key always the same while it stays online. Refused with `NO_CAPABLE_SANDBOX` when there is none.
pub fn to_capability(capability: impl Into<String>) -> Destination {
    capable(CapabilityDestination { capability: capability.into(), ..CapabilityDestination::default() })
}

/// Every sandbox that has an agent with this capability, online or not, but the sender. Refused with `NO_CAPABLE_SANDBOX`
/// when there is none.
pub fn to_capability_all(capability: impl Into<String>) -> Destination {
    capable(CapabilityDestination { capability: capability.into(), all: true, ..CapabilityDestination::default() })
}

/// As [`to_capability`], but when nobody is there the message waits for somebody until its ttl ends.
pub fn to_capability_or_wait(capability: impl Into<String>) -> Destination {
    capable(CapabilityDestination { capability: capability.into(), wait: true, ..CapabilityDestination::default() })
}

fn capable(destination: CapabilityDestination) -> Destination {
    Destination { kind: Some(destination::Kind::Capability(destination)) }
}
