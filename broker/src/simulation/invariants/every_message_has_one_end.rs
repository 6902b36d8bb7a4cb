//! Every delivery is of a message in the log. At the end, when nothing waits any more, every message to a sandbox was delivered
//! to it, or is one of its dead letters, or was allowed to expire; none is a dead letter whose ack was confirmed.

use std::collections::{BTreeMap, BTreeSet};

use super::super::history::{Final, History};

pub(super) fn check(history: &History, end: &Final) -> Vec<String> {
    let mut broken = Vec::new();
    let addressed: BTreeMap<_, _> = history
        .published
        .iter()
        .map(|published| ((published.workspace, published.label.as_str()), published))
        .collect();
    for (workspace, log) in &end.log {
        let labels: BTreeMap<u64, &str> = log.iter().map(|(sequence, label)| (*sequence, label.as_str())).collect();
        let mut seen: BTreeSet<(&str, u64)> = BTreeSet::new();
        for delivered in history.delivered.iter().filter(|delivered| delivered.workspace == *workspace) {
            let logged = labels.get(&delivered.sequence) == Some(&delivered.label.as_str());
            if !logged && end.is_known(workspace, delivered.sequence) {
                broken.push(format!("{delivered:?} is not in the log"));
            }
            seen.insert((delivered.sandbox, delivered.sequence));
        }
        let dead: BTreeSet<(&str, u64)> =
            end.dead.get(workspace).into_iter().flatten().map(|(name, at)| (name.as_str(), *at)).collect();
        for acked in history.acked.iter().filter(|acked| acked.workspace == *workspace && acked.confirmed.is_some()) {
            if dead.contains(&(acked.sandbox, acked.sequence)) {
                broken.push(format!("{acked:?} was confirmed, and the message is a dead letter"));
            }
        }
        if !end.at_rest {
            // What waits, or is not a dead letter yet, may still come to its end.
            continue;
        }
        for (sandbox, count) in end.pending.get(workspace).into_iter().flatten() {
            if *count > 0 {
                broken.push(format!("{count} messages still wait for {workspace}/{sandbox}"));
            }
        }
        for (sequence, label) in log {
            let published = addressed.get(&(*workspace, label.as_str())).filter(|published| !published.expires);
            if let Some(to) = published.and_then(|published| published.to)
                && !seen.contains(&(to, *sequence))
                && !dead.contains(&(to, *sequence))
            {
                broken.push(format!("{workspace}/{label} at {sequence} never reached {to}"));
            }
        }
    }
    broken
}
