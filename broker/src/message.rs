//! Reads an encoded `Message` where it lies, checks every field, and makes the record that is stored.
//!
//! By hand and without allocation: this runs once for each message published. What a generated reader would accept and
//! this does not is refused with the field's name; nothing is ignored.

mod said;
mod wire;

use bytes::BytesMut;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128};

pub(crate) use self::said::Said;
pub(crate) use self::wire::put_varint;
use self::wire::{Fields, Value};
use crate::{
    batch::{Kind, Record},
    config::Limits,
    field::{self, MapBudget},
    machine::{
        keys::ordering_hash,
        notice::{APPROVAL_KEY, ERROR_KEY},
    },
    rejection::{Reason, Rejection},
    sealing::content_bytes,
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
    pub(crate) to: Destination<'a>,
    pub(crate) to_agent: &'a str,
    pub(crate) correlation_id: &'a str,
    pub(crate) message_type: u64,
    content_bytes: usize,
    priority: Option<u64>,
    requires_response: bool,
    dead_letter_on_expiry: bool,
    ttl_ms: Option<u64>,
    not_before_ms: Option<u64>,
    pub(crate) ordering_key: &'a str,
    /// The metadata hold the key under which the broker says that it answers itself.
    claims_to_be_the_broker: bool,
}

/// Where a message goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Destination<'a> {
    #[default]
    Missing,
    Sandbox(&'a str),
    Topic(&'a str),
    Broadcast,
    Capability(Capability<'a>),
}

/// Sandboxes with a capability.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Capability<'a> {
    pub(crate) name: &'a str,
    pub(crate) all: bool,
    pub(crate) wait: bool,
}

/// What the edge knows of a publish beside the message.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Envelope<'a> {
    /// Of the workspace, for messages without a ttl of their own, in milliseconds; 0 for none.
    pub(crate) default_ttl_ms: u64,
    /// Hash of the producer id, 0 without one, and the position of this message.
    pub(crate) producer: (u128, u64),
    /// The caller waits this long for the response, in milliseconds; 0: it does not.
    pub(crate) reply_timeout_ms: u64,
    /// Who was chosen for a message to a capability: one by name, or several by number, each four bytes.
    pub(crate) chosen: Chosen<'a>,
    /// The clock of this node, to judge how far away a time is.
    pub(crate) now_ms: u64,
}

/// Who gets a message to a capability.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Chosen<'a> {
    #[default]
    Nobody,
    One(&'a str),
    Several(&'a [u8]),
}

/// The longest ttl and delay, in milliseconds: 366 days.
const MAX_WAIT_MS: u64 = 366 * 24 * 3_600_000;

/// The field `traceparent`.
const TRACEPARENT: u64 = 16;
/// The field `content`.
pub(crate) const CONTENT: u64 = 7;
/// A field that the broker stores in place of the content where that is encrypted. No client sends it or sees it.
pub(crate) const SEALED: u64 = 99;
/// The priority of a message that names none.
const DEFAULT_PRIORITY: u64 = 5;

/// Whether the content of a stored message is encrypted.
pub(crate) fn is_sealed(body: &[u8]) -> bool {
    // The tag of the field, which is the first one then.
    body.starts_with(&[0x9a, 0x06])
}

/// A field of a message, as it is last, and all others.
pub(crate) fn without(body: &[u8], number: u64) -> Result<(&[u8], Vec<u8>), Rejection> {
    let (mut found, mut others) = (&[][..], Vec::with_capacity(body.len()));
    let mut fields = Fields::new("message", body);
    loop {
        let before = fields.rest();
        match fields.next().transpose()? {
            None => return Ok((found, others)),
            Some((at, value)) if at == number => found = value.bytes("content")?,
            Some(_) => others.extend_from_slice(&before[..before.len() - fields.rest().len()]),
        }
    }
}

/// Appends a field of bytes.
pub(crate) fn put_field(out: &mut BytesMut, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Checks a message that a client sends.
pub(crate) fn check<'a>(body: &'a [u8], limits: &Limits, now_ms: u64) -> Result<MessageView<'a>, Rejection> {
    if body.len() > limits.max_message_bytes {
        let text = format!(
            "the message has {} bytes; at most {} are allowed: send a reference to the content instead",
            body.len(),
            limits.max_message_bytes
        );
        return Err(Rejection { reason: Reason::MessageTooLarge, text, field: "message".into(), retry_ms: 0 });
    }
    if is_sealed(body) {
        return Err(Rejection::unsupported("message", "the message has a field 99 that this version does not know"));
    }
    let view = read(body)?;
    view.check()?;
    view.check_waiting(now_ms)?;
    Ok(view)
}

/// Checks a message that a client sends and appends its record.
pub(crate) fn encode_record(
    body: &[u8],
    limits: &Limits,
    envelope: &Envelope<'_>,
    out: &mut BytesMut,
) -> Result<(), Rejection> {
    let view = check(body, limits, envelope.now_ms)?;
    view.encode(body, envelope, out)
}

impl MessageView<'_> {
    /// Appends the record of a message that was checked.
    pub(crate) fn encode(&self, body: &[u8], envelope: &Envelope<'_>, out: &mut BytesMut) -> Result<(), Rejection> {
        let (kind, to, recipients): (_, _, &[u8]) = match (self.to, envelope.chosen) {
            (Destination::Sandbox(to), _) => (Kind::Direct, to, &[]),
            (Destination::Topic(topic), _) => (Kind::Topic, topic, &[]),
            (Destination::Capability(_), Chosen::One(to)) => (Kind::Direct, to, &[]),
            (Destination::Capability(_), Chosen::Several(recipients)) => (Kind::Several, "", recipients),
            (Destination::Capability(wanted), Chosen::Nobody) if wanted.wait => (Kind::Wanted, wanted.name, &[]),
            (Destination::Capability(wanted), Chosen::Nobody) => {
                return Err(Rejection::no_capable_sandbox(wanted.name));
            }
            (Destination::Broadcast | Destination::Missing, _) => (Kind::Broadcast, "", &[]),
        };
        let needs_digest = !self.message_id.is_empty() || envelope.reply_timeout_ms > 0;
        let hash = |text: &str| if text.is_empty() { 0 } else { xxh3_128(text.as_bytes()) };
        Record {
            kind,
            priority: self.priority.unwrap_or(DEFAULT_PRIORITY) as u8,
            message_type: self.message_type as u8,
            hops: 0,
            requires_response: self.requires_response || envelope.reply_timeout_ms > 0,
            dead_letter_on_expiry: self.dead_letter_on_expiry,
            from: self.from_sandbox_id,
            to,
            id: self.message_id,
            digest: if needs_digest { digest(body)? } else { 0 },
            ttl_ms: self.ttl_ms.unwrap_or(envelope.default_ttl_ms),
            not_before_ms: self.not_before_ms.unwrap_or(0),
            ordering: if self.ordering_key.is_empty() { 0 } else { ordering_hash(self.ordering_key) },
            correlation: hash(self.correlation_id),
            producer: envelope.producer,
            reply_timeout_ms: envelope.reply_timeout_ms,
            recipients,
            body,
        }
        .encode(out);
        Ok(())
    }

    /// Checks what says when a message may be delivered.
    fn check_waiting(&self, now_ms: u64) -> Result<(), Rejection> {
        if let Some(ttl_ms) = self.ttl_ms.filter(|ttl_ms| !(1_000..=MAX_WAIT_MS).contains(ttl_ms)) {
            let text = format!("ttl is {ttl_ms} ms; it must be 1 s to 366 days");
            return Err(Rejection::field("ttl", text));
        }
        let to_one = matches!(self.to, Destination::Sandbox(_) | Destination::Capability(_));
        if let Some(not_before_ms) = self.not_before_ms {
            if !to_one {
                let text = "not_before is set; only a message to a sandbox or to a capability can be delayed";
                return Err(Rejection::field("not_before", text));
            }
            if not_before_ms > now_ms.saturating_add(MAX_WAIT_MS) {
                let text = format!("not_before is {} ms away; at most 366 days are allowed", not_before_ms - now_ms);
                return Err(Rejection::field("not_before", text));
            }
        }
        if self.dead_letter_on_expiry && !to_one {
            let text = "dead_letter_on_expiry is set; only a message to a sandbox or to a capability can become a dead letter so";
            return Err(Rejection::field("dead_letter_on_expiry", text));
        }
        Ok(())
    }
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
            // Anything more would tell what it says.
            Value::Bytes(bytes) if number == SEALED => content_bytes(bytes) as u64,
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
            4 => {
                let to = read_destination(value.bytes("destination")?)?;
                if view.to != Destination::Missing {
                    let text = "destination is there twice; who reads the message might take either";
                    return Err(Rejection::field("destination", text));
                }
                view.to = to;
            }
            5 => view.to_agent = value.text("to_agent")?,
            6 => view.message_type = value.varint("type")?,
            CONTENT => view.content_bytes = value.bytes("content")?.len(),
            SEALED if is_sealed(body) => view.content_bytes = content_bytes(value.bytes("content")?),
            8 => drop(field::name("content_type", value.text("content_type")?)?),
            9 => view.priority = Some(value.varint("priority")?),
            10 => view.requires_response = value.varint("requires_response")? != 0,
            11 => view.correlation_id = value.text("correlation_id")?,
            12 => view.ttl_ms = Some(read_duration("ttl", value.bytes("ttl")?)?),
            13 => {
                let key = read_metadata(value.bytes("metadata")?, &mut metadata)?;
                view.claims_to_be_the_broker |= key == ERROR_KEY || key == APPROVAL_KEY;
            }
            14 => view.ordering_key = field::name("ordering_key", value.text("ordering_key")?)?,
            15 => view.not_before_ms = Some(read_duration("not_before", value.bytes("not_before")?)?),
            TRACEPARENT => read_traceparent(value.text("traceparent")?)?,
            20 => view.dead_letter_on_expiry = value.varint("dead_letter_on_expiry")? != 0,
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

fn read_destination(bytes: &[u8]) -> Result<Destination<'_>, Rejection> {
    let mut to = Destination::Missing;
    for entry in Fields::new("destination", bytes) {
        let (number, value) = entry?;
        if to != Destination::Missing {
            return Err(Rejection::field("destination", "the destination names two; a message goes to one"));
        }
        to = match number {
            1 => Destination::Sandbox(field::id("destination.sandbox_id", value.text("destination.sandbox_id")?)?),
            2 => Destination::Topic(field::topic("destination.topic", value.text("destination.topic")?)?),
            3 if value.bytes("destination.broadcast")?.is_empty() => Destination::Broadcast,
            4 => Destination::Capability(read_capability(value.bytes("destination.capability")?)?),
            _ => {
                let text = format!("the destination has a field {number} that this version does not know");
                return Err(Rejection::unsupported("destination", text));
            }
        };
    }
    Ok(to)
}

fn read_capability(bytes: &[u8]) -> Result<Capability<'_>, Rejection> {
    const FIELD: &str = "destination.capability";
    let mut capability = Capability::default();
    for entry in Fields::new(FIELD, bytes) {
        match entry? {
            (1, value) => capability.name = field::name(FIELD, value.text(FIELD)?)?,
            (2, value) => capability.all = value.varint(FIELD)? != 0,
            (3, value) => capability.wait = value.varint(FIELD)? != 0,
            (number, _) => {
                let text = format!("the capability has a field {number} that this version does not know");
                return Err(Rejection::unsupported(FIELD, text));
            }
        }
    }
    if capability.name.is_empty() {
        return Err(Rejection::field(FIELD, "destination.capability names no capability"));
    }
    if capability.all && capability.wait {
        let text =
            "destination.capability has both all and wait set; all are those there are, so there is nobody to wait for";
        return Err(Rejection::field(FIELD, text));
    }
    Ok(capability)
}

/// A duration or a time, in milliseconds, rounded up.
fn read_duration(name: &'static str, bytes: &[u8]) -> Result<u64, Rejection> {
    let (mut seconds, mut nanos) = (0_u64, 0_u64);
    for entry in Fields::new(name, bytes) {
        match entry? {
            (1, value) => seconds = value.varint(name)?,
            (2, value) => nanos = value.varint(name)?,
            (number, _) => {
                let text = format!("{name} has a field {number} that this version does not know");
                return Err(Rejection::unsupported(name, text));
            }
        }
    }
    let whole = seconds.checked_mul(1000).filter(|_| nanos < 1_000_000_000 && seconds <= 253_402_300_799);
    whole.map(|whole| whole + nanos.div_ceil(1_000_000)).ok_or_else(|| {
        let text = format!("{name} has {seconds} s and {nanos} ns (as unsigned numbers), which is no time that can be");
        Rejection::field(name, text)
    })
}

/// Counts a pair, and returns its key.
fn read_metadata<'a>(bytes: &'a [u8], budget: &mut MapBudget) -> Result<&'a str, Rejection> {
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
    budget.add("metadata", key, text)?;
    Ok(key)
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
        if self.to == Destination::Missing {
            let text = "destination is missing; name a sandbox, a topic, a capability, or broadcast";
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
        if self.claims_to_be_the_broker {
            let text = format!(
                "metadata has the key {ERROR_KEY:?} or {APPROVAL_KEY:?}, which the broker keeps for what it says itself; \
                 choose another key"
            );
            return Err(Rejection::field("metadata", text));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
