//! Reads an encoded `Message` where it lies, checks every field, and makes the record that is stored.
//!
//! By hand and without allocation: this runs once for each message published. What a generated reader would accept and
//! this does not is refused with the field's name; nothing is ignored.

mod wire;

use bytes::BytesMut;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use self::wire::{Fields, Value};
use crate::{
    batch::{Kind, Record},
    config::Limits,
    field::{self, MapBudget},
    rejection::{Reason, Rejection},
};

/// Message ids that begin so are given by the broker; the sequence follows.
pub(crate) const SEQUENCE_ID_PREFIX: &str = "seq-";
/// A W3C `traceparent` of version 00 has this many bytes.
const MAX_TRACEPARENT_BYTES: usize = 55;

/// The fields of a message that the broker looks at, borrowed from its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MessageView<'a> {
    pub(crate) message_id: &'a str,
    pub(crate) from_sandbox_id: &'a str,
    pub(crate) from_agent: &'a str,
    pub(crate) to_sandbox_id: &'a str,
    pub(crate) broadcast: bool,
    pub(crate) to_agent: &'a str,
    pub(crate) correlation_id: &'a str,
    message_type: u64,
    content_bytes: usize,
    priority: Option<u64>,
    requires_response: bool,
}

/// The field `traceparent`.
const TRACEPARENT: u64 = 16;
/// The priority of a message that names none.
const DEFAULT_PRIORITY: u64 = 5;

/// Checks a message that a client sends and appends its record.
pub(crate) fn encode_record(body: &[u8], limits: &Limits, out: &mut BytesMut) -> Result<(), Rejection> {
    if body.len() > limits.max_message_bytes {
        let text = format!(
            "the message has {} bytes; at most {} are allowed: send a reference to the content instead",
            body.len(),
            limits.max_message_bytes
        );
        return Err(Rejection { reason: Reason::MessageTooLarge, text, field: "message".into() });
    }
    let view = read(body)?;
    view.check()?;
    let digest = if view.message_id.is_empty() { 0 } else { digest(body)? };
    Record {
        kind: if view.broadcast { Kind::Broadcast } else { Kind::Direct },
        priority: view.priority.unwrap_or(DEFAULT_PRIORITY) as u8,
        from: view.from_sandbox_id,
        to: view.to_sandbox_id,
        id: view.message_id,
        digest,
        body,
    }
    .encode(out);
    Ok(())
}

/// A hash of the content of a message that does not depend on the order of its fields or of the pairs in its metadata:
/// protobuf promises neither, so a retry may be encoded otherwise. Part of the format.
fn digest(body: &[u8]) -> Result<u64, Rejection> {
    let mut sum = 0_u64;
    for entry in Fields::new("message", body) {
        let (number, value) = entry?;
        if number == TRACEPARENT {
            // A retry may run under another span.
            continue;
        }
        sum = sum.wrapping_add(match value {
            Value::Varint(value) => xxh3_64_with_seed(&value.to_be_bytes(), number),
            Value::Bytes(bytes) => xxh3_64_with_seed(bytes, number),
            Value::Fixed64 | Value::Fixed32 => 0,
        });
    }
    Ok(sum)
}

/// Reads the fields of a message.
pub(crate) fn read(body: &[u8]) -> Result<MessageView<'_>, Rejection> {
    let mut view = MessageView::default();
    let mut metadata = MapBudget::default();
    for entry in Fields::new("message", body) {
        let (number, value) = entry?;
        match number {
            1 => view.message_id = value.text("message_id")?,
            2 => view.from_sandbox_id = value.text("from_sandbox_id")?,
            3 => view.from_agent = value.text("from_agent")?,
            4 => read_destination(value.bytes("destination")?, &mut view)?,
            5 => view.to_agent = value.text("to_agent")?,
            6 => view.message_type = value.varint("type")?,
            7 => view.content_bytes = value.bytes("content")?.len(),
            8 => drop(field::name("content_type", value.text("content_type")?)?),
            9 => view.priority = Some(value.varint("priority")?),
            10 => view.requires_response = value.varint("requires_response")? != 0,
            11 => view.correlation_id = value.text("correlation_id")?,
            12 => return Err(unserved("ttl", "messages do not expire in this version")),
            13 => read_metadata(value.bytes("metadata")?, &mut metadata)?,
            14 => refuse_text("ordering_key", &value, "this version has no ordering keys")?,
            15 => return Err(unserved("not_before", "this version delivers at once")),
            TRACEPARENT => read_traceparent(value.text("traceparent")?)?,
            30..=33 => {
                let text = format!("field {number} of the message is set by the broker; leave it empty");
                return Err(Rejection::field("message", text));
            }
            _ => {
                let text = format!("the message has a field {number} that this version does not know");
                return Err(Rejection::unsupported("message", text));
            }
        }
    }
    Ok(view)
}

fn read_destination<'a>(bytes: &'a [u8], view: &mut MessageView<'a>) -> Result<(), Rejection> {
    for entry in Fields::new("destination", bytes) {
        let (number, value) = entry?;
        (view.to_sandbox_id, view.broadcast) = ("", false);
        match number {
            1 => view.to_sandbox_id = field::id("destination.sandbox_id", value.text("destination.sandbox_id")?)?,
            2 => {
                return Err(unserved("destination.topic", "this version has no topics"));
            }
            3 if value.bytes("destination.broadcast")?.is_empty() => view.broadcast = true,
            _ => {
                let text = format!("the destination has a field {number} that this version does not know");
                return Err(Rejection::unsupported("destination", text));
            }
        }
    }
    Ok(())
}

fn read_metadata(bytes: &[u8], budget: &mut MapBudget) -> Result<(), Rejection> {
    let (mut key, mut text) = ("", "");
    for entry in Fields::new("metadata", bytes) {
        match entry? {
            (1, value) => key = value.text("metadata")?,
            (2, value) => text = value.text("metadata")?,
            (number, _) => {
                let text = format!("metadata has a field {number} that this version does not know");
                return Err(Rejection::unsupported("metadata", text));
            }
        }
    }
    budget.add("metadata", key, text)
}

fn read_traceparent(value: &str) -> Result<(), Rejection> {
    let well_formed = value.is_empty()
        || value.len() <= MAX_TRACEPARENT_BYTES
            && value.split('-').count() == 4
            && value.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    if well_formed {
        return Ok(());
    }
    let text =
        format!("traceparent {:?} is not a W3C trace context, such as 00-<32 hex>-<16 hex>-01", field::shown(value));
    Err(Rejection::field("traceparent", text))
}

fn refuse_text(name: &'static str, value: &Value<'_>, why: &str) -> Result<(), Rejection> {
    if value.text(name)?.is_empty() { Ok(()) } else { Err(unserved(name, why)) }
}

fn unserved(field: &'static str, why: &str) -> Rejection {
    Rejection::unsupported(field, format!("{field} is set, but {why}; leave it empty"))
}

impl MessageView<'_> {
    fn check(&self) -> Result<(), Rejection> {
        if !self.message_id.is_empty() {
            field::id("message_id", self.message_id)?;
            if self.message_id.starts_with(SEQUENCE_ID_PREFIX) {
                let text =
                    format!("message_id {:?} begins with seq-, which the broker keeps for itself", self.message_id);
                return Err(Rejection::field("message_id", text));
            }
        }
        field::id("from_sandbox_id", self.from_sandbox_id)?;
        field::name("from_agent", self.from_agent)?;
        field::name("to_agent", self.to_agent)?;
        field::name("correlation_id", self.correlation_id)?;
        if self.to_sandbox_id.is_empty() && !self.broadcast {
            let text = "destination is missing; name a sandbox or broadcast";
            return Err(Rejection::field("destination", text));
        }
        match self.message_type {
            1..=4 => {}
            0 => {
                return Err(Rejection::field(
                    "type",
                    "type is missing; it must be request, response, notification or command",
                ));
            }
            other => return Err(Rejection::field("type", format!("type {other} does not exist; it must be 1 to 4"))),
        }
        if self.content_bytes == 0 {
            return Err(Rejection::field("content", "content is empty; a message carries at least one byte"));
        }
        if let Some(priority) = self.priority.filter(|priority| *priority > 9) {
            return Err(Rejection::field("priority", format!("priority is {priority}; it must be 0 to 9")));
        }
        if self.requires_response && !matches!(self.message_type, 1 | 4) {
            let text = "requires_response is set, but only a request or a command can require a response";
            return Err(Rejection::field("requires_response", text));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
