//! What a client holds, by delivery id.

use tandem_proto::raw::messaging::v1::DeliveryRange;

/// Numbers, as ranges.
#[derive(Debug, Default)]
pub(super) struct Ranges(std::collections::BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range that lies behind all others.
    pub(super) fn add(&mut self, first: u64, last: u64) {
        if let Some(mut newest) = self.0.last_entry()
            && *newest.get() + 1 == first
        {
            newest.insert(last);
            return;
        }
        self.0.insert(first, last);
    }

    pub(super) fn remove(&mut self, ranges: &[DeliveryRange]) {
        for gone in ranges {
            while let Some((first, last)) = self.0.range(..=gone.last).next_back().map(|(first, last)| (*first, *last))
                && last >= gone.first
            {
                self.0.remove(&first);
                if last > gone.last {
                    self.0.insert(gone.last + 1, last);
                }
                if first < gone.first {
                    self.0.insert(first, gone.first - 1);
                    break;
                }
            }
        }
    }

    pub(super) fn take(&mut self) -> Vec<DeliveryRange> {
        std::mem::take(&mut self.0).into_iter().map(|(first, last)| DeliveryRange { first, last }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_is_left() {
        let mut ranges = Ranges::default();
        ranges.add(1, 10);
        ranges.add(11, 20);
        ranges.remove(&[DeliveryRange { first: 3, last: 4 }, DeliveryRange { first: 12, last: 15 }]);
        ranges.add(30, 30);
        ranges.remove(&[DeliveryRange { first: 1, last: 1 }, DeliveryRange { first: 18, last: 40 }]);
        ranges.remove(&[DeliveryRange { first: 50, last: 60 }]);
        let left: Vec<_> = ranges.take().iter().map(|range| (range.first, range.last)).collect();
        assert_eq!(left, [(2, 2), (5, 11), (16, 17)]);
        assert!(ranges.take().is_empty());
    }
}
