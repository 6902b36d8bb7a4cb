//! What a session will do, and who must get what.

use std::collections::HashMap;

use tandem_client::{Agent, Destination, Message, MessageType, Sandbox, broadcast, to_sandbox};

use super::{
    names::Names,
    record::{self, Recipient, Turn},
};
use crate::exit::Failure;

/// One session of the file.
#[derive(Debug)]
pub(super) struct SessionPlan {
    /// Its name in the file.
    pub(super) session: String,
    /// The workspace that it gets.
    pub(super) workspace_id: String,
    /// Sandbox ids and agent names.
    pub(super) sandboxes: Vec<(String, String)>,
    /// In the order of turns.
    pub(super) turns: Vec<PlannedTurn>,
}

/// One message.
#[derive(Debug)]
pub(super) struct PlannedTurn {
    pub(super) turn: u64,
    /// Index into `sandboxes`.
    pub(super) from: usize,
    /// None is everyone else.
    pub(super) to: Option<usize>,
    pub(super) kind: MessageType,
    pub(super) content: String,
}

/// Groups turns into sessions, in the order in which sessions begin, each sorted by turn.
pub(super) fn sessions(turns: Vec<Turn>, run_id: &str) -> Result<Vec<SessionPlan>, Failure> {
    let mut by_session: HashMap<String, usize> = HashMap::new();
    let mut grouped: Vec<Vec<Turn>> = Vec::new();
    for turn in turns {
        let index = *by_session.entry(turn.session.clone()).or_insert(grouped.len());
        if index == grouped.len() {
            grouped.push(Vec::new());
        }
        grouped[index].push(turn);
    }
    grouped.into_iter().enumerate().map(|(n, turns)| plan(turns, format!("replay-{run_id}-{n}"))).collect()
}

fn plan(mut turns: Vec<Turn>, workspace_id: String) -> Result<SessionPlan, Failure> {
    turns.sort_by_key(|turn| turn.turn);
    if let Some([first, second]) = turns.array_windows().find(|[first, second]| first.turn == second.turn) {
        let what = format!("turn {} of session {} stands in line {} already", second.turn, second.session, first.line);
        return Err(record::bad(second.line, what));
    }
    let session = turns.first().map(|turn| turn.session.clone()).unwrap_or_default();
    let mut names = Names::default();
    let turns = turns
        .into_iter()
        .map(|turn| PlannedTurn {
            turn: turn.turn,
            from: names.index(&turn.from),
            to: match &turn.to {
                Recipient::Everyone => None,
                Recipient::Agent(name) => Some(names.index(name)),
            },
            kind: turn.kind,
            content: turn.content,
        })
        .collect();
    Ok(SessionPlan { session, workspace_id, sandboxes: names.into_ids(), turns })
}

impl SessionPlan {
    /// The turns that this sandbox must get, in order: those for it, also from itself, and those of others for everyone.
    pub(super) fn expected(&self, sandbox: usize) -> Vec<usize> {
        let is_for = |turn: &PlannedTurn| turn.to.map_or(turn.from != sandbox, |to| to == sandbox);
        self.turns.iter().enumerate().filter(|(_, turn)| is_for(turn)).map(|(index, _)| index).collect()
    }

    /// Turns without content.
    pub(super) fn empty_turns(&self) -> usize {
        self.turns.iter().filter(|turn| turn.content.is_empty()).count()
    }

    pub(super) fn sandbox(&self, index: usize) -> Sandbox {
        let (id, name) = &self.sandboxes[index];
        let agent = Agent { name: fitting(name), ..Agent::default() };
        Sandbox { sandbox_id: id.clone(), agents: vec![agent], ..Sandbox::default() }
    }

    /// The message of a turn. Its id says which turn it is.
    pub(super) fn message(&self, index: usize) -> Message {
        let turn = &self.turns[index];
        let (content, content_type) = payload(&turn.content);
        Message {
            message_id: message_id(index),
            from_sandbox_id: self.sandboxes[turn.from].0.clone(),
            from_agent: fitting(&self.sandboxes[turn.from].1),
            destination: Some(self.destination(turn)),
            to_agent: turn.to.map(|to| fitting(&self.sandboxes[to].1)).unwrap_or_default(),
            r#type: turn.kind.into(),
            content: content.to_owned().into(),
            content_type: content_type.to_owned(),
            // One conversation; its name in the file may be longer than the broker takes.
            correlation_id: self.workspace_id.clone(),
            ..Message::default()
        }
    }

    fn destination(&self, turn: &PlannedTurn) -> Destination {
        turn.to.map_or_else(broadcast, |to| to_sandbox(self.sandboxes[to].0.as_str()))
    }
}

/// Brokers refuse empty content: an empty text goes out as JSON, where it takes two bytes.
pub(super) fn payload(content: &str) -> (&str, &'static str) {
    if content.is_empty() { ("\"\"", "application/json") } else { (content, "text/plain; charset=utf-8") }
}

pub(super) fn message_id(index: usize) -> String {
    format!("turn-{index}")
}

/// Which turn a message is.
pub(super) fn turn_index(message_id: &str) -> Option<usize> {
    message_id.strip_prefix("turn-")?.parse().ok()
}

/// An agent name, cut to what the broker takes.
fn fitting(name: &str) -> String {
    const MAX_BYTES: usize = 128;
    let end = (0..=name.len().min(MAX_BYTES)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(session: &str, number: u64, from: &str, to: &str) -> Turn {
        Turn {
            line: number as usize + 1,
            session: session.to_owned(),
            turn: number,
            from: from.to_owned(),
            to: if to == "*" { Recipient::Everyone } else { Recipient::Agent(to.to_owned()) },
            kind: MessageType::Notification,
            content: String::new(),
        }
    }

    #[test]
    fn everyone_who_is_named_takes_part() {
        let turns = vec![
            turn("one", 1, "b", "a"),
            turn("two", 0, "x", "*"),
            turn("one", 0, "a", "*"),
            turn("one", 2, "a", "silent"),
            turn("one", 3, "a", "a"),
        ];
        let plans = sessions(turns, "id").expect("plans");
        assert_eq!(
            plans.iter().map(|plan| plan.workspace_id.as_str()).collect::<Vec<_>>(),
            ["replay-id-0", "replay-id-1"]
        );
        let one = &plans[0];
        assert_eq!(one.turns.iter().map(|turn| turn.turn).collect::<Vec<_>>(), [0, 1, 2, 3]);
        // a, b and silent: the first turn reaches b and silent, the last one its sender.
        assert_eq!([0, 1, 2].map(|sandbox| one.expected(sandbox)), [vec![1, 3], vec![0], vec![0, 2]]);
        assert_eq!(plans[1].expected(0), Vec::<usize>::new());
        assert_eq!(one.empty_turns(), 4);
        let message = one.message(1);
        assert_eq!((message.content.as_ref(), turn_index(&message.message_id)), (b"\"\"".as_ref(), Some(1)));
    }

    #[test]
    fn a_turn_that_stands_twice_is_refused() {
        let failure = sessions(vec![turn("one", 4, "a", "*"), turn("one", 4, "a", "*")], "id").expect_err("refused");
        assert_eq!(failure.to_string(), "line 5: turn 4 of session one stands in line 5 already");
    }

    #[test]
    fn names_are_cut_between_letters() {
        assert_eq!(fitting(&"\u{e4}".repeat(100)).len(), 128);
        assert_eq!(fitting(&format!("a{}", "\u{e4}".repeat(100))).len(), 127);
        assert_eq!(fitting("short"), "short");
    }
}
