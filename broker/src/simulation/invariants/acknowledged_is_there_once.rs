//! Every acknowledged message is in the log once, under the sequence it was acknowledged with. One that nobody knows of is there
//! once or not at all, one that was refused is not there, and nothing is there that nobody published.

use std::collections::BTreeMap;

use super::super::history::{Ended, Final, History};

pub(super) fn check(history: &History, end: &Final) -> Vec<String> {
    let mut broken = Vec::new();
    for (workspace, log) in &end.log {
        let mut places: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (sequence, label) in log {
            places.entry(label).or_default().push(*sequence);
        }
        for published in history.published.iter().filter(|published| published.workspace == *workspace) {
            let found = places.remove(published.label.as_str()).unwrap_or_default();
            let label = &published.label;
            match (&published.ended, found.as_slice()) {
                (Ended::Accepted(sequence), [found]) if found == sequence => {}
                (Ended::Unknown, [] | [_]) | (Ended::Refused(_), []) => {}
                (Ended::Accepted(sequence), []) if !end.is_known(workspace, *sequence) => {}
                (Ended::Accepted(sequence), found) => {
                    broken.push(format!("{workspace}/{label} was acknowledged as {sequence} and is at {found:?}"));
                }
                (ended, found) => broken.push(format!("{workspace}/{label} came to {ended:?} and is at {found:?}")),
            }
        }
        broken.extend(places.keys().map(|label| format!("nobody published {workspace}/{label}")));
    }
    broken
}
