//! Leases that ended on their own.

use std::ops::RangeInclusive;

use tandem_proto::raw::messaging::v1 as raw;

use super::ranges::{RangeSet, length};
use crate::Refusal;

/// Ranges that are kept for a caller who does not ask.
const MAX_RANGES: usize = 65_536;

/// Deliveries that this subscription no longer holds because their ack deadline passed. Their messages will be delivered
/// again, perhaps elsewhere: work on them should stop, and an acknowledgement is refused unless the subscription is lenient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasesLost {
    /// Delivery ids, lowest first; ranges neither touch nor overlap.
    pub ranges: Vec<RangeInclusive<u64>>,
    /// `LEASE_LOST`, with the reason in its text; the newest when there were several.
    pub refusal: Refusal,
}

impl LeasesLost {
    /// Whether this delivery is among them.
    pub fn contains(&self, delivery_id: u64) -> bool {
        let before = self.ranges.partition_point(|range| *range.end() < delivery_id);
        self.ranges.get(before).is_some_and(|range| range.contains(&delivery_id))
    }
}

/// Keeps what was lost until the caller takes it. Bounded: the newest 65,536 ranges.
#[derive(Debug, Default)]
pub(super) struct Lost {
    ranges: RangeSet,
    refusal: Option<Refusal>,
}

impl Lost {
    /// Returns how many leases these are.
    pub(super) fn add(&mut self, lost: &raw::LeasesLost) -> u64 {
        let mut leases = 0;
        let refusal = Refusal::from_proto(&lost.status.clone().unwrap_or_default());
        for range in &lost.ranges {
            tracing::warn!(first = range.first, last = range.last, %refusal, "leases were lost");
            self.ranges.add(range.first, range.last);
            leases += length(*range);
        }
        self.ranges.truncate(MAX_RANGES);
        self.refusal = Some(refusal);
        leases
    }

    pub(super) fn take(&mut self) -> Option<LeasesLost> {
        if self.ranges.is_empty() {
            return None;
        }
        let refusal = self.refusal.take()?;
        Some(LeasesLost { ranges: self.ranges.take_all(), refusal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_told_once_and_together() {
        let mut lost = Lost::default();
        assert_eq!(lost.take(), None);
        for (first, last) in [(4, 5), (1, 1), (6, 6)] {
            let ranges = vec![raw::DeliveryRange { first, last }];
            assert_eq!(lost.add(&raw::LeasesLost { ranges, status: None }), last - first + 1);
        }
        let told = lost.take().expect("leases were lost");
        assert_eq!(told.ranges, [1..=1, 4..=6]);
        let among: Vec<_> = (0..8).filter(|id| told.contains(*id)).collect();
        assert_eq!(among, [1, 4, 5, 6]);
        assert_eq!(lost.take(), None);
    }
}
