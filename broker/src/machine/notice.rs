//! Tells the sender of a message that requires a response that there will be none, and how an approval ended.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tandem_proto::messaging::v1 as wire;

use super::{
    publish,
    state::{State, StateError},
};
use crate::{
    batch::{self, Kind, MessageRef, NOTIFICATION, RESPONSE, Record},
    command::Publish,
    message,
};

/// The key among the metadata of a response that the broker gives in the place of the recipient.
pub(crate) const ERROR_KEY: &str = "aintandem-error";

/// The key among the metadata of what the broker says about an approval, with its number.
pub(crate) const APPROVAL_KEY: &str = "aintandem-approval";

/// A message in the making.
pub(super) struct Notice {
    pub(super) workspace: u32,
    /// The message that will not be answered.
    pub(super) message: MessageRef,
    /// Who should have answered.
    pub(super) sandbox: String,
    pub(super) code: &'static str,
    pub(super) text: Bytes,
    /// Of an approval that ended: its number, and the sequence that the message has now, if it has one.
    pub(super) approval: Option<(u64, u64)>,
}

impl Notice {
    /// An approval ended. Who waits for a response to what was not approved waits no more.
    pub(super) fn of_approval(
        workspace: u32,
        message: MessageRef,
        code: &'static str,
        text: Bytes,
        approval: (u64, u64),
    ) -> Self {
        let record = message.record();
        let sandbox = if record.kind == Kind::Direct { record.to } else { record.from }.to_owned();
        Self { workspace, message, sandbox, code, text, approval: Some(approval) }
    }

    /// Whether it takes the place of the response.
    fn is_response(&self) -> bool {
        match self.approval {
            Some((_, sequence)) => sequence == 0 && self.message.record().requires_response,
            None => true,
        }
    }

    fn content(&self) -> String {
        let text = quoted(&String::from_utf8_lossy(&self.text));
        match self.approval {
            Some((number, sequence)) => format!(
                "{{\"approval\":\"{}\",\"approval_id\":{number},\"text\":{text},\"sequence\":{sequence}}}",
                self.code
            ),
            None => {
                format!("{{\"error\":\"{}\",\"text\":{text},\"sequence\":{}}}", self.code, self.message.sequence())
            }
        }
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        let error = (ERROR_KEY, self.code.to_owned());
        match self.approval {
            Some((number, 0)) => vec![error, (APPROVAL_KEY, number.to_string())],
            Some((number, _)) => vec![(APPROVAL_KEY, number.to_string())],
            None => vec![error],
        }
    }
}

/// Publishes what was to be told. A sender whose inbox is full or gone is not told: it has its own troubles.
pub(super) fn publish(state: &mut State, notice: Notice) -> Result<(), StateError> {
    let Some(workspace) = state.workspace_name(notice.workspace)? else { return Ok(()) };
    let record = notice.message.record();
    let Ok(view) = message::read(record.body) else { return Ok(()) };
    let (wire_type, message_type) = if notice.is_response() {
        (wire::MessageType::Response, RESPONSE)
    } else {
        (wire::MessageType::Notification, NOTIFICATION)
    };
    // Whoever is gone says nothing any more; how an approval ended its sender hears all the same.
    let gone = notice.approval.is_some() && state.sandbox_number(notice.workspace, &notice.sandbox)?.is_none();
    let from = if notice.sandbox.is_empty() || gone { record.from } else { &notice.sandbox };
    // A word about an approval is no step of the conversation, unless it stands for the response.
    let correlation = if notice.is_response() { record.correlation } else { 0 };
    let destination = wire::destination::Kind::SandboxId(record.from.into());
    let body = wire::Message {
        from_sandbox_id: from.into(),
        destination: Some(wire::Destination { kind: Some(destination) }),
        to_agent: view.from_agent.into(),
        r#type: wire_type.into(),
        content: notice.content().into_bytes().into(),
        content_type: "application/json".into(),
        priority: Some(u32::from(record.priority)),
        correlation_id: view.correlation_id.into(),
        ..wire::Message::default()
    };
    let mut body = body.encode_to_vec();
    for (key, value) in notice.metadata() {
        // One by one: the pairs of a map come in another order on every node.
        let pair = wire::Message { metadata: [(key.to_owned(), value)].into(), ..wire::Message::default() };
        body.extend(pair.encode_to_vec());
    }
    let mut out = BytesMut::with_capacity(body.len() + 128);
    batch::encode_header(state.now_ms(), 1, &mut out);
    Record {
        kind: Kind::Direct,
        priority: record.priority,
        message_type,
        from,
        to: record.from,
        correlation,
        body: &body,
        ..Record::default()
    }
    .encode(&mut out);
    publish::apply_own(state, Publish { workspace, batch: out.freeze() }).map(|_| ())
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if u32::from(control) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
