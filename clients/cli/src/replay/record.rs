//! The lines of a conversation file.

use serde::Deserialize;
use tandem_client::MessageType;

use crate::exit::Failure;

/// Who a turn is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Recipient {
    /// `*`: everyone else in the session.
    Everyone,
    Agent(String),
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    /// Counts from 1.
    pub(super) line: usize,
    pub(super) session: String,
    pub(super) turn: u64,
    pub(super) from: String,
    pub(super) to: Recipient,
    pub(super) kind: MessageType,
    pub(super) content: String,
}

#[derive(Deserialize)]
struct Record {
    session: String,
    turn: u64,
    from_agent: String,
    to_agent: String,
    message_type: Kind,
    content: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Request,
    Response,
    Notification,
    Command,
}

/// All turns in the order of the lines; empty lines are skipped.
pub(super) fn parse(text: &str) -> Result<Vec<Turn>, Failure> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let turns: Vec<_> = lines.map(|(index, line)| turn(index + 1, line)).collect::<Result<_, _>>()?;
    if turns.is_empty() {
        return Err(Failure::failed("BAD_RECORD", "the file has no turns"));
    }
    Ok(turns)
}

pub(super) fn bad(line: usize, what: impl std::fmt::Display) -> Failure {
    Failure::failed("BAD_RECORD", format!("line {line}: {what}"))
}

fn turn(line: usize, text: &str) -> Result<Turn, Failure> {
    let record: Record = serde_json::from_str(text).map_err(|error| {
        // The position within the line helps; its line number, always 1, would not.
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        bad(line, format!("{what} (column {})", error.column()))
    })?;
    let names = [("session", &record.session), ("from_agent", &record.from_agent), ("to_agent", &record.to_agent)];
    if let Some((field, _)) = names.into_iter().find(|(_, name)| name.is_empty()) {
        return Err(bad(line, format!("{field} is empty")));
    }
    if record.from_agent == "*" {
        return Err(bad(line, "from_agent is *, which stands for everyone else; name the agent that speaks"));
    }
    Ok(Turn {
        line,
        session: record.session,
        turn: record.turn,
        from: record.from_agent,
        to: if record.to_agent == "*" { Recipient::Everyone } else { Recipient::Agent(record.to_agent) },
        kind: match record.message_type {
            Kind::Request => MessageType::Request,
            Kind::Response => MessageType::Response,
            Kind::Notification => MessageType::Notification,
            Kind::Command => MessageType::Command,
        },
        content: record.content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        r#"{"session":"s","turn":0,"from_agent":"a","to_agent":"*","message_type":"request","content":"hi","more":1}"#;

    #[test]
    fn a_line_is_a_turn() {
        let turns = parse(&format!("\n{GOOD}\n")).expect("it parses");
        assert_eq!((turns[0].line, &turns[0].to, turns[0].kind), (2, &Recipient::Everyone, MessageType::Request));
    }

    #[test]
    fn bad_lines_are_named() {
        let cases = [
            ("{", "line 2: EOF while parsing an object (column 1)"),
            ("[]", "line 2: invalid length 0, expected struct Record with 6 elements (column 2)"),
            (r#"{"session":"s"}"#, "line 2: missing field `turn` (column 15)"),
            (&GOOD.replace("request", "gossip"), "line 2: unknown variant `gossip`, expected one of"),
            (&GOOD.replace(r#""turn":0"#, r#""turn":-1"#), "line 2: invalid value: integer `-1`, expected u64"),
            (&GOOD.replace(r#":"a""#, r#":"""#), "line 2: from_agent is empty"),
            (&GOOD.replace(r#":"a""#, r#":"*""#), "line 2: from_agent is *"),
        ];
        for (line, expected) in cases {
            let failure = parse(&format!("{GOOD}\n{line}\n")).expect_err("it must be refused");
            assert!(failure.to_string().starts_with(expected), "{failure}\nexpected {expected}");
            assert_eq!(failure.exit_code(), 1);
        }
        assert!(parse(" \n").is_err());
    }
}
