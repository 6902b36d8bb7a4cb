//! A recipient gets a message with an ordering key for the first time only when it has asked to acknowledge all that came before
//! it under that key, except what died or may have expired before: it holds one message of a key at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Ended, Final, History, Moment};

pub(super) fn check(history: &History, end: &Final) -> Vec<String> {
    let mut broken = Vec::new();
    if !end.at_rest {
        // What died may be a dead letter only where nobody looks: not every delivery can be explained.
        return broken;
    }
    let mut keyed: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    let mut keys = BTreeMap::new();
    for published in history.published.iter().filter(|published| published.key > 0) {
        let (Some(to), Ended::Accepted(sequence)) = (published.to, &published.ended) else { continue };
        keys.insert((published.workspace, *sequence), published.key);
        if !published.expires {
            keyed.entry((published.workspace, to, published.key)).or_default().push(*sequence);
        }
    }
    let dead: BTreeSet<_> = end
        .dead
        .iter()
        .flat_map(|(workspace, dead)| dead.iter().map(move |(to, at)| (*workspace, to.as_str(), *at)))
        .collect();
    // By message: when its first ack was asked for.
    let mut acked: BTreeMap<_, Moment> = BTreeMap::new();
    for one in &history.acked {
        let first = acked.entry((one.workspace, one.sandbox, one.sequence)).or_insert(one.asked);
        *first = one.asked.min(*first);
    }
    let mut seen: BTreeSet<_> = BTreeSet::new();
    for delivered in &history.delivered {
        let (workspace, to, sequence) = (delivered.workspace, delivered.sandbox, delivered.sequence);
        let Some(key) = keys.get(&(workspace, sequence)) else { continue };
        let first_time = seen.insert((workspace, to, sequence));
        let before = keyed.get(&(workspace, to, *key)).into_iter().flatten().filter(|before| **before < sequence);
        for before in before.filter(|_| first_time) {
            let done = acked.get(&(workspace, to, *before)).is_some_and(|asked| *asked < delivered.at);
            if !done && !dead.contains(&(workspace, to, *before)) {
                broken.push(format!("{workspace}/{to} got {sequence} of key {key} before {before} was done"));
            }
        }
    }
    broken
}
