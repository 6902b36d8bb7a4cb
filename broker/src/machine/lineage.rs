//! On whose behalf somebody speaks in a conversation.
//!
//! Who receives a message under a correlation id and then sends one under the same does so on behalf of its sender, and of all on
//! whose behalf that one did. What goes back to one of these is an answer, and hands nothing on.

use super::state::{State, StateError};
use crate::encoding::encoded;

/// Sandboxes that one conversation tells apart; what more receive counts for everybody.
const MAX_PARTICIPANTS: usize = 256;
/// Others on whose behalf one sandbox speaks; beyond that it is not known any more who they are.
const MAX_PRINCIPALS: usize = 32;
/// What everybody may have received.
pub(super) const EVERYBODY: u32 = u32::MAX;
/// Has no name, and so may nothing.
pub(super) const UNKNOWN: u32 = 0;

encoded! {
    /// What is known of one conversation: for each sandbox the others on whose behalf it speaks, both rising.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub(super) struct Lineage {
        behind: Vec<(u32, Vec<u32>)>,
    }
}

impl Lineage {
    fn of(&self, sandbox: u32) -> &[u32] {
        let found = self.behind.binary_search_by_key(&sandbox, |(known, _)| *known);
        found.map_or(&[], |at| self.behind[at].1.as_slice())
    }

    /// The others on whose behalf a sandbox speaks.
    pub(super) fn behind(&self, sandbox: u32) -> Vec<u32> {
        let mut all = [self.of(sandbox), self.of(EVERYBODY)].concat();
        all.sort_unstable();
        all.dedup();
        all.retain(|other| *other != sandbox);
        all
    }

    /// A message goes from one to another. Whether anything is known now that was not before.
    pub(super) fn receive(&mut self, recipient: u32, sender: u32) -> bool {
        let mut handed = self.behind(sender);
        if handed.contains(&recipient) {
            return false;
        }
        handed.push(sender);
        handed.retain(|other| *other != recipient);
        let at = match self.behind.binary_search_by_key(&recipient, |(known, _)| *known) {
            Ok(at) => at,
            Err(_) if self.behind.len() >= MAX_PARTICIPANTS && recipient != EVERYBODY => {
                return self.receive(EVERYBODY, sender);
            }
            Err(at) => {
                self.behind.insert(at, (recipient, Vec::new()));
                at
            }
        };
        let known = &mut self.behind[at].1;
        let before = known.len();
        for other in handed {
            if let Err(place) = known.binary_search(&other) {
                known.insert(place, other);
            }
        }
        if known.len() > MAX_PRINCIPALS {
            *known = vec![UNKNOWN];
        }
        known.len() != before || *known == [UNKNOWN]
    }
}

/// The names of these, as a policy knows them; empty for who is gone.
pub(super) fn names(state: &State, workspace: u32, numbers: &[u32]) -> Result<Vec<String>, StateError> {
    numbers.iter().map(|number| state.sandbox_name(workspace, *number)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_passes_something_on_speaks_for_all_before_him() {
        let mut lineage = Lineage::default();
        assert!(lineage.receive(2, 1) && lineage.receive(3, 2) && lineage.receive(4, 3));
        assert_eq!((lineage.behind(2), lineage.behind(3), lineage.behind(4)), (vec![1], vec![1, 2], vec![1, 2, 3]));
        assert!(!lineage.receive(3, 4) && !lineage.receive(1, 4), "an answer");
        assert!(lineage.behind(1).is_empty(), "who began speaks for nobody");
        assert!(!lineage.receive(2, 1), "again");
        assert!(lineage.receive(EVERYBODY, 5));
        assert_eq!((lineage.behind(9), lineage.behind(5), lineage.behind(2)), (vec![5], vec![], vec![1, 5]));
    }

    #[test]
    fn what_is_too_much_to_know_lets_nobody_do_more() {
        let mut lineage = Lineage::default();
        for sender in 1..=40 {
            lineage.receive(100, sender);
        }
        assert_eq!(lineage.behind(100)[0], UNKNOWN, "whatever else is known");
        lineage.receive(101, 100);
        assert_eq!((lineage.behind(101)[0], lineage.behind(101).contains(&100)), (UNKNOWN, true));
        let mut wide = Lineage::default();
        for recipient in 1_000..2_000 {
            wide.receive(recipient, 7);
        }
        assert_eq!((wide.behind.len(), wide.behind(1_999)), (MAX_PARTICIPANTS + 1, vec![7]));
    }
}
