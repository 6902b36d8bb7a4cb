//! A recipient gets messages with equal ordering keys one at a time and in order: when one is delivered, the one before it has
//! ended. The ack of the earlier one must therefore have been on its way before the later one came. Looking at neighbours is
//! enough: the one before them had to end before its own successor came.

use std::collections::HashMap;

use super::{
    event::Outcome,
    findings::Findings,
    loaded::{Loaded, Name},
};

pub(super) fn check(history: &Loaded, findings: &mut Findings) {
    let before = predecessors(history);
    if before.is_empty() {
        return;
    }
    let mut acked: HashMap<(Name, u64), u64> = HashMap::with_capacity(history.acks.len());
    for ack in history.acks.iter().filter(|acked| acked.outcome != Outcome::Refused) {
        let at = acked.entry((ack.sandbox, ack.sequence)).or_insert(u64::MAX);
        *at = ack.invoke.min(*at);
    }
    // A nack that asks for a dead letter ends a message without an ack; whether it did is not known when its answer is not.
    let given_up = history.nacks.iter().filter(|nacked| nacked.dead_letter && nacked.outcome != Outcome::Refused);
    for nacked in given_up {
        acked.entry((nacked.sandbox, nacked.sequence)).or_insert(0);
    }
    for delivered in &history.deliveries {
        let Some((sequence, line)) = before.get(&(delivered.sandbox, delivered.sequence)) else { continue };
        let dead = history.dead_letters.binary_search_by_key(&(delivered.sandbox, *sequence), |dead| (dead.0, dead.1));
        let ended = acked.get(&(delivered.sandbox, *sequence)).is_some_and(|at| *at <= delivered.at);
        if dead.is_err() && !ended {
            let (sandbox, id, at) = (history.text(delivered.sandbox), history.text(delivered.id), delivered.sequence);
            findings.add(
                || {
                    format!(
                        "{sandbox} got {id} at {at} while the message at {sequence} with the same key had not ended"
                    )
                },
                [*line, delivered.line],
            );
        }
    }
}

/// For each message with a key and each of its recipients: the sequence and line of the message before it with that key.
fn predecessors(history: &Loaded) -> HashMap<(Name, u64), (u64, u32)> {
    let published = history.by_id();
    let mut newest: HashMap<(Name, Name), (u64, u32)> = HashMap::new();
    let mut before = HashMap::new();
    for logged in &history.log {
        let Some(published) = published.get(&logged.id) else { continue };
        let Some(key) = published.key else { continue };
        for sandbox in &history.audiences[published.to as usize] {
            if let Some(earlier) = newest.insert((*sandbox, key), (logged.sequence, logged.line)) {
                before.insert((*sandbox, logged.sequence), earlier);
            }
        }
    }
    before
}
