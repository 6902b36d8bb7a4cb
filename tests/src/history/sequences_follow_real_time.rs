//! When the acknowledgement of one publish came before another one began, the first has the lower sequence: the log is
//! linearizable. Sequences are given in one order, so it is enough to hold each publish against the highest sequence that was
//! acknowledged before it began.

use super::{event::Outcome, findings::Findings, loaded::Loaded};

pub(super) fn check(history: &Loaded, findings: &mut Findings) {
    let accepted: Vec<_> = history.publishes.iter().filter(|published| published.outcome == Outcome::Ok).collect();
    let (mut by_invoke, mut by_done) = (accepted.clone(), accepted);
    by_invoke.sort_unstable_by_key(|published| published.invoke);
    by_done.sort_unstable_by_key(|published| published.done);
    let mut done = by_done.into_iter().peekable();
    let mut highest = None;
    for published in by_invoke {
        while let Some(before) = done.next_if(|before| before.done < published.invoke) {
            if highest.is_none_or(|highest: &super::loaded::Published| highest.sequence < before.sequence) {
                highest = Some(before);
            }
        }
        let Some(before) = highest.filter(|before| before.sequence >= published.sequence) else { continue };
        findings.add(
            || {
                format!(
                    "{} was acknowledged with sequence {} before the publish of {} began, which got {}",
                    history.text(before.id),
                    before.sequence,
                    history.text(published.id),
                    published.sequence
                )
            },
            [before.line, published.line],
        );
    }
}
