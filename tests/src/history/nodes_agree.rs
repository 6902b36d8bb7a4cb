//! Whatever the nodes say of their state at the end, they say the same.

use super::{findings::Findings, loaded::Loaded};

pub(super) fn check(history: &Loaded, findings: &mut Findings) {
    let mut states = history.states.clone();
    states.sort_unstable();
    for same in states.chunk_by(|one, next| one.0 == next.0) {
        let (what, first, value, line) = same[0];
        for (_, node, other, other_line) in same.iter().filter(|state| state.2 != value) {
            let (what, value, other) = (history.text(what), history.text(value), history.text(*other));
            findings.add(
                || format!("of {what} node {first} says {value:?} and node {node} says {other:?}"),
                [line, *other_line],
            );
        }
    }
}
