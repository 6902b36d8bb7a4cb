//! What a test says of deliveries beside acknowledging them, and what it is told of its leases.

use std::time::Duration;

use tandem_client::wire_duration;
use tandem_proto::messaging::v1::{
    Ack, AckOutcome, DeliveryRange, Extend, ExtendOutcome, LeasesLost, Nack, NackOutcome, Open,
    subscribe_request::Kind as Ask, subscribe_response::Kind as Answer,
};
use tonic::transport::Channel;

use super::Subscriber;

impl Subscriber {
    /// A stream that is open with these options, without credit.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn open_as(channel: Channel, open: Open) -> Self {
        let mut subscriber = Self::silent(channel).await;
        subscriber.send(Some(Ask::Open(open)));
        match subscriber.answer().await {
            Ok(Some(Answer::Opened(opened))) => {
                assert!(!opened.subscription_id.is_empty());
                subscriber.opened = opened;
            }
            other => panic!("the stream did not open: {other:?}"),
        }
        subscriber
    }

    /// The broker's name of this subscription.
    pub fn id(&self) -> &str {
        &self.opened.subscription_id
    }

    /// The ack deadline in force, in whole seconds.
    pub fn ack_deadline_s(&self) -> i64 {
        self.opened.ack_deadline.map_or(0, |deadline| deadline.seconds)
    }

    /// Acknowledges ranges, in one request.
    ///
    /// # Panics
    /// When the stream ends.
    pub async fn ack_ranges(&mut self, ranges: &[(u64, u64)]) -> AckOutcome {
        self.send_verdict(Ask::Ack(Ack { ranges: on_wire(ranges), ..Ack::default() })).await.ack()
    }

    /// Acknowledges in the name of another subscription.
    ///
    /// # Panics
    /// When the stream ends.
    pub async fn ack_as(&mut self, subscription_id: &str, first: u64, last: u64) -> AckOutcome {
        let ack = Ack { ranges: on_wire(&[(first, last)]), subscription_id: subscription_id.to_owned() };
        self.send_verdict(Ask::Ack(ack)).await.ack()
    }

    /// Gives deliveries back as failed. The ranges of `how` are not read.
    ///
    /// # Panics
    /// When the stream ends.
    pub async fn nack(&mut self, first: u64, last: u64, how: Nack) -> NackOutcome {
        let nack = Nack { ranges: on_wire(&[(first, last)]), ..how };
        self.send_verdict(Ask::Nack(nack)).await.nack()
    }

    /// Prolongs leases: `deadline` from now on, or the ack deadline of the subscription.
    ///
    /// # Panics
    /// When the stream ends.
    pub async fn extend(&mut self, first: u64, last: u64, deadline: Option<Duration>) -> ExtendOutcome {
        let ack_deadline = deadline.map(wire_duration);
        let extend = Extend { ranges: on_wire(&[(first, last)]), ack_deadline, ..Extend::default() };
        self.send_verdict(Ask::Extend(extend)).await.extend()
    }

    /// The next news of leases that ended on their own. Deliveries that come before it are kept.
    ///
    /// # Panics
    /// When something else comes, or nothing.
    pub async fn leases_lost(&mut self) -> LeasesLost {
        while self.lost.is_empty() {
            match self.answer().await {
                Ok(Some(Answer::DeliveryBatch(batch))) => self.keep(batch.deliveries),
                Ok(Some(Answer::LeasesLost(lost))) => self.lost.push_back(lost),
                other => panic!("news of lost leases was expected, and this came: {other:?}"),
            }
        }
        self.lost.pop_front().expect("there is one")
    }

    /// Whether news of lost leases has come that nobody has asked for.
    pub fn has_lost_leases(&self) -> bool {
        !self.lost.is_empty()
    }

    async fn send_verdict(&mut self, verdict: Ask) -> Outcome {
        assert_eq!(self.unanswered, 0, "outcomes come in order; take those of the acks first");
        self.send(Some(verdict));
        loop {
            match self.answer().await {
                Ok(Some(Answer::DeliveryBatch(batch))) => self.keep(batch.deliveries),
                Ok(Some(Answer::LeasesLost(lost))) => self.lost.push_back(lost),
                Ok(Some(answer)) => return Outcome(answer),
                other => panic!("a verdict was to be answered, and this came: {other:?}"),
            }
        }
    }
}

/// The answer to a verdict.
struct Outcome(Answer);

impl Outcome {
    fn ack(self) -> AckOutcome {
        match self.0 {
            Answer::AckOutcome(outcome) => outcome,
            other => panic!("not the outcome of an ack: {other:?}"),
        }
    }

    fn nack(self) -> NackOutcome {
        match self.0 {
            Answer::NackOutcome(outcome) => outcome,
            other => panic!("not the outcome of a nack: {other:?}"),
        }
    }

    fn extend(self) -> ExtendOutcome {
        match self.0 {
            Answer::ExtendOutcome(outcome) => outcome,
            other => panic!("not the outcome of an extension: {other:?}"),
        }
    }
}

fn on_wire(ranges: &[(u64, u64)]) -> Vec<DeliveryRange> {
    ranges.iter().map(|(first, last)| DeliveryRange { first: *first, last: *last }).collect()
}
