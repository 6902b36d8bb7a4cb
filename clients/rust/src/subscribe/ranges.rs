//! Ranges of delivery ids: merged before they go out, so that a request stays small.

use std::{collections::BTreeMap, ops::RangeInclusive};

use tandem_proto::raw::messaging::v1::DeliveryRange;

/// Most ranges in one request (the broker takes 1,024); what is left goes out with the next.
pub(super) const RANGES_PER_REQUEST: usize = 1000;

/// Ranges that wait to be sent. An id that was added twice is kept twice, so that the broker can say that it was done
/// before.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// In the order of coming; neighbours that touch are one range.
    ranges: Vec<DeliveryRange>,
}

impl Waiting {
    /// Adds deliveries from `first` to `last`.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        match self.ranges.last_mut() {
            Some(range) if range.last.checked_add(1) == Some(first) => range.last = last,
            _ => self.ranges.push(DeliveryRange { first, last }),
        }
    }

    /// Ranges for one request, merged; empty when nothing waits.
    pub(super) fn take(&mut self) -> Vec<DeliveryRange> {
        if self.ranges.len() < 2 {
            return std::mem::take(&mut self.ranges);
        }
        self.ranges.sort_unstable_by_key(|range| range.first);
        let mut merged = Self::default();
        for range in &self.ranges {
            merged.add(range.first, range.last);
        }
        self.ranges = merged.ranges.split_off(merged.ranges.len().min(RANGES_PER_REQUEST));
        merged.ranges
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// Ids in which each counts once, however often it was added.
#[derive(Debug, Default)]
pub(super) struct RangeSet {
    /// Last by first. Ranges neither touch nor overlap.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// Adds ids from `first` to `last`.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        // From the highest down: what begins at `last + 1` or before and ends at `first - 1` or behind joins.
        while let Some((&start, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.ranges.remove(&start);
            first = first.min(start);
            last = last.max(end);
        }
        self.ranges.insert(first, last);
    }

    /// The lowest ranges for one request; empty when there are none.
    pub(super) fn take(&mut self) -> Vec<DeliveryRange> {
        let lowest = std::iter::from_fn(|| self.ranges.pop_first());
        lowest.take(RANGES_PER_REQUEST).map(|(first, last)| DeliveryRange { first, last }).collect()
    }

    /// All ranges, lowest first.
    pub(super) fn take_all(&mut self) -> Vec<RangeInclusive<u64>> {
        std::mem::take(&mut self.ranges).into_iter().map(|(first, last)| first..=last).collect()
    }

    /// Forgets the lowest ranges beyond this number of ranges.
    pub(super) fn truncate(&mut self, ranges: usize) {
        while self.ranges.len() > ranges {
            self.ranges.pop_first();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// How many ids are in a range.
pub(super) fn length(range: DeliveryRange) -> u64 {
    range.last.saturating_sub(range.first).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(waiting: &mut Waiting) -> Vec<(u64, u64)> {
        waiting.take().iter().map(|range| (range.first, range.last)).collect()
    }

    #[test]
    fn touching_ranges_become_one() {
        let mut waiting = Waiting::default();
        for id in [1, 2, 3, 7, 5, 6, 9] {
            waiting.add(id, id);
        }
        waiting.add(10, 20);
        assert_eq!(taken(&mut waiting), [(1, 3), (5, 7), (9, 20)]);
        assert!(waiting.is_empty());
        assert_eq!(taken(&mut waiting), []);
    }

    #[test]
    fn a_second_acknowledgement_is_not_hidden() {
        let mut waiting = Waiting::default();
        waiting.add(1, 4);
        waiting.add(2, 2);
        assert_eq!(taken(&mut waiting), [(1, 4), (2, 2)]);
    }

    #[test]
    fn many_ranges_go_out_in_parts() {
        let mut waiting = Waiting::default();
        for id in 0..1500 {
            waiting.add(id * 2, id * 2);
        }
        assert_eq!(taken(&mut waiting).len(), RANGES_PER_REQUEST);
        assert_eq!(taken(&mut waiting).len(), 500);
        assert!(waiting.is_empty());
    }

    #[test]
    fn a_set_holds_each_id_once() {
        let mut set = RangeSet::default();
        for (first, last) in [(5, 9), (1, 1), (20, 30), (2, 3), (8, 12), (25, 26), (u64::MAX, u64::MAX), (12, 12)] {
            set.add(first, last);
        }
        assert_eq!(set.take_all(), [1..=3, 5..=12, 20..=30, u64::MAX..=u64::MAX]);
        assert!(set.is_empty());
        for id in 0..3 {
            set.add(id * 2, id * 2);
        }
        set.add(0, u64::MAX);
        assert_eq!(set.take(), [DeliveryRange { first: 0, last: u64::MAX }]);
    }

    #[test]
    fn a_set_forgets_the_oldest_first() {
        let mut set = RangeSet::default();
        for id in 0..10 {
            set.add(id * 2, id * 2);
        }
        set.truncate(2);
        assert_eq!(set.take_all(), [16..=16, 18..=18]);
    }
}
