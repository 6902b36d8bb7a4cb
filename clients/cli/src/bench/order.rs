//! Whether an inbox got everything once and in order.

use std::collections::BTreeSet;

use super::payload::Stamp;
use crate::exit::Failure;

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

    /// A failure when there is one.
    pub(super) fn verdict(self) -> Result<(), Failure> {
        if self == Self::default() {
            return Ok(());
        }
        let Self { lost, duplicated, out_of_order } = self;
        let text = format!("{lost} messages were lost, {duplicated} duplicated, {out_of_order} out of order");
        Err(Failure::failed("DELIVERY_CHECK_FAILED", text))
    }
}

/// Follows one inbox: whatever is in order there, one recipient without ordering keys and one for each key with them.
#[derive(Debug)]
pub(super) struct InboxOrder {
    /// What the stamps of this inbox name: from `first` on, `step` apart.
    first: u32,
    step: u32,
    recipients: Vec<Recipient>,
    /// Counts what was taken at once.
    batch: u64,
    faults: Faults,
}

/// What is in order.
#[derive(Debug, Clone)]
struct Recipient {
    senders: Vec<Sender>,
    last_sequence: u64,
    last_batch: u64,
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
        Self::with_keys(recipient, 1, 1, senders)
    }

    /// The stamps of this inbox name keys: from `first` on, `step` apart, `keys` of them.
    pub(super) fn with_keys(first: u32, step: u32, keys: usize, senders: usize) -> Self {
        let recipient = Recipient { senders: vec![Sender::default(); senders], last_sequence: 0, last_batch: 0 };
        Self { first, step, recipients: vec![recipient; keys], batch: 0, faults: Faults::default() }
    }

    /// What is seen from now on was handed out together, before any of it was acknowledged.
    pub(super) fn begin_batch(&mut self) {
        self.batch += 1;
    }

    /// Counts one delivery; true when it is the first of its message. None when it does not belong here.
    pub(super) fn see(&mut self, sequence: u64, stamp: Stamp) -> Option<bool> {
        let offset = stamp.recipient.checked_sub(self.first).filter(|offset| offset.is_multiple_of(self.step))?;
        // One of a key at a time.
        let together = self.recipients.len() > 1;
        let recipient = self.recipients.get_mut((offset / self.step) as usize)?;
        let sender = recipient.senders.get_mut(stamp.sender as usize).filter(|_| stamp.count > 0)?;
        let too_early = together && self.batch > 0 && recipient.last_batch == self.batch;
        recipient.last_batch = self.batch;
        let increases = sequence > recipient.last_sequence;
        recipient.last_sequence = recipient.last_sequence.max(sequence);
        if stamp.count > sender.highest {
            sender.missing.extend(sender.highest + 1..stamp.count);
            sender.highest = stamp.count;
            self.faults.out_of_order += u64::from(!increases || too_early);
            Some(true)
        } else if sender.missing.remove(&stamp.count) {
            self.faults.out_of_order += 1;
            Some(true)
        } else {
            self.faults.duplicated += 1;
            Some(false)
        }
    }

    /// The verdict, when `sent` tells how many messages a sender has sent to a recipient.
    pub(super) fn finish(self, sent: impl Fn(usize, usize) -> u64) -> Faults {
        let mut faults = self.faults;
        for (index, recipient) in self.recipients.iter().enumerate() {
            let name = self.first as usize + index * self.step as usize;
            for (number, sender) in recipient.senders.iter().enumerate() {
                faults.lost += sent(number, name).saturating_sub(sender.highest) + sender.missing.len() as u64;
            }
        }
        faults
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
        order.finish(|sender, _| if sender == 1 { sent } else { 0 })
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
    fn keys_are_in_order_each_for_itself_and_one_at_a_time() {
        let mut order = InboxOrder::with_keys(5, 10, 2, 1);
        let stamp = |recipient, count| Stamp { sent_nanos: 0, count, sender: 0, recipient };
        order.begin_batch();
        assert_eq!(order.see(7, stamp(5, 1)), Some(true));
        assert_eq!(order.see(3, stamp(15, 1)), Some(true), "another key may be behind");
        assert_eq!(order.see(4, stamp(25, 1)), None);
        order.begin_batch();
        assert_eq!([order.see(8, stamp(5, 2)), order.see(9, stamp(5, 3))], [Some(true), Some(true)]);
        assert_eq!(
            order.finish(|_, recipient| if recipient == 5 { 3 } else { 2 }),
            Faults { out_of_order: 1, lost: 1, duplicated: 0 }
        );
    }

    #[test]
    fn strangers_do_not_count() {
        let mut order = InboxOrder::new(5, 1);
        for (sender, recipient, count) in [(1, 5, 1), (0, 4, 1), (0, 5, 0)] {
            assert_eq!(order.see(1, Stamp { sent_nanos: 0, count, sender, recipient }), None);
        }
    }
}
