//! Acknowledgements: merged before they go out, counted when they are answered.

use tandem_proto::raw::messaging::v1::{AckOutcome, DeliveryRange};

use crate::{Error, Refusal};

/// Most ranges in one `Ack`; what is left goes out with the next. Keeps a request small when acknowledgements come in no
/// order.
const RANGES_PER_ACK: usize = 1000;

/// Acknowledgements that wait to be sent, as ranges of delivery ids.
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

    /// Ranges for one `Ack`, merged; None when nothing waits. An id that was added twice is kept twice, so that the broker
    /// can say that it was acknowledged before.
    pub(super) fn take(&mut self) -> Option<Vec<DeliveryRange>> {
        if self.ranges.is_empty() {
            return None;
        }
        if self.ranges.len() == 1 {
            return Some(std::mem::take(&mut self.ranges));
        }
        self.ranges.sort_unstable_by_key(|range| range.first);
        let mut merged = Self::default();
        for range in &self.ranges {
            merged.add(range.first, range.last);
        }
        self.ranges = merged.ranges.split_off(merged.ranges.len().min(RANGES_PER_ACK));
        Some(merged.ranges)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// What became of the acknowledgements of a subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AckCounts {
    /// Deliveries that were acknowledged here.
    pub given: u64,
    /// Deliveries of which the broker has confirmed that they left the inbox.
    pub confirmed: u64,
    /// Deliveries in ranges that the broker refused, in whole or in part.
    pub refused: u64,
}

/// Adds up the answers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Answers, one to each `Ack`.
    pub(super) outcomes: u64,
    confirmed: u64,
    refused: u64,
    refusal: Option<Error>,
}

impl Tally {
    pub(super) fn add(&mut self, outcome: &AckOutcome) {
        self.outcomes += 1;
        self.confirmed += outcome.acknowledged;
        for refusal in &outcome.refusals {
            let range = refusal.range.unwrap_or_default();
            self.refused += range.last.saturating_sub(range.first).saturating_add(1);
            let status = refusal.status.clone().unwrap_or_default();
            let refusal = Refusal::from_proto(&status);
            tracing::warn!(first = range.first, last = range.last, %refusal, "acknowledgements were refused");
            self.refusal.get_or_insert_with(|| Error::Refused(Box::new(refusal)));
        }
    }

    pub(super) fn counts(&self, given: u64) -> AckCounts {
        AckCounts { given, confirmed: self.confirmed, refused: self.refused }
    }

    /// The first refusal since the last call.
    pub(super) fn take_refusal(&mut self) -> Option<Error> {
        self.refusal.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(waiting: &mut Waiting) -> Vec<(u64, u64)> {
        waiting.take().unwrap_or_default().iter().map(|range| (range.first, range.last)).collect()
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
        assert_eq!(waiting.take().map(|ranges| ranges.len()), None);
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
        assert_eq!(taken(&mut waiting).len(), RANGES_PER_ACK);
        assert_eq!(taken(&mut waiting).len(), 500);
        assert!(waiting.is_empty());
    }
}
