//! A message in JSON, both ways.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;
use tandem_client::{
    Destination, Message, MessageType, broadcast, destination, to_capability, to_capability_all, to_capability_or_wait,
    to_sandbox, to_topic, wire_duration, wire_time,
};
use utoipa::ToSchema;

use super::time;
use crate::error::Failure;

const JSON: &str = "application/json";
/// The longest ttl and delay, in seconds: 366 days.
const MAX_SECONDS: u64 = 366 * 86_400;

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Request,
    Response,
    Notification,
    Command,
}

impl Kind {
    pub(crate) fn wire(self) -> MessageType {
        match self {
            Self::Request => MessageType::Request,
            Self::Response => MessageType::Response,
            Self::Notification => MessageType::Notification,
            Self::Command => MessageType::Command,
        }
    }

    pub(crate) fn of(kind: MessageType) -> Option<Self> {
        match kind {
            MessageType::Request => Some(Self::Request),
            MessageType::Response => Some(Self::Response),
            MessageType::Notification => Some(Self::Notification),
            MessageType::Command => Some(Self::Command),
            MessageType::Unspecified => None,
        }
    }
}

/// Where a message goes: one of these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum To {
    /// The inbox of one sandbox.
    SandboxId(String),
    /// Every sandbox that follows a topic.
    Topic(String),
    /// Whoever has a capability.
    Capability(Capability),
    /// Everybody in the workspace.
    Broadcast(bool),
}

/// As it is read: an enum of serde's takes none of its variants, or two, for JSON that is broken.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with sandbox_id, topic, capability or broadcast")]
struct ReadTo {
    sandbox_id: Option<String>,
    topic: Option<String>,
    capability: Option<Capability>,
    broadcast: Option<bool>,
}

impl<'de> Deserialize<'de> for To {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ReadTo { sandbox_id, topic, capability, broadcast } = ReadTo::deserialize(deserializer)?;
        match (sandbox_id, topic, capability, broadcast) {
            (Some(id), None, None, None) => Ok(Self::SandboxId(id)),
            (None, Some(name), None, None) => Ok(Self::Topic(name)),
            (None, None, Some(capability), None) => Ok(Self::Capability(capability)),
            (None, None, None, Some(all)) => Ok(Self::Broadcast(all)),
            _ => Err(D::Error::custom("it has exactly one of sandbox_id, topic, capability and broadcast")),
        }
    }
}

/// Whoever has a capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capability {
    /// As agents name it when they are registered.
    name: String,
    /// All who have it, and not one of those who are online.
    #[serde(default)]
    all: bool,
    /// It waits for somebody when nobody is there.
    #[serde(default)]
    wait: bool,
}

impl To {
    fn wire(self) -> Result<Destination, Failure> {
        match self {
            Self::SandboxId(id) => Ok(to_sandbox(id)),
            Self::Topic(name) => Ok(to_topic(name)),
            Self::Broadcast(true) => Ok(broadcast()),
            Self::Broadcast(false) => Err(Failure::field("to.broadcast", "it is true, or not there")),
            Self::Capability(Capability { all: true, wait: true, .. }) => {
                Err(Failure::field("to.capability", "all and wait do not go together"))
            }
            Self::Capability(Capability { name, all: true, .. }) => Ok(to_capability_all(name)),
            Self::Capability(Capability { name, wait: true, .. }) => Ok(to_capability_or_wait(name)),
            Self::Capability(Capability { name, .. }) => Ok(to_capability(name)),
        }
    }

    fn of(destination: Option<Destination>) -> Option<Self> {
        Some(match destination?.kind? {
            destination::Kind::SandboxId(id) => Self::SandboxId(id),
            destination::Kind::Topic(name) => Self::Topic(name),
            destination::Kind::Broadcast(_) => Self::Broadcast(true),
            destination::Kind::Capability(to) => {
                Self::Capability(Capability { name: to.capability, all: to.all, wait: to.wait })
            }
        })
    }
}

/// How `content` is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encoding {
    /// A text holds bytes.
    Base64,
}

/// What there is in a message wherever it goes.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewMessage {
    /// The workspace in which it is sent.
    #[schema(max_length = 128)]
    pub(crate) workspace_id: String,
    /// The sandbox that sends it, which is registered there.
    #[schema(max_length = 128)]
    pub(crate) from_sandbox_id: String,
    /// Where it goes. Not for `/broadcast`.
    pub(crate) to: Option<To>,
    /// What it is for.
    #[serde(rename = "type")]
    kind: Kind,
    /// What it says: any JSON; with another `content_type` a text, with `content_encoding` one that holds bytes.
    content: Value,
    /// Of `content`. Unset: `application/json`.
    #[schema(max_length = 128)]
    content_type: Option<String>,
    /// Unset: as it stands.
    content_encoding: Option<Encoding>,
    /// Names it: a message that is sent again with the same id is the same one. Unset: the broker names it.
    #[schema(max_length = 128)]
    message_id: Option<String>,
    /// 0 to 9; 9 is delivered first. Unset: 5.
    #[schema(maximum = 9)]
    priority: Option<u32>,
    /// The agent that sends.
    #[serde(default)]
    #[schema(max_length = 128)]
    from_agent: String,
    /// The agent that is meant.
    #[serde(default)]
    #[schema(max_length = 128)]
    to_agent: String,
    /// The sender waits for a response with the same correlation id.
    #[serde(default)]
    requires_response: bool,
    /// Ties the messages of a conversation together.
    #[serde(default)]
    #[schema(max_length = 128)]
    correlation_id: String,
    /// How long it may wait. Unset: as the workspace says.
    #[schema(minimum = 1, maximum = 31_622_400)]
    ttl_seconds: Option<u64>,
    /// How long it waits before it is delivered.
    #[schema(minimum = 1, maximum = 31_622_400)]
    delay_seconds: Option<u64>,
    /// It becomes a dead letter when its time is over.
    #[serde(default)]
    dead_letter_on_expiry: bool,
    /// One at a time and in order reach a recipient with the same key.
    #[serde(default)]
    #[schema(max_length = 128)]
    ordering_key: String,
    /// Of the application: up to 64 pairs.
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// W3C trace context. Unset: that of the request, if it has one.
    traceparent: Option<String>,
}

impl NewMessage {
    /// Where it goes, which is asked once.
    pub(crate) fn destination(&mut self) -> Result<To, Failure> {
        let missing = || Failure::field("to", "say where it goes: sandbox_id, topic, capability or broadcast");
        self.to.take().ok_or_else(missing)
    }

    /// With an id, if it has none.
    pub(crate) fn named(self, id: impl FnOnce() -> String) -> Self {
        Self { message_id: Some(self.message_id.unwrap_or_else(id)), ..self }
    }

    /// For the broker.
    pub(crate) fn wire(
        self,
        to: To,
        traceparent: Option<&str>,
        now: std::time::SystemTime,
    ) -> Result<Message, Failure> {
        let seconds = |field: &str, seconds: Option<u64>| match seconds {
            Some(seconds) if !(1..=MAX_SECONDS).contains(&seconds) => {
                Err(Failure::field(field, format!("{seconds} is not 1 to {MAX_SECONDS}")))
            }
            seconds => Ok(seconds.map(Duration::from_secs)),
        };
        let ttl = seconds("ttl_seconds", self.ttl_seconds)?.map(wire_duration);
        let not_before = seconds("delay_seconds", self.delay_seconds)?.map(|delay| wire_time(now + delay));
        let content_type = self.content_type.unwrap_or_default();
        let content = bytes(self.content, &content_type, self.content_encoding)?;
        Ok(Message {
            message_id: self.message_id.unwrap_or_default(),
            from_sandbox_id: self.from_sandbox_id,
            from_agent: self.from_agent,
            destination: Some(to.wire()?),
            to_agent: self.to_agent,
            r#type: self.kind.wire().into(),
            content: content.into(),
            content_type,
            priority: self.priority,
            requires_response: self.requires_response,
            correlation_id: self.correlation_id,
            ttl,
            metadata: self.metadata.into_iter().collect(),
            ordering_key: self.ordering_key,
            not_before,
            traceparent: self.traceparent.or_else(|| traceparent.map(str::to_owned)).unwrap_or_default(),
            dead_letter_on_expiry: self.dead_letter_on_expiry,
            ..Message::default()
        })
    }
}

fn is_json(content_type: &str) -> bool {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    kind.is_empty() || kind == JSON || kind.ends_with("+json")
}

fn bytes(content: Value, content_type: &str, encoding: Option<Encoding>) -> Result<Vec<u8>, Failure> {
    match (content, encoding) {
        (Value::String(text), Some(Encoding::Base64)) => STANDARD
            .decode(text)
            .map_err(|error| Failure::field("content", format!("it is said to be base64, and is not: {error}"))),
        (_, Some(Encoding::Base64)) => Err(Failure::field("content", "it is said to be base64, and is no text")),
        (content, None) if is_json(content_type) => Ok(content.to_string().into_bytes()),
        (Value::String(text), None) => Ok(text.into_bytes()),
        (_, None) => {
            let text = format!("it is said to be {content_type:?}, and is no text; write it as one");
            Err(Failure::field("content", text))
        }
    }
}

/// A message as it is in the log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownMessage {
    workspace_id: String,
    message_id: String,
    /// Its position in the log of the workspace.
    sequence: u64,
    /// When it was committed. RFC 3339. Left out while it waits for approval: it is not in the log yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    server_time: Option<String>,
    from_sandbox_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    from_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<To>,
    #[serde(skip_serializing_if = "String::is_empty")]
    to_agent: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    /// JSON where it is that; else a text, which holds bytes where `content_encoding` says so.
    content: Value,
    content_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<Encoding>,
    priority: u32,
    requires_response: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    correlation_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<f64>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    not_before: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    ordering_key: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    traceparent: String,
    hop_count: u32,
}

impl From<Message> for ShownMessage {
    fn from(message: Message) -> Self {
        let (kind, content_type) = (message.r#type(), message.content_type);
        let json = if is_json(&content_type) { serde_json::from_slice(&message.content).ok() } else { None };
        // What is said to be JSON and is none must not look as if it were.
        let plain = || std::str::from_utf8(&message.content).ok().filter(|_| !is_json(&content_type));
        let (content, content_encoding) = match json.or_else(|| plain().map(|text| Value::String(text.to_owned()))) {
            Some(content) => (content, None),
            None => (Value::String(STANDARD.encode(&message.content)), Some(Encoding::Base64)),
        };
        Self {
            workspace_id: message.workspace_id,
            message_id: message.message_id,
            sequence: message.sequence,
            server_time: time::of(message.server_time.as_ref()),
            from_sandbox_id: message.from_sandbox_id,
            from_agent: message.from_agent,
            to: To::of(message.destination),
            to_agent: message.to_agent,
            kind: Kind::of(kind),
            content,
            content_type: if content_type.is_empty() { JSON.to_owned() } else { content_type },
            content_encoding,
            priority: message.priority.unwrap_or(5),
            requires_response: message.requires_response,
            correlation_id: message.correlation_id,
            ttl_seconds: message.ttl.and_then(|ttl| Duration::try_from(ttl).ok()).map(|ttl| ttl.as_secs_f64()),
            not_before: time::of(message.not_before.as_ref()),
            ordering_key: message.ordering_key,
            metadata: message.metadata.into_iter().collect(),
            traceparent: message.traceparent,
            hop_count: message.hop_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn there_and_back(body: Value) -> Value {
        let new: NewMessage = serde_json::from_value(body).unwrap();
        let to = new.to.clone().unwrap();
        let message = new.wire(to, None, std::time::UNIX_EPOCH).unwrap();
        serde_json::to_value(ShownMessage::from(message)).unwrap()
    }

    fn new(more: Value) -> Value {
        let mut body = json!({"workspace_id": "w", "from_sandbox_id": "a", "to": {"sandbox_id": "b"}, "type": "request", "content": 1});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        body
    }

    #[test]
    fn content_comes_back_as_it_was_sent() {
        for (content, kind) in [
            (json!({"a": [1, null, "ä"]}), None),
            (json!("text"), None),
            (json!(null), Some("application/json; charset=utf-8")),
            (json!("text\n"), Some("text/plain")),
            (json!({"b": 1}), Some("application/cloudevents+json")),
        ] {
            let mut more = json!({"content": content});
            if let Some(kind) = kind {
                more["content_type"] = json!(kind);
            }
            let shown = there_and_back(new(more));
            assert_eq!((&shown["content"], shown.get("content_encoding")), (&content, None), "{kind:?}");
        }
        let bytes =
            json!({"content": "AP8=", "content_encoding": "base64", "content_type": "application/octet-stream"});
        let shown = there_and_back(new(bytes));
        assert_eq!((&shown["content"], &shown["content_encoding"]), (&json!("AP8="), &json!("base64")));
        // Bytes that are no JSON, and are said to be.
        let lie = there_and_back(new(json!({"content": "e30=e", "content_type": "text/plain"})));
        assert_eq!(lie["content"], "e30=e");
    }

    #[test]
    fn every_destination_comes_back() {
        for to in [
            json!({"sandbox_id": "b"}),
            json!({"topic": "t"}),
            json!({"broadcast": true}),
            json!({"capability": {"name": "c", "all": false, "wait": true}}),
        ] {
            assert_eq!(there_and_back(new(json!({"to": to})))["to"], to);
        }
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        let wrong = |more, field: &str| {
            let new: NewMessage = serde_json::from_value(new(more)).unwrap();
            let to = new.to.clone().unwrap();
            let error = new.wire(to, None, std::time::UNIX_EPOCH).unwrap_err().to_string();
            assert!(error.starts_with(field), "{error}");
        };
        wrong(json!({"to": {"broadcast": false}}), "to.broadcast");
        wrong(json!({"to": {"capability": {"name": "c", "all": true, "wait": true}}}), "to.capability");
        wrong(json!({"ttl_seconds": 0}), "ttl_seconds");
        wrong(json!({"delay_seconds": MAX_SECONDS + 1}), "delay_seconds");
        wrong(json!({"content": "?", "content_encoding": "base64"}), "content");
        wrong(json!({"content": 1, "content_encoding": "base64"}), "content");
        wrong(json!({"content": 1, "content_type": "text/plain"}), "content");
        for (body, field) in [
            (json!({"to": {}}), "to"),
            (json!({"to": {"sandbox_id": "a", "topic": "b"}}), "to"),
            (json!({"to": "a"}), "to"),
            (json!({"to": {"topic": 7}}), "to.topic"),
            (json!({"to": {"sandbox": "a"}}), "to.sandbox"),
            (json!({"to": {"capability": {"name": "c", "some": 1}}}), "to.capability.some"),
            (json!({"type": "shout"}), "type"),
        ] {
            let text = new(body).to_string();
            let mut json = serde_json::Deserializer::from_str(&text);
            let error = serde_path_to_error::deserialize::<_, NewMessage>(&mut json).unwrap_err();
            assert_eq!(error.path().to_string(), field, "{text}");
            assert!(error.into_inner().is_data(), "{text}");
        }
    }
}
