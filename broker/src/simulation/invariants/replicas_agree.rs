//! All nodes have applied the same command under each index, and at the end all states are the same bytes. The first is seen
//! while it happens (`History::broken`).

use std::collections::BTreeSet;

use super::super::history::{Final, History};

pub(super) fn check(history: &History, end: &Final) -> Vec<String> {
    let mut broken = history.broken.clone();
    for (shard, digests) in &end.digests {
        if end.at_rest && digests.values().collect::<BTreeSet<_>>().len() > 1 {
            broken.push(format!("the states of shard {shard} differ: {digests:x?}"));
        }
    }
    broken
}
