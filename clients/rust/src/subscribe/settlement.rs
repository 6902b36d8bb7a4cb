//! What becomes of deliveries, with an outcome for each: gathered into few requests, in which each delivery has a range of its own,
//! so that a refusal names exactly those that it is about.

use std::{collections::VecDeque, time::Duration};

use tandem_proto::raw::messaging::v1::{self as raw, AckRefusal, subscribe_request::Kind};
use tokio::sync::oneshot;

use super::verdict::Nack;
use crate::{Error, Refusal, wire_duration};

/// Deliveries of one request; the contract allows 1,024.
const MOST_RANGES: usize = 1_000;
/// With so many requests without an outcome, what is said gathers for the next one, so that one commit is for many.
const ENOUGH_UNANSWERED: usize = 4;
/// Requests without an outcome, also of those that nothing more can join; the broker stops reading at 1,024.
const MOST_UNANSWERED: usize = 256;

/// What somebody waits for.
pub(super) type Outcome = oneshot::Receiver<Result<(), Error>>;

/// What shall become of a delivery. Equal ones that follow one another travel together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Ack,
    Nack(Nack),
    Extend(Option<Duration>),
}

#[derive(Debug)]
struct Request {
    verdict: Verdict,
    waiting: Vec<(u64, oneshot::Sender<Result<(), Error>>)>,
}

/// Of one stream. The writer takes requests; the reader brings outcomes, which come in the order of the requests.
#[derive(Debug, Default)]
pub(super) struct Settlement {
    queue: VecDeque<Request>,
    settling: VecDeque<Request>,
    extending: VecDeque<Request>,
    /// Why nothing is taken any more.
    ended: Option<Error>,
}

impl Settlement {
    /// Says what shall become of a delivery.
    pub(super) fn add(&mut self, delivery_id: u64, verdict: Verdict) -> Outcome {
        let (tell, outcome) = oneshot::channel();
        if let Some(error) = &self.ended {
            // Whoever asks hears it; nobody has to.
            tell.send(Err(error.clone())).ok();
            return outcome;
        }
        // A request names a delivery once. It is acked or nacked once, and extended any number of times.
        let can_be_twice = matches!(verdict, Verdict::Extend(_));
        let joins = self.queue.back().is_some_and(|last| {
            last.verdict == verdict
                && last.waiting.len() < MOST_RANGES
                && !(can_be_twice && last.waiting.iter().any(|(other, _)| *other == delivery_id))
        });
        if !joins {
            self.queue.push_back(Request { verdict, waiting: Vec::new() });
        }
        if let Some(last) = self.queue.back_mut() {
            last.waiting.push((delivery_id, tell));
        }
        outcome
    }

    /// The next request, if one can be sent now.
    pub(super) fn take(&mut self) -> Option<Kind> {
        let grows = self.queue.len() == 1 && self.queue[0].waiting.len() < MOST_RANGES;
        let most = if grows { ENOUGH_UNANSWERED } else { MOST_UNANSWERED };
        if self.settling.len() + self.extending.len() >= most {
            return None;
        }
        let request = self.queue.pop_front()?;
        let ranges = request.waiting.iter().map(|(id, _)| raw::DeliveryRange { first: *id, last: *id }).collect();
        let subscription_id = String::new();
        let (kind, answers) = match &request.verdict {
            Verdict::Ack => (Kind::Ack(raw::Ack { ranges, subscription_id }), &mut self.settling),
            Verdict::Nack(nack) => {
                let (reason, dead_letter) = (nack.reason.clone(), nack.dead_letter);
                let delay = nack.delay.map(wire_duration);
                (Kind::Nack(raw::Nack { ranges, delay, reason, dead_letter, subscription_id }), &mut self.settling)
            }
            Verdict::Extend(deadline) => {
                let ack_deadline = deadline.map(wire_duration);
                (Kind::Extend(raw::Extend { ranges, ack_deadline, subscription_id }), &mut self.extending)
            }
        };
        answers.push_back(request);
        Some(kind)
    }

    /// The outcome of the oldest ack or nack.
    pub(super) fn settled(&mut self, refusals: &[AckRefusal]) {
        answer(self.settling.pop_front(), refusals);
    }

    /// The outcome of the oldest extension.
    pub(super) fn extended(&mut self, refusals: &[AckRefusal]) {
        answer(self.extending.pop_front(), refusals);
    }

    /// Requests without an outcome, those that wait included.
    pub(super) fn unanswered(&self) -> u64 {
        (self.queue.len() + self.settling.len() + self.extending.len()) as u64
    }

    /// Whether nothing waits to be sent.
    pub(super) fn has_sent_all(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether the stream has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Nothing more can be said; what was said gets its outcome.
    pub(super) fn refuse_new(&mut self, error: &Error) {
        self.ended.get_or_insert_with(|| error.clone());
    }

    /// The stream has ended: what has no outcome gets this one, and so does what comes after.
    pub(super) fn fail(&mut self, error: &Error) {
        self.ended.get_or_insert_with(|| error.clone());
        let left = self.queue.drain(..).chain(self.settling.drain(..)).chain(self.extending.drain(..));
        for (_, tell) in left.flat_map(|request| request.waiting) {
            tell.send(Err(error.clone())).ok();
        }
    }
}

fn answer(request: Option<Request>, refusals: &[AckRefusal]) {
    for (id, tell) in request.into_iter().flat_map(|request| request.waiting) {
        let refused = refusals
            .iter()
            .find(|refusal| refusal.range.as_ref().is_some_and(|range| (range.first..=range.last).contains(&id)));
        let outcome = match refused {
            None => Ok(()),
            Some(refusal) => {
                let refusal = Refusal::from_proto(&refusal.status.clone().unwrap_or_default());
                Err(Error::Refused(Box::new(refusal)))
            }
        };
        // Who does not wait does not want to know.
        tell.send(outcome).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(kind: Option<Kind>) -> Vec<u64> {
        let ranges = match kind {
            Some(Kind::Ack(ack)) => ack.ranges,
            Some(Kind::Nack(nack)) => nack.ranges,
            Some(Kind::Extend(extend)) => extend.ranges,
            other => panic!("no verdict: {other:?}"),
        };
        assert!(ranges.iter().all(|range| range.first == range.last));
        ranges.iter().map(|range| range.first).collect()
    }

    #[test]
    fn each_delivery_has_its_own_outcome_however_many_travel_together() {
        let mut settlement = Settlement::default();
        let mut acks: Vec<_> = (1..=3).map(|id| settlement.add(id, Verdict::Ack)).collect();
        let mut extended = settlement.add(9, Verdict::Extend(None));
        let mut again = settlement.add(9, Verdict::Extend(None));
        let mut back = settlement.add(4, Verdict::Nack(Nack::because("busy")));
        assert_eq!(settlement.unanswered(), 4);
        let sent: Vec<_> = std::iter::from_fn(|| settlement.take()).map(|kind| ids(Some(kind))).collect();
        assert_eq!(sent, [vec![1, 2, 3], vec![9], vec![9], vec![4]]);
        let refusal = AckRefusal { range: Some(raw::DeliveryRange { first: 2, last: 2 }), status: None };
        settlement.settled(std::slice::from_ref(&refusal));
        assert!(acks[0].try_recv().unwrap().is_ok() && acks[2].try_recv().unwrap().is_ok());
        assert!(acks[1].try_recv().unwrap().is_err());
        settlement.extended(&[]);
        assert!(extended.try_recv().unwrap().is_ok());
        settlement.extended(&[]);
        assert!(again.try_recv().unwrap().is_ok());
        settlement.fail(&Error::Closed { stream: "subscribe" });
        assert_eq!(back.try_recv().unwrap().unwrap_err().reason(), "STREAM_CLOSED");
        let mut late = settlement.add(5, Verdict::Ack);
        assert!(late.try_recv().unwrap().is_err());
        assert_eq!(settlement.unanswered(), 0);
    }

    #[test]
    fn what_is_said_while_enough_is_under_way_travels_together() {
        let mut settlement = Settlement::default();
        for id in 1..=4 {
            drop(settlement.add(id, Verdict::Ack));
            assert_eq!(ids(settlement.take()), [id], "nothing is waited for");
        }
        for id in 5..=7 {
            drop(settlement.add(id, Verdict::Ack));
            assert!(settlement.take().is_none());
        }
        settlement.settled(&[]);
        assert_eq!(ids(settlement.take()), [5, 6, 7]);
        // What nothing can join any more waits for nobody.
        for id in 10..20 {
            drop(settlement.add(id, Verdict::Nack(Nack::because(format!("reason {id}")))));
        }
        let sent: Vec<_> = std::iter::from_fn(|| settlement.take()).map(|kind| ids(Some(kind))).collect();
        assert_eq!(sent, (10..19).map(|id| vec![id]).collect::<Vec<_>>());
        (0..9).for_each(|_| settlement.settled(&[]));
        assert!(settlement.take().is_none(), "it may still grow");
        settlement.settled(&[]);
        assert_eq!(ids(settlement.take()), [19]);
    }

    #[test]
    fn a_full_request_waits_for_nobody_and_there_is_an_end_to_them() {
        let mut settlement = Settlement::default();
        let full = MOST_RANGES as u64;
        for id in 0..300 * full {
            drop(settlement.add(id, Verdict::Ack));
        }
        let sent = std::iter::from_fn(|| settlement.take()).count();
        assert_eq!(sent, MOST_UNANSWERED);
    }
}
