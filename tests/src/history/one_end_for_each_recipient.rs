//! Every accepted message ends, for each of its recipients, in exactly one way: acknowledged, a dead letter, still waiting, or
//! expired. An ack without an answer may have counted or not; so may a nack that asks for a dead letter.

use std::collections::HashMap;

use super::{
    event::Outcome,
    findings::Findings,
    loaded::{Loaded, Name},
};

/// Which ends of one message for one recipient there are.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    acknowledged: Option<u32>,
    dead: Option<u32>,
    perhaps: bool,
}

/// How many messages of a recipient have no end that was seen, and how many may have one that was not.
#[derive(Debug, Clone, Copy, Default)]
struct Open {
    without_end: u64,
    perhaps: u64,
    /// The line of the first without an end.
    first: Option<(u64, u32)>,
}

pub(super) fn check(history: &Loaded, findings: &mut Findings) {
    let ends = ends(history);
    let published = history.by_id();
    let mut open: HashMap<Name, Open> = HashMap::new();
    for logged in &history.log {
        let Some(published) = published.get(&logged.id) else { continue };
        for sandbox in &history.audiences[published.to as usize] {
            let end = ends.get(&(*sandbox, logged.sequence)).copied().unwrap_or_default();
            let open = open.entry(*sandbox).or_default();
            match (end.acknowledged, end.dead) {
                (Some(ack), Some(dead)) => findings.add(
                    || {
                        let (id, sandbox) = (history.text(logged.id), history.text(*sandbox));
                        format!("{id} at {} was acknowledged by {sandbox}, and is its dead letter", logged.sequence)
                    },
                    [ack, dead],
                ),
                (None, None) if end.perhaps || published.expires => open.perhaps += 1,
                (None, None) => {
                    open.without_end += 1;
                    open.first.get_or_insert((logged.sequence, logged.line));
                }
                _ => {}
            }
        }
    }
    for (sandbox, pending, line) in &history.rests {
        let Open { without_end, perhaps, first } = open.remove(sandbox).unwrap_or_default();
        let sandbox = history.text(*sandbox);
        if *pending < without_end {
            let text = || {
                let at = first.map_or(0, |(sequence, _)| sequence);
                format!(
                    "{without_end} messages for {sandbox}, the first of them at {at}, were neither acknowledged nor are \
                     dead letters, and only {pending} still wait"
                )
            };
            findings.add(text, first.map(|(_, line)| line).into_iter().chain([*line]));
        } else if *pending > without_end + perhaps {
            let text = || {
                format!("{pending} messages wait for {sandbox}, but all except {} have an end", without_end + perhaps)
            };
            findings.add(text, [*line]);
        }
    }
}

fn ends(history: &Loaded) -> HashMap<(Name, u64), Ends> {
    let mut ends: HashMap<(Name, u64), Ends> = HashMap::with_capacity(history.acks.len());
    for acked in &history.acks {
        let end = ends.entry((acked.sandbox, acked.sequence)).or_default();
        match acked.outcome {
            Outcome::Ok => end.acknowledged = Some(acked.line),
            Outcome::Unknown => end.perhaps = true,
            Outcome::Refused => {}
        }
    }
    for nacked in history.nacks.iter().filter(|nacked| nacked.dead_letter && nacked.outcome == Outcome::Unknown) {
        ends.entry((nacked.sandbox, nacked.sequence)).or_default().perhaps = true;
    }
    for (sandbox, sequence, line) in &history.dead_letters {
        ends.entry((*sandbox, *sequence)).or_default().dead = Some(*line);
    }
    ends
}
