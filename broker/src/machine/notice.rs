//! Tells the sender of a message that requires a response that there will be none.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tandem_proto::messaging::v1 as wire;

use super::{
    publish,
    state::{State, StateError},
};
use crate::{
    batch::{self, Kind, MessageRef, RESPONSE, Record},
    command::Publish,
    message,
};

/// The key among the metadata of a response that the broker gives in the place of the recipient.
pub(crate) const ERROR_KEY: &str = "aintandem-error";

/// A response in the making.
pub(super) struct Notice {
    pub(super) workspace: u32,
    /// The message that will not be answered.
    pub(super) message: MessageRef,
    /// Who should have answered.
    pub(super) sandbox: String,
    pub(super) code: &'static str,
    pub(super) text: Bytes,
}

/// Publishes what was to be told. A sender whose inbox is full or gone is not told: it has its own troubles.
pub(super) fn publish(state: &mut State, notice: Notice) -> Result<(), StateError> {
    let Some(workspace) = state.workspace_name(notice.workspace)? else { return Ok(()) };
    let record = notice.message.record();
    let Ok(view) = message::read(record.body) else { return Ok(()) };
    let text = String::from_utf8_lossy(&notice.text);
    let content = format!(
        "{{\"error\":\"{}\",\"text\":{},\"sequence\":{}}}",
        notice.code,
        quoted(&text),
        notice.message.sequence()
    );
    let from = if notice.sandbox.is_empty() { record.from } else { &notice.sandbox };
    let destination = wire::destination::Kind::SandboxId(record.from.into());
    let body = wire::Message {
        from_sandbox_id: from.into(),
        destination: Some(wire::Destination { kind: Some(destination) }),
        to_agent: view.from_agent.into(),
        r#type: wire::MessageType::Response.into(),
        content: content.into_bytes().into(),
        content_type: "application/json".into(),
        priority: Some(u32::from(record.priority)),
        correlation_id: view.correlation_id.into(),
        metadata: [(ERROR_KEY.to_owned(), notice.code.to_owned())].into(),
        ..wire::Message::default()
    };
    let body = body.encode_to_vec();
    let mut out = BytesMut::with_capacity(body.len() + 128);
    batch::encode_header(state.now_ms(), 1, &mut out);
    Record {
        kind: Kind::Direct,
        priority: record.priority,
        message_type: RESPONSE,
        from,
        to: record.from,
        correlation: record.correlation,
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
