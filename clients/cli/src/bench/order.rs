//! Whether an inbox got everything once and in order.

use std::collections::BTreeSet;

use super::payload::Stamp;

/// What was wrong at the inboxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Sent and acknowledged, never delivered.
    pub(super) lost: u64,
    /// Delivered again.
    pub(super) duplicated: u64,
    /// Delivered after a later one of the same sender, or with a sequence that does not increase.
    pub(super) out_of_order: u64,
}

impl Faults {
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
    }
}

/// Follows one inbox.
#[derive(Debug)]
pub(super) struct InboxOrder {
    recipient: u32,
    senders: Vec<Sender>,
    last_sequence: u64,
    faults: Faults,
}

#[derive(Debug, Clone, Default)]
struct Sender {
    /// The highest count that was seen.
    highest: u64,
    /// Counts below it that were not.
    missing: BTreeSet<u64>,
}

impl InboxOrder {
    /// `recipient` is what the stamps of this inbox name.
    pub(super) fn new(recipient: u32, senders: usize) -> Self {
        Self { recipient, senders: vec![Sender::default(); senders], last_sequence: 0, faults: Faults::default() }
    }

    /// Counts one delivery; true when it is the first of its message. None when it does not belong here.
    pub(super) fn see(&mut self, sequence: u64, stamp: Stamp) -> Option<bool> {
        let sender = self.senders.get_mut(stamp.sender as usize)?;
        if stamp.recipient != self.recipient || stamp.count == 0 {
            return None;
        }
        let increases = sequence > self.last_sequence;
        self.last_sequence = self.last_sequence.max(sequence);
        if stamp.count > sender.highest {
            sender.missing.extend(sender.highest + 1..stamp.count);
            sender.highest = stamp.count;
            self.faults.out_of_order += u64::from(!increases);
            Some(true)
        } else if sender.missing.remove(&stamp.count) {
            self.faults.out_of_order += 1;
            Some(true)
        } else {
            self.faults.duplicated += 1;
            Some(false)
        }
    }

    /// The verdict, when sender number n has sent `sent(n)` messages to this inbox.
    pub(super) fn finish(self, sent: impl Fn(usize) -> u64) -> Faults {
        let lost = self
            .senders
            .iter()
            .enumerate()
            .map(|(index, sender)| sent(index).saturating_sub(sender.highest) + sender.missing.len() as u64);
        Faults { lost: lost.sum(), ..self.faults }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(seen: &[(u64, u64)], sent: u64) -> Faults {
        let mut order = InboxOrder::new(5, 2);
        for &(sequence, count) in seen {
            order.see(sequence, Stamp { sent_nanos: 0, count, sender: 1, recipient: 5 }).expect("it belongs here");
        }
        order.finish(|sender| if sender == 1 { sent } else { 0 })
    }

    #[test]
    fn a_clean_inbox() {
        assert_eq!(faults(&[(1, 1), (5, 2), (9, 3)], 3), Faults::default());
    }

    #[test]
    fn faults_are_told_apart() {
        let none = Faults::default();
        assert_eq!(faults(&[(1, 1), (3, 3)], 4), Faults { lost: 2, ..none });
        assert_eq!(faults(&[(1, 1), (2, 2), (1, 1)], 2), Faults { duplicated: 1, ..none });
        assert_eq!(faults(&[(1, 1), (3, 3), (2, 2)], 3), Faults { out_of_order: 1, ..none });
        assert_eq!(faults(&[(2, 1), (1, 2)], 2), Faults { out_of_order: 1, ..none });
        assert_eq!(faults(&[(1, 1), (3, 3), (2, 2), (2, 2)], 3), Faults { out_of_order: 1, duplicated: 1, lost: 0 });
    }

    #[test]
    fn strangers_do_not_count() {
        let mut order = InboxOrder::new(5, 1);
        for (sender, recipient, count) in [(1, 5, 1), (0, 4, 1), (0, 5, 0)] {
            assert_eq!(order.see(1, Stamp { sent_nanos: 0, count, sender, recipient }), None);
        }
    }
}
