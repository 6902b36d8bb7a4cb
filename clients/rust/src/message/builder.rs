//! Messages, field by field.

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::{Destination, Message, MessageType, to_sandbox, wire_duration, wire_time};

/// Puts a [`Message`] together. Nothing is checked here: the broker judges values and names the field that it refuses.
///
/// ```
/// use std::time::Duration;
/// use tandem_client::{MessageBuilder, to_capability_or_wait};
///
/// let review = MessageBuilder::request("alice", to_capability_or_wait("review"), r#"{"change":7}"#)
///     .ttl(Duration::from_secs(3600))
///     .ordering_key("change-7")
///     .dead_letter_on_expiry()
///     .build();
/// assert_eq!(review.ttl.unwrap().seconds, 3600);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MessageBuilder {
    message: Message,
}

impl MessageBuilder {
    /// A message of any type.
    pub fn new(
        from_sandbox_id: impl Into<String>,
        destination: Destination,
        message_type: MessageType,
        content: impl Into<Bytes>,
    ) -> Self {
        Self {
            message: Message {
                from_sandbox_id: from_sandbox_id.into(),
                destination: Some(destination),
                r#type: message_type.into(),
                content: content.into(),
                ..Message::default()
            },
        }
    }

    /// Asks another participant for something.
    pub fn request(from_sandbox_id: impl Into<String>, to: Destination, content: impl Into<Bytes>) -> Self {
        Self::new(from_sandbox_id, to, MessageType::Request, content)
    }

    /// Orders something done.
    pub fn command(from_sandbox_id: impl Into<String>, to: Destination, content: impl Into<Bytes>) -> Self {
        Self::new(from_sandbox_id, to, MessageType::Command, content)
    }

    /// Tells, and expects nothing back.
    pub fn notification(from_sandbox_id: impl Into<String>, to: Destination, content: impl Into<Bytes>) -> Self {
        Self::new(from_sandbox_id, to, MessageType::Notification, content)
    }

    /// Answers a request or command that was received: goes to its sender, under its correlation id.
    pub fn response_to(request: &Message, from_sandbox_id: impl Into<String>, content: impl Into<Bytes>) -> Self {
        let to = to_sandbox(request.from_sandbox_id.as_str());
        let response = Self::new(from_sandbox_id, to, MessageType::Response, content);
        response.to_agent(request.from_agent.as_str()).correlation_id(request.correlation_id.as_str())
    }

    /// Names the message within its workspace: 1 to 128 bytes. A publish that repeats an id gets the answer of the first
    /// one. Default: [`Publisher::publish`](crate::Publisher::publish) makes one up, a stream leaves it to the broker.
    #[must_use]
    pub fn message_id(mut self, message_id: impl Into<String>) -> Self {
        self.message.message_id = message_id.into();
        self
    }

    /// The agent that sends, within its sandbox. Default: none.
    #[must_use]
    pub fn from_agent(mut self, agent: impl Into<String>) -> Self {
        self.message.from_agent = agent.into();
        self
    }

    /// The agent meant, within the recipient. Default: whichever takes it.
    #[must_use]
    pub fn to_agent(mut self, agent: impl Into<String>) -> Self {
        self.message.to_agent = agent.into();
        self
    }

    /// Media type of the content. Default: `application/json`.
    #[must_use]
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.message.content_type = content_type.into();
        self
    }

    /// 0 to 9, 9 is delivered first. Default: 5.
    #[must_use]
    pub fn priority(mut self, priority: u32) -> Self {
        self.message.priority = Some(priority);
        self
    }

    /// The sender waits for a response with the same correlation id, and is told when there can be none. Only for requests
    /// and commands. Default: no.
    #[must_use]
    pub fn requires_response(mut self) -> Self {
        self.message.requires_response = true;
        self
    }

    /// Ties the messages of one conversation together: at most 128 bytes. Default: none.
    #[must_use]
    pub fn correlation_id(mut self, correlation_id: impl Into<String>) -> Self {
        self.message.correlation_id = correlation_id.into();
        self
    }

    /// How long the message may wait for a recipient, counted from its commit or from `not_before`: 1 s to 366 days.
    /// Default: that of the workspace.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.message.ttl = Some(wire_duration(ttl));
        self
    }

    /// Not delivered before this time, which is at most 366 days away. Only to a sandbox or to one that has a capability.
    /// Default: at once.
    #[must_use]
    pub fn not_before(mut self, time: SystemTime) -> Self {
        self.message.not_before = Some(wire_time(time));
        self
    }

    /// A recipient gets messages with equal keys one at a time and in order. At most 128 bytes. Default: none.
    #[must_use]
    pub fn ordering_key(mut self, key: impl Into<String>) -> Self {
        self.message.ordering_key = key.into();
        self
    }

    /// When the ttl ends the message becomes a dead letter of its recipient. Default: it is gone but for the history.
    #[must_use]
    pub fn dead_letter_on_expiry(mut self) -> Self {
        self.message.dead_letter_on_expiry = true;
        self
    }

    /// A header of the application; a key that was given before gets the new value. At most 64, keys up to 128 bytes,
    /// values up to 4 KiB, 16 KiB in all.
    #[must_use]
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.message.metadata.insert(key.into(), value.into());
        self
    }

    /// W3C trace context of the publish: at most 55 bytes. Default: none.
    #[must_use]
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.message.traceparent = traceparent.into();
        self
    }

    /// The message.
    pub fn build(self) -> Message {
        self.message
    }
}

impl From<MessageBuilder> for Message {
    fn from(builder: MessageBuilder) -> Self {
        builder.message
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::{destination::Kind, to_capability, to_capability_all, to_capability_or_wait, to_topic};

    #[test]
    fn every_field_arrives() {
        let message = MessageBuilder::command("a", to_topic("build.done"), "x")
            .message_id("m")
            .from_agent("f")
            .to_agent("t")
            .content_type("text/plain")
            .priority(9)
            .requires_response()
            .correlation_id("c")
            .ttl(Duration::from_secs(5))
            .not_before(UNIX_EPOCH + Duration::from_secs(7))
            .ordering_key("k")
            .dead_letter_on_expiry()
            .header("h", "v")
            .traceparent("00-1")
            .build();
        let expected = Message {
            message_id: "m".into(),
            from_sandbox_id: "a".into(),
            from_agent: "f".into(),
            destination: Some(Destination { kind: Some(Kind::Topic("build.done".into())) }),
            to_agent: "t".into(),
            r#type: MessageType::Command.into(),
            content: "x".into(),
            content_type: "text/plain".into(),
            priority: Some(9),
            requires_response: true,
            correlation_id: "c".into(),
            ttl: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            metadata: [("h".to_owned(), "v".to_owned())].into(),
            ordering_key: "k".into(),
            not_before: Some(prost_types::Timestamp { seconds: 7, nanos: 0 }),
            traceparent: "00-1".into(),
            dead_letter_on_expiry: true,
            ..Message::default()
        };
        assert_eq!(message, expected);
    }

    #[test]
    fn a_response_goes_back_where_the_request_came_from() {
        let request = MessageBuilder::request("a", to_sandbox("b"), "?").from_agent("f").correlation_id("c").build();
        let response = MessageBuilder::response_to(&request, "b", "!").build();
        assert_eq!((response.destination.as_ref(), response.to_agent.as_str()), (Some(&to_sandbox("a")), "f"));
        assert_eq!((response.correlation_id.as_str(), response.from_sandbox_id.as_str()), ("c", "b"));
        assert_eq!(response.r#type(), MessageType::Response);
    }

    #[test]
    fn capabilities_differ_in_who_is_chosen() {
        let flags = |destination: Destination| match destination.kind {
            Some(Kind::Capability(to)) => (to.capability, to.all, to.wait),
            other => panic!("not a capability: {other:?}"),
        };
        assert_eq!(flags(to_capability("x")), ("x".to_owned(), false, false));
        assert_eq!(flags(to_capability_all("x")), ("x".to_owned(), true, false));
        assert_eq!(flags(to_capability_or_wait("x")), ("x".to_owned(), false, true));
    }
}
