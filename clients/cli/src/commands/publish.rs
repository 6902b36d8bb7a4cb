//! `tandem pub`.

use std::{
    fs,
    io::{self, Read as _},
};

use serde::de::IgnoredAny;
use serde_json::json;
use tandem_client::{
    Destination, Message, MessageType, broadcast, to_capability, to_capability_all, to_capability_or_wait, to_sandbox,
    to_topic, wire_duration, wire_time,
};

use crate::{
    args::{MessageArgs, PubArgs},
    clock,
    exit::Failure,
    run::Context,
};

pub(crate) async fn run(context: &Context, args: PubArgs) -> Result<(), Failure> {
    let destination = destination(&args)?;
    let mut message = message(args.message, destination, args.kind.into())?;
    message.requires_response = args.requires_response;
    let receipt = context.client()?.publisher(context.workspace.as_str()).publish(message).await?;
    let time = humantime::format_rfc3339_millis(receipt.server_time).to_string();
    context.output.result(
        || {
            json!({
                "sequence": receipt.sequence, "message_id": receipt.message_id, "server_time": time,
                "duplicate": receipt.duplicate, "approval_id": receipt.approval_id,
            })
        },
        || {
            if let Some(approval) = receipt.approval_id {
                return format!("held for approval {approval}; it is published once somebody approves it");
            }
            let what = if receipt.duplicate { "published before as" } else { "published" };
            format!("{what} #{} {}", receipt.sequence, receipt.message_id)
        },
    )
}

fn content(args: &MessageArgs) -> Result<Vec<u8>, Failure> {
    if let Some(path) = &args.file {
        return fs::read(path).map_err(|error| Failure::file(path, &error));
    }
    match args.content.as_deref() {
        Some("-") => {
            let mut content = Vec::new();
            io::stdin()
                .read_to_end(&mut content)
                .map_err(|error| Failure::failed("FILE_UNREADABLE", format!("cannot read standard input: {error}")))?;
            Ok(content)
        }
        Some(text) => Ok(text.as_bytes().to_vec()),
        None => Err(Failure::usage("give the content, or --file")),
    }
}

fn destination(args: &PubArgs) -> Result<Destination, Failure> {
    match (&args.to, args.broadcast, &args.topic, &args.capability) {
        (Some(sandbox), false, None, None) => Ok(to_sandbox(sandbox)),
        (None, true, None, None) => Ok(broadcast()),
        (None, false, Some(topic), None) => Ok(to_topic(topic)),
        (None, false, None, Some(capability)) if args.all_capable => Ok(to_capability_all(capability)),
        (None, false, None, Some(capability)) if args.wait_for_capable => Ok(to_capability_or_wait(capability)),
        (None, false, None, Some(capability)) => Ok(to_capability(capability)),
        _ => Err(Failure::usage("give one of --to, --broadcast, --topic and --capability")),
    }
}

/// The message that the arguments describe; reads its content.
pub(super) fn message(args: MessageArgs, destination: Destination, kind: MessageType) -> Result<Message, Failure> {
    let content = content(&args)?;
    let not_before = match args.delay {
        Some(delay) => Some(
            clock::now()
                .checked_add(delay)
                .ok_or_else(|| Failure::usage(format!("--delay {} is too long", humantime::format_duration(delay))))?,
        ),
        None => args.not_before,
    };
    Ok(Message {
        message_id: args.id.unwrap_or_default(),
        from_sandbox_id: args.from,
        from_agent: args.from_agent.unwrap_or_default(),
        destination: Some(destination),
        to_agent: args.to_agent.unwrap_or_default(),
        r#type: kind.into(),
        content_type: args.content_type.unwrap_or_else(|| content_type(&content).to_owned()),
        content: content.into(),
        priority: args.priority,
        correlation_id: args.correlation_id.unwrap_or_default(),
        metadata: args.metadata.into_iter().map(|pair| (pair.key, pair.value)).collect(),
        traceparent: args.traceparent.unwrap_or_default(),
        ttl: args.ttl.map(wire_duration),
        not_before: not_before.map(wire_time),
        ordering_key: args.key.unwrap_or_default(),
        dead_letter_on_expiry: args.dead_letter_on_expiry,
        ..Message::default()
    })
}

fn content_type(content: &[u8]) -> &'static str {
    if serde_json::from_slice::<IgnoredAny>(content).is_ok() {
        "application/json"
    } else if std::str::from_utf8(content).is_ok() {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}

#[cfg(test)]
mod tests {
    use super::content_type;

    #[test]
    fn content_types_follow_the_content() {
        assert_eq!(content_type(b" {\"a\": [1]} "), "application/json");
        assert_eq!(content_type(b"\"x\""), "application/json");
        assert_eq!(content_type("h\u{e9}llo {".as_bytes()), "text/plain; charset=utf-8");
        assert_eq!(content_type(&[0xff]), "application/octet-stream");
    }
}
