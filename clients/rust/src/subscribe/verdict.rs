//! What became of deliveries, as requests to the broker.

use std::{collections::VecDeque, time::Duration};

use tandem_proto::raw::messaging::v1::{self as raw, subscribe_request::Kind};

use super::ranges::{RangeSet, Waiting};
use crate::wire_duration;

/// How a delivery failed, and what shall become of its message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nack {
    /// When the next attempt may be, at most 24 h away. Default: None, after the backoff of the sandbox.
    pub delay: Option<Duration>,
    /// Why, for the attempt history: at most 1,024 bytes. Default: empty.
    pub reason: String,
    /// No further attempt: the message becomes a dead letter now. Default: false.
    pub dead_letter: bool,
}

impl Nack {
    /// To be tried again after the backoff of the sandbox.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..Self::default() }
    }

    /// Not to be tried again: the message becomes a dead letter.
    pub fn dead_letter(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), dead_letter: true, ..Self::default() }
    }

    /// Not before this has passed.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay: Some(delay), ..self }
    }
}

/// Verdicts that wait for the connection, in the order in which they were given. Neighbours of one kind become one
/// request. Bounded by what was delivered, as long as the caller says one thing about each delivery.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    queue: VecDeque<Verdict>,
    /// Requests taken so far; each gets one outcome.
    sent: u64,
}

#[derive(Debug)]
enum Verdict {
    Ack(Waiting),
    Nack(Nack, Waiting),
    /// A set, because a heartbeat names the same deliveries again and again.
    Extend(Option<Duration>, RangeSet),
}

impl Verdicts {
    pub(super) fn ack(&mut self, first: u64, last: u64) {
        if !matches!(self.queue.back(), Some(Verdict::Ack(_))) {
            self.queue.push_back(Verdict::Ack(Waiting::default()));
        }
        if let Some(Verdict::Ack(waiting)) = self.queue.back_mut() {
            waiting.add(first, last);
        }
    }

    pub(super) fn nack(&mut self, first: u64, last: u64, nack: Nack) {
        match self.queue.back_mut() {
            Some(Verdict::Nack(same, waiting)) if *same == nack => waiting.add(first, last),
            _ => {
                let mut waiting = Waiting::default();
                waiting.add(first, last);
                self.queue.push_back(Verdict::Nack(nack, waiting));
            }
        }
    }

    pub(super) fn extend(&mut self, first: u64, last: u64, deadline: Option<Duration>) {
        match self.queue.back_mut() {
            Some(Verdict::Extend(same, waiting)) if *same == deadline => waiting.add(first, last),
            _ => {
                let mut waiting = RangeSet::default();
                waiting.add(first, last);
                self.queue.push_back(Verdict::Extend(deadline, waiting));
            }
        }
    }

    /// The next request; None when nothing waits.
    pub(super) fn take(&mut self) -> Option<Kind> {
        let subscription_id = String::new();
        let (kind, is_empty) = match self.queue.front_mut()? {
            Verdict::Ack(waiting) => {
                let ranges = waiting.take();
                (Kind::Ack(raw::Ack { ranges, subscription_id }), waiting.is_empty())
            }
            Verdict::Nack(nack, waiting) => {
                let ranges = waiting.take();
                let delay = nack.delay.map(wire_duration);
                let (reason, dead_letter) = (nack.reason.clone(), nack.dead_letter);
                (Kind::Nack(raw::Nack { ranges, delay, reason, dead_letter, subscription_id }), waiting.is_empty())
            }
            Verdict::Extend(deadline, waiting) => {
                let ranges = waiting.take();
                let ack_deadline = deadline.map(wire_duration);
                (Kind::Extend(raw::Extend { ranges, ack_deadline, subscription_id }), waiting.is_empty())
            }
        };
        if is_empty {
            self.queue.pop_front();
        }
        self.sent += 1;
        Some(kind)
    }

    /// Requests that have no outcome when `outcomes` have come, those that wait included.
    pub(super) fn unanswered(&self, outcomes: u64) -> u64 {
        self.sent.saturating_sub(outcomes) + self.queue.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(verdicts: &mut Verdicts) -> Vec<String> {
        let show = |ranges: &[raw::DeliveryRange]| {
            ranges.iter().map(|range| format!("{}-{}", range.first, range.last)).collect::<Vec<_>>().join(" ")
        };
        let mut seen = Vec::new();
        while let Some(kind) = verdicts.take() {
            seen.push(match kind {
                Kind::Ack(ack) => format!("ack {}", show(&ack.ranges)),
                Kind::Nack(nack) => format!("nack {} {} {}", show(&nack.ranges), nack.reason, nack.dead_letter),
                Kind::Extend(extend) => format!("extend {} {:?}", show(&extend.ranges), extend.ack_deadline),
                other => panic!("not a verdict: {other:?}"),
            });
        }
        seen
    }

    #[test]
    fn neighbours_of_one_kind_go_together_and_the_order_stays() {
        let mut verdicts = Verdicts::default();
        verdicts.ack(1, 1);
        verdicts.ack(2, 2);
        verdicts.nack(3, 3, Nack::because("busy"));
        verdicts.nack(4, 4, Nack::because("busy"));
        verdicts.nack(5, 5, Nack::dead_letter("broken"));
        verdicts.ack(6, 7);
        verdicts.extend(1, 9, None);
        verdicts.extend(1, 12, None);
        verdicts.extend(10, 10, Some(Duration::from_secs(60)));
        assert_eq!(verdicts.unanswered(0), 6);
        let minute = Some(wire_duration(Duration::from_secs(60)));
        let expected = [
            "ack 1-2".to_owned(),
            "nack 3-4 busy false".to_owned(),
            "nack 5-5 broken true".to_owned(),
            "ack 6-7".to_owned(),
            "extend 1-12 None".to_owned(),
            format!("extend 10-10 {minute:?}"),
        ];
        assert_eq!(all(&mut verdicts), expected);
        assert_eq!((verdicts.unanswered(0), verdicts.unanswered(6)), (6, 0));
    }

    #[test]
    fn a_verdict_with_many_ranges_stays_in_its_place() {
        let mut verdicts = Verdicts::default();
        for id in 0..1500 {
            verdicts.nack(id * 2, id * 2, Nack::default());
        }
        verdicts.ack(1, 1);
        let kinds: Vec<_> = all(&mut verdicts).iter().map(|seen| seen[..4].to_owned()).collect();
        assert_eq!(kinds, ["nack", "nack", "ack "]);
    }

    #[test]
    fn heartbeats_that_wait_do_not_add_up() {
        let mut verdicts = Verdicts::default();
        for last in 1..100_000 {
            verdicts.extend(1, last, None);
        }
        assert_eq!(verdicts.unanswered(0), 1);
        assert_eq!(all(&mut verdicts), ["extend 1-99999 None"]);
    }
}
