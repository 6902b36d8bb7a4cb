//! What the broker made of the verdicts.

use tandem_proto::{
    google::rpc,
    raw::messaging::v1::{AckOutcome, AckRefusal, ExtendOutcome, NackOutcome},
};

use super::ranges::length;
use crate::{Error, Refusal};

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

/// What became of the nacks of a subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NackCounts {
    /// Deliveries that were given back here.
    pub given: u64,
    /// Deliveries of which the broker has confirmed that they will be attempted again.
    pub deferred: u64,
    /// Deliveries whose messages became dead letters: asked for, or because it was the last attempt.
    pub dead_lettered: u64,
    /// Deliveries in ranges that the broker refused, in whole or in part.
    pub refused: u64,
}

/// What became of the leases of a subscription.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Leases that were prolonged; one counts every time.
    pub extended: u64,
    /// Deliveries in ranges to extend that the broker refused, in whole or in part.
    pub refused: u64,
    /// Leases that ended on their own: the ack deadline passed.
    pub lost: u64,
}

/// Adds up the answers.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Answers, one to each verdict that was sent.
    pub(super) outcomes: u64,
    acks: AckCounts,
    nacks: NackCounts,
    pub(super) leases: LeaseCounts,
    refusal: Option<Error>,
}

impl Tally {
    pub(super) fn add_ack(&mut self, outcome: &AckOutcome) {
        self.outcomes += 1;
        self.acks.confirmed += outcome.acknowledged;
        self.acks.refused += self.refused("acknowledgements", &outcome.refusals);
    }

    pub(super) fn add_nack(&mut self, outcome: &NackOutcome) {
        self.outcomes += 1;
        self.nacks.deferred += outcome.deferred;
        self.nacks.dead_lettered += outcome.dead_lettered;
        self.nacks.refused += self.refused("nacks", &outcome.refusals);
    }

    pub(super) fn add_extend(&mut self, outcome: &ExtendOutcome) {
        self.outcomes += 1;
        self.leases.extended += outcome.extended;
        self.leases.refused += self.refused("extensions", &outcome.refusals);
    }

    /// Keeps the first refusal; returns how many deliveries are in the ranges.
    fn refused(&mut self, what: &'static str, refusals: &[AckRefusal]) -> u64 {
        let mut deliveries = 0;
        for refusal in refusals {
            let range = refusal.range.unwrap_or_default();
            deliveries += length(range);
            let refusal = Refusal::from_proto(refusal.status.as_ref().unwrap_or(&rpc::Status::default()));
            tracing::warn!(first = range.first, last = range.last, %refusal, "{what} were refused");
            self.refusal.get_or_insert_with(|| Error::Refused(Box::new(refusal)));
        }
        deliveries
    }

    pub(super) fn acks(&self, given: u64) -> AckCounts {
        AckCounts { given, ..self.acks }
    }

    pub(super) fn nacks(&self, given: u64) -> NackCounts {
        NackCounts { given, ..self.nacks }
    }

    /// The first refusal since the last call.
    pub(super) fn take_refusal(&mut self) -> Option<Error> {
        self.refusal.take()
    }
}
