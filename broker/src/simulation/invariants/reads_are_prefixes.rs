//! A reader of the log sees what the log has, without a gap, and everything that was acknowledged before it asked.

use super::super::history::{Ended, Final, History};

pub(super) fn check(history: &History, end: &Final) -> Vec<String> {
    let mut broken = Vec::new();
    for (number, read) in history.reads.iter().enumerate() {
        let Some(log) = end.log.get(read.workspace) else { continue };
        let through = read.found.last().map_or(read.after, |(sequence, _)| *sequence);
        let there: Vec<_> =
            log.iter().filter(|(sequence, _)| *sequence > read.after && *sequence <= through).cloned().collect();
        let who = format!("read {number} of {} on node {} after {}", read.workspace, read.node, read.after);
        if there != read.found && end.is_known(read.workspace, through) {
            broken.push(format!("{who} found {:?}, and the log has {there:?}", read.found));
        }
        for published in history.published.iter().filter(|published| published.workspace == read.workspace) {
            if let (Ended::Accepted(sequence), Some(answered)) = (&published.ended, published.answered)
                && answered < read.asked
                && *sequence > through
            {
                broken.push(format!("{who} ended at {through}, although {sequence} had been acknowledged before"));
            }
        }
    }
    broken
}
