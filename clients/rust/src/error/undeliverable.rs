//! A response that the broker gives in the recipient's place.

use std::fmt;

use crate::Message;

/// The header that marks such a response; its value is the code.
const HEADER: &str = "aintandem-error";

/// Why a request or command will not be answered: it became a dead letter, or expired; or why a message that was held for approval
/// was not let through.
#[derive(Debug, Clone, PartialEq)]
pub struct Undeliverable {
    /// A stable code in capitals, from the header `aintandem-error`.
    pub code: String,
    /// Why, in plain words.
    pub text: String,
    /// The sequence of the request, which is the one of its dead letter; None when the broker did not say, and for what was never
    /// let through, which has none.
    pub request_sequence: Option<u64>,
    /// The response as it came. Its correlation id is the one of the request.
    pub response: Message,
}

impl Undeliverable {
    /// Reads a message that was received, also one from an inbox: a sender that requires a response is told there as
    /// well. None when the message is one of a participant.
    pub fn from_message(message: &Message) -> Option<Self> {
        let code = message.metadata.get(HEADER)?.clone();
        // `{"error": code, "text": why, "sequence": of the request}`; whatever else it is, it is shown as it came.
        let content: serde_json::Value = serde_json::from_slice(&message.content).unwrap_or_default();
        let text = content
            .get("text")
            .and_then(serde_json::Value::as_str)
            .map_or_else(|| String::from_utf8_lossy(&message.content).into_owned(), str::to_owned);
        let request_sequence =
            content.get("sequence").and_then(serde_json::Value::as_u64).filter(|sequence| *sequence > 0);
        Some(Self { code, text, request_sequence, response: message.clone() })
    }
}

impl fmt::Display for Undeliverable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the request will not be answered ({})", self.code)?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::Error;

    #[test]
    fn only_the_header_makes_a_response_an_error() {
        let content = r#"{"error":"ATTEMPTS_EXHAUSTED","text":"no \"attempt\" succeeded","sequence":41}"#;
        let mut message = Message { content: content.into(), ..Message::default() };
        assert_eq!(Undeliverable::from_message(&message), None);
        message.metadata.insert(HEADER.to_owned(), "ATTEMPTS_EXHAUSTED".to_owned());
        let undeliverable = Undeliverable::from_message(&message).expect("it is marked");
        assert_eq!(undeliverable.request_sequence, Some(41));
        let error = Error::Undeliverable(Box::new(undeliverable));
        assert_eq!((error.reason(), error.code()), ("ATTEMPTS_EXHAUSTED", Code::FailedPrecondition));
        assert!(!error.is_retryable());
        assert_eq!(
            error.to_string(),
            "the request will not be answered (ATTEMPTS_EXHAUSTED): no \"attempt\" succeeded"
        );
    }

    #[test]
    fn a_content_of_another_form_is_shown_as_it_came_and_no_sequence_is_none() {
        for content in ["no attempt succeeded", "[1]", ""] {
            let metadata = [(HEADER.to_owned(), "EXPIRED".to_owned())].into();
            let message = Message { content: content.into(), metadata, ..Message::default() };
            let undeliverable = Undeliverable::from_message(&message).expect("it is marked");
            assert_eq!((undeliverable.text.as_str(), undeliverable.request_sequence), (content, None));
        }
        let content = r#"{"error":"APPROVAL_DENIED","text":"too much","sequence":0}"#;
        let metadata = [(HEADER.to_owned(), "APPROVAL_DENIED".to_owned())].into();
        let undeliverable =
            Undeliverable::from_message(&Message { content: content.into(), metadata, ..Message::default() });
        assert_eq!(
            undeliverable.expect("it is marked").request_sequence,
            None,
            "what was never let through has no sequence"
        );
    }
}
