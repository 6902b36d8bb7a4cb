//! A dead letter, as JSON, as a row and as text.

use serde_json::{Value, json};
use tandem_client::{DeadLetter, FailedAttempt};

use super::{message, table, time, word};

/// Of [`row`].
pub(crate) const HEADINGS: [&str; 7] = ["SANDBOX", "SEQUENCE", "REASON", "DEAD", "FROM", "ATTEMPTS", "WHY"];

/// The message, and how it came here.
pub(crate) fn json(letter: &DeadLetter) -> Value {
    let attempts = letter.attempts.iter().map(|attempt| {
        json!({
            "attempt": attempt.attempt, "time": time(attempt.time), "error": error_name(attempt), "text": attempt.text,
        })
    });
    json!({
        "sandbox_id": letter.sandbox_id, "reason": reason_name(letter), "reason_text": letter.reason_text,
        "dead_time": time(letter.dead_time), "attempts": attempts.collect::<Vec<_>>(), "chain": letter.chain,
        "message": letter.message.as_ref().map(message::json),
    })
}

/// The facts of a list.
pub(crate) fn row(letter: &DeadLetter) -> Vec<String> {
    let message = letter.message.as_ref();
    vec![
        letter.sandbox_id.clone(),
        message.map(|message| message.sequence.to_string()).unwrap_or_default(),
        reason_name(letter),
        time(letter.dead_time),
        message.map(|message| message.from_sandbox_id.clone()).unwrap_or_default(),
        letter.attempts.len().to_string(),
        letter.reason_text.replace('\n', " "),
    ]
}

/// Why it is dead, its attempts, then the message.
pub(crate) fn text(letter: &DeadLetter) -> String {
    let mut head =
        format!("left the inbox of {} {}: {}", letter.sandbox_id, time(letter.dead_time), reason_name(letter));
    if !letter.reason_text.is_empty() {
        head += &format!(" ({})", letter.reason_text);
    }
    let mut parts = vec![head];
    if !letter.chain.is_empty() {
        let chain: Vec<_> = letter.chain.iter().map(|sequence| format!("#{sequence}")).collect();
        parts.push(format!("conversation: {}", chain.join(" -> ")));
    }
    if !letter.attempts.is_empty() {
        let rows = letter.attempts.iter().map(|attempt| {
            vec![attempt.attempt.to_string(), time(attempt.time), error_name(attempt), attempt.text.clone()]
        });
        parts.push(table(&["ATTEMPT", "FAILED", "ERROR", "WHY"], rows));
    }
    parts.extend(letter.message.as_ref().map(message::text));
    parts.join("\n")
}

fn reason_name(letter: &DeadLetter) -> String {
    word(letter.reason().as_str_name(), "DEAD_LETTER_REASON_")
}

fn error_name(attempt: &FailedAttempt) -> String {
    word(attempt.error().as_str_name(), "ATTEMPT_ERROR_")
}

#[cfg(test)]
mod tests {
    use tandem_client::{AttemptError, DeadLetterReason, Message};

    use super::*;

    #[test]
    fn both_forms_tell_reason_attempts_and_message() {
        let attempt =
            FailedAttempt { attempt: 1, error: AttemptError::StreamBroken.into(), ..FailedAttempt::default() };
        let letter = DeadLetter {
            sandbox_id: "bob".into(),
            message: Some(Message { sequence: 7, from_sandbox_id: "alice".into(), ..Message::default() }),
            reason: DeadLetterReason::AttemptsExhausted.into(),
            reason_text: "no luck".into(),
            attempts: vec![attempt],
            chain: vec![3, 7],
            ..DeadLetter::default()
        };
        let json = json(&letter);
        assert_eq!(
            (json["reason"].as_str(), json["message"]["sequence"].as_u64()),
            (Some("attempts-exhausted"), Some(7))
        );
        assert_eq!(json["attempts"][0]["error"].as_str(), Some("stream-broken"));
        assert_eq!(row(&letter), ["bob", "7", "attempts-exhausted", "", "alice", "1", "no luck"]);
        let text = text(&letter);
        assert!(text.starts_with("left the inbox of bob : attempts-exhausted (no luck)\nconversation: #3 -> #7\n"));
        assert!(text.contains("stream-broken") && text.contains("\n#7 "), "{text}");
    }
}
