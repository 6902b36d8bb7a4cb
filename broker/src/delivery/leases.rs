//! The leases of one stream by delivery id, and when they lapse.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use super::lane::Lease;
use crate::rejection::{Reason, Rejection};

/// Lapsed leases that a stream remembers, so that a late ack is told why it is refused.
const MAX_LAPSED: usize = 65_536;

/// Entries of deadlines that are of no lease any more and are kept all the same, beside as many as there are leases.
const MAX_SPARE_DEADLINES: usize = 1_024;

/// First and last delivery id of a range, and why some or all of it is refused.
pub(crate) type Refused = (u64, u64, Rejection);

/// See the module. Deliveries count from 1.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Leases from `first_id` on, with their deadlines; none where the delivery is done.
    held: VecDeque<Option<(Lease, u64)>>,
    first_id: u64,
    /// Those before were handed out by another leader.
    origin: u64,
    lapsed: BTreeMap<u64, Lease>,
    /// Deadline, first and last id. Deliveries of one batch share an entry; a prolonged one finds another when it comes up.
    deadlines: BinaryHeap<Reverse<(u64, u64, u64)>>,
}

impl Default for Leases {
    fn default() -> Self {
        Self { held: VecDeque::new(), first_id: 1, origin: 1, lapsed: BTreeMap::new(), deadlines: BinaryHeap::new() }
    }
}

impl Leases {
    /// Deliveries count from `first_id`: those before were handed out by another leader, and their leases have ended.
    pub(crate) fn starting_at(first_id: u64) -> Self {
        let first_id = first_id.max(1);
        Self { first_id, origin: first_id, ..Self::default() }
    }

    /// From the oldest lease to the newest, those between that are done included.
    pub(crate) fn span(&self) -> usize {
        self.held.len()
    }

    /// Adds the lease of a delivery, and gives its id.
    pub(crate) fn push(&mut self, lease: Lease, deadline_ms: u64) -> u64 {
        self.held.push_back(Some((lease, deadline_ms)));
        self.next_id() - 1
    }

    /// The newest `count` deliveries are one batch.
    pub(crate) fn end_batch(&mut self, count: u64, deadline_ms: u64) {
        self.add_deadline(deadline_ms, self.next_id() - count, self.next_id() - 1);
    }

    /// Entries outlive their leases until they come up. Where they are many more than the leases, as with a client that
    /// acknowledges out of order or prolongs again and again, they are built anew.
    fn add_deadline(&mut self, deadline_ms: u64, first: u64, last: u64) {
        self.deadlines.push(Reverse((deadline_ms, first, last)));
        if self.deadlines.len() <= 2 * self.held.len() + MAX_SPARE_DEADLINES {
            return;
        }
        let mut entries: Vec<(u64, u64, u64)> = Vec::new();
        for (id, slot) in (self.first_id..).zip(&self.held) {
            let Some((_, deadline_ms)) = slot else { continue };
            match entries.last_mut() {
                Some((same, _, last)) if same == deadline_ms && *last + 1 == id => *last = id,
                _ => entries.push((*deadline_ms, id, id)),
            }
        }
        self.deadlines = entries.into_iter().map(Reverse).collect();
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        if self.held.is_empty() { None } else { self.deadlines.peek().map(|Reverse((deadline_ms, ..))| *deadline_ms) }
    }

    fn next_id(&self) -> u64 {
        self.first_id + self.held.len() as u64
    }

    fn slot(&mut self, id: u64) -> Option<&mut Option<(Lease, u64)>> {
        self.held.get_mut(id.checked_sub(self.first_id)? as usize)
    }

    /// Ends leases: those that are held; with `lenient`, those that have lapsed, by delivery id; and what is refused.
    pub(crate) fn take(
        &mut self,
        ranges: &[(u64, u64)],
        lenient: bool,
    ) -> (Vec<Lease>, Vec<(u64, Lease)>, Vec<Refused>) {
        let (mut leases, mut late, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for &(first, last) in ranges {
            if let Some(why) = self.check(first, last) {
                refused.push((first, last, why));
                continue;
            }
            if first < self.origin {
                refused.push((first, last.min(self.origin - 1), Self::of_another_leader()));
            }
            let first = first.max(self.origin);
            if first > last {
                continue;
            }
            let lapsed: Vec<u64> = self.lapsed.range(first..=last).map(|(id, _)| *id).collect();
            let shortened = self.first_id.min(last + 1).saturating_sub(first) as usize;
            let mut missing = shortened > lapsed.iter().filter(|id| **id < self.first_id).count();
            for id in first.max(self.first_id)..=last {
                match self.slot(id).and_then(Option::take) {
                    Some((lease, _)) => leases.push(lease),
                    None => missing |= !self.lapsed.contains_key(&id),
                }
            }
            if lenient {
                late.extend(lapsed.iter().filter_map(|id| Some((*id, self.lapsed.remove(id)?))));
            } else if let (Some(from), Some(to)) = (lapsed.first(), lapsed.last()) {
                let text = format!(
                    "the ack deadline of some of the deliveries {from} to {to} has passed; they will come again"
                );
                refused.push((*from, *to, Rejection::new(Reason::LeaseLost, text)));
            }
            if missing {
                let text = format!("some of the deliveries {first} to {last} are acknowledged already");
                refused.push((first, last, Rejection::new(Reason::UnknownDelivery, text)));
            }
        }
        self.shorten();
        (leases, late, refused)
    }

    fn of_another_leader() -> Rejection {
        // The ack of a client may have counted under the leader before, whose answer was lost; only the messages tell.
        let text =
            "the lease ended when another node became leader; messages come again unless their ack had counted by then";
        Rejection::new(Reason::LeaseLost, text)
    }

    /// Prolongs leases; returns how many.
    pub(crate) fn extend(&mut self, ranges: &[(u64, u64)], deadline_ms: u64) -> (u64, Vec<Refused>) {
        let (mut extended, mut refused, mut good) = (0, Vec::new(), Vec::new());
        for &(first, last) in ranges {
            match self.check(first, last) {
                Some(why) => refused.push((first, last, why)),
                None => good.push((first, last)),
            }
        }
        for (first, last) in merged(good) {
            for id in first.max(self.first_id)..=last {
                if let Some(Some((_, deadline))) = self.slot(id) {
                    *deadline = deadline_ms;
                    extended += 1;
                }
            }
            if last >= self.first_id {
                self.add_deadline(deadline_ms, first.max(self.first_id), last);
            }
        }
        (extended, refused)
    }

    /// Ends the leases whose deadline has passed; returns them and the ranges of their ids.
    pub(crate) fn lapse(&mut self, now_ms: u64) -> (Vec<Lease>, Vec<(u64, u64)>) {
        let (mut leases, mut ids) = (Vec::new(), Vec::<(u64, u64)>::new());
        while self.deadlines.peek().is_some_and(|Reverse((at, ..))| *at <= now_ms) {
            let Some(Reverse((_, first, last))) = self.deadlines.pop() else { break };
            for id in first.max(self.first_id)..=last {
                let Some(slot) = self.slot(id) else { continue };
                // Prolonged ones have another entry.
                let Some((lease, _)) = slot.take_if(|(_, deadline)| *deadline <= now_ms) else { continue };
                leases.push(lease);
                self.lapsed.insert(id, lease);
                match ids.last_mut() {
                    Some((_, end)) if *end + 1 == id => *end = id,
                    _ => ids.push((id, id)),
                }
            }
        }
        while self.lapsed.len() > MAX_LAPSED {
            self.lapsed.pop_first();
        }
        self.shorten();
        (leases, ids)
    }

    /// Ends all leases.
    pub(crate) fn take_all(&mut self) -> Vec<Lease> {
        self.first_id = self.next_id();
        self.held.drain(..).flatten().map(|(lease, _)| lease).collect()
    }

    fn check(&self, first: u64, last: u64) -> Option<Rejection> {
        let next_id = self.next_id();
        (first == 0 || first > last || last >= next_id).then(|| {
            let text = format!(
                "no delivery has an id from {first} to {last} here; this subscription made deliveries 1 to {}",
                next_id - 1
            );
            Rejection::new(Reason::UnknownDelivery, text)
        })
    }

    fn shorten(&mut self) {
        while self.held.front().is_some_and(Option::is_none) {
            self.held.pop_front();
            self.first_id += 1;
        }
        if self.held.is_empty() {
            self.deadlines.clear();
        }
    }
}

/// The same numbers in as few ranges as possible, rising.
fn merged(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Lane, Source};

    fn lease(sequence: u64) -> Lease {
        let lane = Lane { source: Source::Direct, priority: 5 };
        Lease { lane, sequence, after: 0, batch: 1, ordering: 0, expires_ms: 0, bytes: 0 }
    }

    fn leases(count: u64) -> Leases {
        let mut leases = Leases::default();
        for sequence in 1..=count {
            assert_eq!(leases.push(lease(sequence), 10), sequence);
        }
        leases.end_batch(count, 10);
        leases
    }

    fn sequences(leases: &[Lease]) -> Vec<u64> {
        leases.iter().map(|lease| lease.sequence).collect()
    }

    #[test]
    fn leases_of_another_leader_are_refused_as_lost() {
        let mut leases = Leases::starting_at(10);
        assert_eq!(leases.push(lease(1), 100), 10);
        let (taken, _, refused) = leases.take(&[(7, 10)], false);
        assert_eq!(sequences(&taken), [1]);
        assert_eq!((refused[0].0, refused[0].1, refused[0].2.reason), (7, 9, Reason::LeaseLost));
        let (_, _, refused) = leases.take(&[(1, 2)], true);
        assert_eq!((refused.len(), refused[0].2.reason), (1, Reason::LeaseLost));
    }

    #[test]
    fn a_lease_ends_once() {
        let mut leases = leases(4);
        assert_eq!(sequences(&leases.take(&[(2, 3)], false).0), [2, 3]);
        let (taken, _, refused) = leases.take(&[(1, 4), (5, 5), (0, 1), (3, 2)], false);
        assert_eq!((sequences(&taken), refused.len(), leases.span()), (vec![1, 4], 4, 0));
        assert!(refused.iter().all(|(.., why)| why.reason == Reason::UnknownDelivery));
    }

    #[test]
    fn a_done_delivery_is_refused_beside_one_that_has_lapsed() {
        let mut leases = leases(3);
        leases.take(&[(1, 1)], false);
        leases.extend(&[(2, 2)], 20);
        leases.lapse(10);
        let (taken, _, refused) = leases.take(&[(1, 3)], false);
        let reasons: Vec<_> = refused.iter().map(|(.., why)| why.reason).collect();
        assert_eq!((sequences(&taken), reasons), (vec![2], vec![Reason::LeaseLost, Reason::UnknownDelivery]));
    }

    #[test]
    fn promise_5_a_lapsed_lease_is_refused_with_its_reason() {
        let mut leases = leases(4);
        assert_eq!(leases.extend(&[(2, 3)], 20).0, 2);
        assert!(leases.lapse(9).0.is_empty());
        let (lapsed, ids) = leases.lapse(10);
        assert_eq!((sequences(&lapsed), ids, leases.next_deadline_ms()), (vec![1, 4], vec![(1, 1), (4, 4)], Some(20)));
        let (taken, _, refused) = leases.take(&[(1, 2)], false);
        assert_eq!((sequences(&taken), refused[0].2.reason, refused.len()), (vec![2], Reason::LeaseLost, 1));
        let (_, late, refused) = leases.take(&[(4, 4)], true);
        assert_eq!((late[0].0, late[0].1.sequence, late.len(), refused.len()), (4, 4, 1, 0), "a lenient stream may");
        assert_eq!(sequences(&leases.lapse(20).0), [3]);
    }
    #[test]
    fn deadlines_stay_as_many_as_leases_however_often_they_change() {
        let mut leases = leases(4);
        for round in 0..20_000 {
            // One that stays, and others that are done at once, each a batch of its own; and what stays is prolonged.
            let id = leases.push(lease(5), 1_000_000 + round);
            leases.end_batch(1, 1_000_000 + round);
            leases.take(&[(id, id)], false);
            assert_eq!(leases.extend(&[(4, 4), (1, 2), (2, 3), (1, 4)], 2_000_000 + round).0, 4, "each counts once");
        }
        assert!(leases.deadlines.len() < 2 * leases.span() + 2 * MAX_SPARE_DEADLINES, "{}", leases.deadlines.len());
        assert!(leases.deadlines.len() < 50_000, "{}", leases.deadlines.len());
        assert_eq!(leases.lapse(2_000_000 + 19_998).0.len(), 0);
        assert_eq!(sequences(&leases.lapse(2_000_000 + 19_999).0), [1, 2, 3, 4], "and none is forgotten");
    }
}
