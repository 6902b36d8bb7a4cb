//! Ordering keys of one inbox: one message of a key at a time, in order. Others of the key are held back, in memory; messages
//! with other keys and without one pass.

use std::collections::{BTreeMap, HashMap};

use super::lane::Lease;

/// Messages that one inbox holds back; beyond, it takes no new ones from its lanes until some are done. Those that were
/// handed out before and those on their own still come: among them is the one that all others of its key wait for.
const MAX_HELD: usize = 65_536;

/// See the module.
#[derive(Debug)]
pub(crate) struct KeyedOrder {
    keys: HashMap<u64, Key>,
    held: usize,
    most: usize,
}

impl Default for KeyedOrder {
    fn default() -> Self {
        Self::holding(MAX_HELD)
    }
}

/// How far the owner of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It may be handed out, and was not since it owns the key: an older one that is put back meanwhile goes first.
    Next,
    /// It was handed out and came back.
    Returned,
    /// Somebody works on it: not even another copy of it may be handed out.
    AtWork,
    /// It failed, and waits on its own.
    Retry,
}

#[derive(Debug)]
struct Key {
    /// The message that is being worked on, or waits for its next attempt.
    owner: u64,
    turn: Turn,
    held: BTreeMap<u64, Lease>,
}

impl KeyedOrder {
    /// Holds back about `most` messages.
    pub(crate) fn holding(most: usize) -> Self {
        Self { keys: HashMap::new(), held: 0, most }
    }

    /// A retry waits on disk: later messages of its key wait for it.
    pub(crate) fn block(&mut self, ordering: u64, sequence: u64) {
        let fresh = || Key { owner: sequence, turn: Turn::Retry, held: BTreeMap::new() };
        let key = self.keys.entry(ordering).or_insert_with(fresh);
        key.owner = key.owner.min(sequence);
    }

    /// Whether a message may be handed out. If so it owns its key; if not it is held back until it does.
    pub(crate) fn admit(&mut self, lease: Lease) -> bool {
        if lease.ordering == 0 {
            return true;
        }
        match self.keys.entry(lease.ordering) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Key { owner: lease.sequence, turn: Turn::AtWork, held: BTreeMap::new() });
                true
            }
            std::collections::hash_map::Entry::Occupied(entry) => {
                let key = entry.into_mut();
                let older = key.turn == Turn::Next && lease.sequence < key.owner;
                if older || (key.owner == lease.sequence && key.turn != Turn::AtWork) {
                    (key.owner, key.turn) = (lease.sequence, Turn::AtWork);
                    return true;
                }
                if key.held.insert(lease.sequence, lease).is_none() {
                    self.held += 1;
                }
                false
            }
        }
    }

    /// Nobody works on a message any more; it stays the next one of its key. `alone` when it waits on its own.
    pub(crate) fn rest(&mut self, ordering: u64, sequence: u64, alone: bool) {
        if let Some(key) = self.keys.get_mut(&ordering).filter(|key| key.owner == sequence) {
            key.turn = if alone { Turn::Retry } else { Turn::Returned };
        }
    }

    /// A message that expired is passed over, and does not keep its key, unless another copy of it does.
    pub(crate) fn pass(&mut self, ordering: u64, sequence: u64, alone: bool) -> Option<Lease> {
        let key = self.keys.get(&ordering).filter(|key| key.owner == sequence)?;
        match key.turn {
            Turn::Next | Turn::Returned => self.release(ordering, sequence),
            Turn::Retry if alone => self.release(ordering, sequence),
            Turn::Retry | Turn::AtWork => None,
        }
    }

    /// A message that should wait on its own does not, and its key must not wait for it; the next one is given back. Without
    /// `ordering`, whichever key it is.
    pub(crate) fn give_up(&mut self, sequence: u64, ordering: Option<u64>) -> Option<Lease> {
        let waits = |key: &Key| key.owner == sequence && key.turn == Turn::Retry;
        let ordering = match ordering {
            Some(ordering) => self.keys.get(&ordering).is_some_and(waits).then_some(ordering),
            None => self.keys.iter().find(|(_, key)| waits(key)).map(|(ordering, _)| *ordering),
        };
        self.release(ordering?, sequence)
    }

    /// A message is done: the next one of its key is given back to be handed out.
    pub(crate) fn release(&mut self, ordering: u64, sequence: u64) -> Option<Lease> {
        let key = self.keys.get_mut(&ordering).filter(|key| key.owner == sequence)?;
        match key.held.pop_first() {
            Some((next, lease)) => {
                (key.owner, key.turn) = (next, Turn::Next);
                self.held -= 1;
                Some(lease)
            }
            None => {
                self.keys.remove(&ordering);
                None
            }
        }
    }

    /// A message that is held back has left: its turn will not come.
    pub(crate) fn forget(&mut self, ordering: u64, sequence: u64) {
        if let Some(key) = self.keys.get_mut(&ordering)
            && key.held.remove(&sequence).is_some()
        {
            self.held -= 1;
        }
    }

    /// Whether nothing new is to be looked at for now.
    pub(crate) fn is_full(&self) -> bool {
        self.held >= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Lane, Source};

    fn lease(ordering: u64, sequence: u64) -> Lease {
        let lane = Lane { source: Source::Direct, priority: 5 };
        Lease { lane, sequence, after: 0, batch: 1, ordering, expires_ms: 0, bytes: 0 }
    }

    #[test]
    fn a_key_has_one_owner_and_the_others_wait_in_order() {
        let mut keyed = KeyedOrder::default();
        assert!(keyed.admit(lease(7, 1)));
        keyed.rest(7, 1, false);
        assert!(keyed.admit(lease(7, 1)), "the owner may come again");
        assert!(!keyed.admit(lease(7, 3)) && !keyed.admit(lease(7, 2)) && keyed.admit(lease(8, 4)));
        assert!(keyed.admit(lease(0, 5)) && keyed.admit(lease(0, 6)), "no key, no order");
        assert_eq!(keyed.release(7, 2), None, "only the owner frees its key");
        assert_eq!(keyed.release(7, 1).map(|lease| lease.sequence), Some(2));
        assert!(keyed.admit(lease(7, 2)));
        assert_eq!(keyed.release(7, 2).map(|lease| lease.sequence), Some(3));
        assert_eq!(keyed.release(7, 3), None);
        assert!(keyed.admit(lease(7, 9)));
        assert_eq!(keyed.held, 0);
    }

    #[test]
    fn an_older_one_that_is_put_back_goes_before_the_next() {
        let mut keyed = KeyedOrder::default();
        assert!(keyed.admit(lease(7, 4)) && !keyed.admit(lease(7, 5)));
        assert_eq!(keyed.release(7, 4).map(|lease| lease.sequence), Some(5));
        assert!(keyed.admit(lease(7, 4)) && !keyed.admit(lease(7, 5)), "4 was redriven before 5 was handed out");
        assert_eq!(keyed.release(7, 4).map(|lease| lease.sequence), Some(5));
        assert!(keyed.admit(lease(7, 5)));
        keyed.rest(7, 5, false);
        assert!(!keyed.admit(lease(7, 4)), "5 was handed out before");
    }

    #[test]
    fn a_second_copy_waits_for_the_first() {
        let mut keyed = KeyedOrder::default();
        assert!(keyed.admit(lease(7, 1)) && !keyed.admit(lease(7, 1)) && !keyed.admit(lease(7, 2)));
        assert_eq!(keyed.release(7, 1).map(|lease| lease.sequence), Some(1));
        assert!(keyed.admit(lease(7, 1)));
        assert_eq!(keyed.release(7, 1).map(|lease| lease.sequence), Some(2));
    }

    #[test]
    fn an_expired_copy_does_not_free_the_key_of_another() {
        let mut keyed = KeyedOrder::default();
        assert!(keyed.admit(lease(7, 1)) && !keyed.admit(lease(7, 2)));
        assert_eq!(keyed.pass(7, 1, false), None, "one is at work");
        keyed.rest(7, 1, true);
        assert_eq!(keyed.pass(7, 1, false), None, "one is to be tried again");
        assert_eq!(keyed.pass(7, 1, true).map(|lease| lease.sequence), Some(2));
    }

    #[test]
    fn a_retry_that_there_is_not_frees_its_key_and_nothing_else_does() {
        let mut keyed = KeyedOrder::default();
        assert!(keyed.admit(lease(7, 1)) && !keyed.admit(lease(7, 2)) && keyed.admit(lease(8, 3)));
        keyed.rest(8, 3, true);
        assert_eq!(keyed.give_up(1, Some(7)), None, "it is at work");
        keyed.rest(7, 1, true);
        assert_eq!((keyed.give_up(1, Some(8)), keyed.give_up(2, None)), (None, None), "another key, another message");
        assert_eq!(keyed.give_up(1, None).map(|lease| lease.sequence), Some(2), "also where nobody knows its key");
        assert_eq!(keyed.give_up(3, Some(8)), None);
        assert!(keyed.admit(lease(8, 4)), "nobody waited, and the key is free");
    }

    #[test]
    fn what_has_left_does_not_get_its_turn() {
        let mut keyed = KeyedOrder::default();
        assert!(keyed.admit(lease(7, 1)) && !keyed.admit(lease(7, 2)) && !keyed.admit(lease(7, 3)));
        keyed.forget(7, 2);
        assert_eq!(keyed.release(7, 1).map(|lease| lease.sequence), Some(3));
        assert_eq!((keyed.release(7, 3), keyed.held), (None, 0));
    }

    #[test]
    fn a_retry_on_disk_blocks_its_key() {
        let mut keyed = KeyedOrder::default();
        keyed.block(7, 5);
        keyed.block(7, 3);
        assert!(!keyed.admit(lease(7, 5)) && keyed.admit(lease(7, 3)));
    }
}
