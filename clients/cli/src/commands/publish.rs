//! `tandem pub`.

use std::{
    fs,
    io::{self, Read as _},
};

use serde::de::IgnoredAny;
use serde_json::json;
use tandem_client::{Message, MessageType, broadcast, to_sandbox};

use crate::{args::PubArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: PubArgs) -> Result<(), Failure> {
    let content = content(&args)?;
    let message = message(args, content)?;
    let receipt = context.client()?.publisher(context.workspace.as_str()).publish(message).await?;
    let time = humantime::format_rfc3339_millis(receipt.server_time).to_string();
    context.output.result(
        || {
            json!({
                "sequence": receipt.sequence, "message_id": receipt.message_id, "server_time": time,
                "duplicate": receipt.duplicate,
            })
        },
        || {
            let what = if receipt.duplicate { "published before as" } else { "published" };
            format!("{what} #{} {}", receipt.sequence, receipt.message_id)
        },
    )
}

fn content(args: &PubArgs) -> Result<Vec<u8>, Failure> {
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

fn message(args: PubArgs, content: Vec<u8>) -> Result<Message, Failure> {
    let destination = match (args.to, args.broadcast) {
        (Some(sandbox), false) => to_sandbox(sandbox),
        (None, true) => broadcast(),
        _ => return Err(Failure::usage("give either --to or --broadcast")),
    };
    Ok(Message {
        message_id: args.id.unwrap_or_default(),
        from_sandbox_id: args.from,
        from_agent: args.from_agent.unwrap_or_default(),
        destination: Some(destination),
        to_agent: args.to_agent.unwrap_or_default(),
        r#type: MessageType::from(args.kind).into(),
        content_type: args.content_type.unwrap_or_else(|| content_type(&content).to_owned()),
        content: content.into(),
        priority: args.priority,
        requires_response: args.requires_response,
        correlation_id: args.correlation_id.unwrap_or_default(),
        metadata: args.metadata.into_iter().map(|pair| (pair.key, pair.value)).collect(),
        traceparent: args.traceparent.unwrap_or_default(),
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
