//! Decisions that were made: most messages go from few to few, and most policies look at nothing else of them.

use std::hash::{BuildHasher as _, Hasher as _};

use parking_lot::Mutex;

use super::{Decision, Recipient};

/// Decisions that are kept; a newer one takes the place of an older one.
const SLOTS: usize = 1_024;

/// What was decided on a message from one to another, of a type. Exact: what is found was decided on the same names.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<Vec<Option<Entry>>>);

#[derive(Debug)]
struct Entry {
    from: Box<str>,
    kind: u8,
    to: Box<str>,
    message_type: u8,
    decision: Decision,
}

fn parts<'a>(to: Recipient<'a>) -> (u8, &'a str) {
    match to {
        Recipient::Sandbox(name) => (0, name),
        Recipient::Capability(name) => (1, name),
        Recipient::Topic(name) => (2, name),
        Recipient::Broadcast => (3, ""),
    }
}

fn slot(from: &str, (kind, to): (u8, &str), message_type: u8) -> usize {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    hasher.write(from.as_bytes());
    hasher.write_u16(u16::from_be_bytes([kind, message_type]));
    hasher.write(to.as_bytes());
    hasher.finish() as usize % SLOTS
}

impl Known {
    /// The decision on such a message, made now where it was not made before.
    pub(crate) fn or_decide(
        &self,
        from: &str,
        to: Recipient<'_>,
        message_type: u8,
        decide: impl FnOnce() -> Decision,
    ) -> Decision {
        let (kind, name) = parts(to);
        let slot = slot(from, (kind, name), message_type);
        let mut slots = self.0.lock();
        let known = slots.get(slot).and_then(Option::as_ref).filter(|known| {
            known.message_type == message_type && known.kind == kind && *known.from == *from && *known.to == *name
        });
        if let Some(known) = known {
            return known.decision;
        }
        let decision = decide();
        if slots.is_empty() {
            slots.resize_with(SLOTS, || None);
        }
        slots[slot] = Some(Entry { from: from.into(), kind, to: name.into(), message_type, decision });
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Verdict;

    #[test]
    fn what_is_found_was_decided_on_the_same_names() {
        let known = Known::default();
        let rule = |number: usize| Decision { verdict: Verdict::Allow, rule: Some(number) };
        let mut decided = 0;
        // More than there are slots, and each twice.
        for round in 0..2 {
            for number in 0..3 * SLOTS {
                let (from, to) = (format!("a{}", number % 64), format!("b{}", number / 64));
                let found = known.or_decide(&from, Recipient::Sandbox(&to), 1, || {
                    decided += 1;
                    rule(number)
                });
                assert_eq!(found, rule(number), "round {round}");
            }
        }
        assert!(decided >= 3 * SLOTS);
        let ask = |from: &str, to, message_type, other| known.or_decide(from, to, message_type, || rule(other));
        assert_eq!(ask("x", Recipient::Sandbox("y"), 1, 1), rule(1));
        assert_eq!(ask("x", Recipient::Sandbox("y"), 1, 2), rule(1), "it is remembered");
        assert_eq!(ask("x", Recipient::Topic("y"), 1, 3), rule(3));
        assert_eq!(ask("x", Recipient::Sandbox("y"), 2, 4), rule(4));
        assert_eq!(ask("xy", Recipient::Sandbox(""), 1, 5), rule(5));
    }
}
