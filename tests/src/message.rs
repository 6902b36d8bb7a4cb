//! Messages in one word.

use tandem_client::{Message, MessageType, to_sandbox};

/// A notification from one sandbox to another.
pub fn direct(from: &str, to: &str, content: impl Into<String>) -> Message {
    Message {
        from_sandbox_id: from.to_owned(),
        destination: Some(to_sandbox(to)),
        r#type: MessageType::Notification.into(),
        content: content.into().into(),
        ..Message::default()
    }
}

/// A notification to all others.
pub fn broadcast(from: &str, content: impl Into<String>) -> Message {
    Message { destination: Some(tandem_client::broadcast()), ..direct(from, "", content) }
}

/// The same with an id.
pub fn named(id: impl Into<String>, message: Message) -> Message {
    Message { message_id: id.into(), ..message }
}

/// The same with a priority.
pub fn at_priority(priority: u32, message: Message) -> Message {
    Message { priority: Some(priority), ..message }
}
