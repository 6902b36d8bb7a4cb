//! A message, as JSON and as text.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};
use tandem_client::{CapabilityDestination, Message, MessageType, destination};

use super::time;

/// The word for a type, as `tandem pub --type` takes it.
pub(crate) fn type_name(message: &Message) -> &'static str {
    match message.r#type() {
        MessageType::Unspecified => "unspecified",
        MessageType::Request => "request",
        MessageType::Response => "response",
        MessageType::Notification => "notification",
        MessageType::Command => "command",
    }
}

/// Every field that is set. Content is `content` when it is UTF-8, else `content_base64`.
pub(crate) fn json(message: &Message) -> Value {
    let mut fields = Map::new();
    fields.insert("message_id".into(), message.message_id.as_str().into());
    fields.insert("sequence".into(), message.sequence.into());
    fields.insert("server_time".into(), time(message.server_time).into());
    let texts = [
        ("workspace_id", &message.workspace_id),
        ("from_sandbox_id", &message.from_sandbox_id),
        ("from_agent", &message.from_agent),
        ("to_agent", &message.to_agent),
        ("content_type", &message.content_type),
        ("correlation_id", &message.correlation_id),
        ("ordering_key", &message.ordering_key),
        ("traceparent", &message.traceparent),
    ];
    for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
        fields.insert(name.into(), text.as_str().into());
    }
    let destination = match message.destination.as_ref().and_then(|destination| destination.kind.as_ref()) {
        Some(destination::Kind::SandboxId(id)) => json!({ "sandbox_id": id }),
        Some(destination::Kind::Topic(topic)) => json!({ "topic": topic }),
        Some(destination::Kind::Broadcast(_)) => json!({ "broadcast": {} }),
        Some(destination::Kind::Capability(to)) => capability(to),
        None => Value::Null,
    };
    fields.insert("destination".into(), destination);
    fields.insert("type".into(), type_name(message).into());
    fields.insert("priority".into(), message.priority.unwrap_or(5).into());
    if message.requires_response {
        fields.insert("requires_response".into(), true.into());
    }
    let ttl = message.ttl.and_then(|ttl| Duration::try_from(ttl).ok());
    if let Some(ttl) = ttl {
        fields.insert("ttl_ms".into(), json!(ttl.as_millis()));
    }
    if message.not_before.is_some() {
        fields.insert("not_before".into(), time(message.not_before).into());
    }
    if message.dead_letter_on_expiry {
        fields.insert("dead_letter_on_expiry".into(), true.into());
    }
    if message.hop_count > 0 {
        fields.insert("hop_count".into(), message.hop_count.into());
    }
    if !message.metadata.is_empty() {
        fields.insert("metadata".into(), json!(message.metadata));
    }
    match std::str::from_utf8(&message.content) {
        Ok(text) => fields.insert("content".into(), text.into()),
        Err(_) => fields.insert("content_base64".into(), STANDARD.encode(&message.content).into()),
    };
    Value::Object(fields)
}

/// A line of facts, then the content, indented.
pub(crate) fn text(message: &Message) -> String {
    let mut head = format!(
        "#{} {} {} {} -> {}",
        message.sequence,
        time(message.server_time),
        type_name(message),
        address(&message.from_sandbox_id, &message.from_agent),
        recipient(message),
    );
    if let Some(priority) = message.priority.filter(|priority| *priority != 5) {
        head += &format!(" priority={priority}");
    }
    if message.requires_response {
        head += " requires-response";
    }
    if !message.correlation_id.is_empty() {
        head += &format!(" correlation-id={}", message.correlation_id);
    }
    if !message.ordering_key.is_empty() {
        head += &format!(" ordering-key={}", message.ordering_key);
    }
    if message.message_id != format!("seq-{}", message.sequence) {
        head += &format!(" id={}", message.message_id);
    }
    let mut metadata: Vec<_> = message.metadata.iter().collect();
    metadata.sort();
    for (key, value) in metadata {
        head += &format!(" {key}={value}");
    }
    let content = match std::str::from_utf8(&message.content) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("base64 {}", STANDARD.encode(&message.content)),
    };
    for line in content.lines() {
        head += "\n    ";
        head += line;
    }
    head
}

fn capability(to: &CapabilityDestination) -> Value {
    let mut chosen = json!({ "capability": to.capability });
    if to.all {
        chosen["all"] = true.into();
    }
    if to.wait {
        chosen["wait"] = true.into();
    }
    json!({ "capability": chosen })
}

fn recipient(message: &Message) -> String {
    match message.destination.as_ref().and_then(|destination| destination.kind.as_ref()) {
        Some(destination::Kind::SandboxId(id)) => address(id, &message.to_agent),
        Some(destination::Kind::Topic(topic)) => address(&format!("topic:{topic}"), &message.to_agent),
        Some(destination::Kind::Broadcast(_)) => address("*", &message.to_agent),
        Some(destination::Kind::Capability(to)) => address(&format!("capability:{}", to.capability), &message.to_agent),
        None => "?".to_owned(),
    }
}

fn address(sandbox: &str, agent: &str) -> String {
    if agent.is_empty() { sandbox.to_owned() } else { format!("{sandbox}({agent})") }
}

#[cfg(test)]
mod tests {
    use tandem_client::{broadcast, to_capability_or_wait, to_sandbox};

    use super::*;

    fn message() -> Message {
        Message {
            message_id: "seq-7".into(),
            sequence: 7,
            from_sandbox_id: "alice".into(),
            from_agent: "planner".into(),
            destination: Some(to_sandbox("bob")),
            r#type: MessageType::Request.into(),
            content: "two\nlines".into(),
            priority: Some(9),
            ..Message::default()
        }
    }

    #[test]
    fn text_is_a_head_and_the_content() {
        assert_eq!(text(&message()), "#7  request alice(planner) -> bob priority=9\n    two\n    lines");
    }

    #[test]
    fn when_a_message_may_be_delivered_is_told() {
        let seconds = |seconds| prost_types::Duration { seconds, nanos: 500_000_000 };
        let message = Message {
            destination: Some(to_capability_or_wait("review")),
            ttl: Some(seconds(2)),
            not_before: Some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
            dead_letter_on_expiry: true,
            ordering_key: "k".into(),
            ..message()
        };
        let json = json(&message);
        assert_eq!(json["destination"], json!({ "capability": { "capability": "review", "wait": true } }));
        assert_eq!((json["ttl_ms"].as_u64(), json["dead_letter_on_expiry"].as_bool()), (Some(2500), Some(true)));
        assert_eq!(json["not_before"].as_str(), Some("1970-01-01T00:00:01.000Z"));
        assert!(text(&message).contains("-> capability:review priority=9 ordering-key=k\n"));
    }

    #[test]
    fn content_that_is_no_text_is_base64() {
        let message = Message { content: vec![0xff].into(), destination: Some(broadcast()), ..message() };
        let json = json(&message);
        assert_eq!((json.get("content"), json["content_base64"].as_str()), (None, Some("/w==")));
        assert_eq!(json["destination"], json!({ "broadcast": {} }));
        assert!(text(&message).ends_with("-> * priority=9\n    base64 /w=="));
    }
}
