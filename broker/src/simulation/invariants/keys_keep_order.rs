//! A recipient gets a message with an ordering key for the first time only when it has got all that came before it under that key,
//! except what died or may have expired before.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Ended, Final, History};

pub(super) fn check(history: &History, end: &Final) -> Vec<String> {
    let mut broken = Vec::new();
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
    let mut seen: BTreeSet<_> = BTreeSet::new();
    for delivered in &history.delivered {
        let (workspace, to, sequence) = (delivered.workspace, delivered.sandbox, delivered.sequence);
        let Some(key) = keys.get(&(workspace, sequence)) else { continue };
        let first_time = seen.insert((workspace, to, sequence));
        let before = keyed.get(&(workspace, to, *key)).into_iter().flatten().filter(|before| **before < sequence);
        for before in before.filter(|_| first_time) {
            if !seen.contains(&(workspace, to, *before)) && !dead.contains(&(workspace, to, *before)) {
                broken.push(format!("{workspace}/{to} got {sequence} of key {key} before {before}"));
            }
        }
    }
    broken
}
