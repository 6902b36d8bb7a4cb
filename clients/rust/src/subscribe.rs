//! Receiving what waits in the inbox of a sandbox.

mod acker;
mod credit;
mod delivery;
mod inbox;
mod lost;
mod options;
mod outbox;
mod ranges;
mod settlement;
mod tally;
mod verdict;

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use prost::Message as _;
use tandem_proto::raw::messaging::v1::{
    DeliveryBatch, SubscribeResponse, subscribe_response::Kind, subscribe_service_client::SubscribeServiceClient,
};
use tonic::Streaming;

pub(crate) use self::inbox::STANDS;
pub use self::{
    acker::Acker,
    delivery::{Delivery, Incoming, RawDelivery},
    inbox::{Inbox, InboxDelivery},
    lost::LeasesLost,
    options::SubscribeOptions,
    tally::{AckCounts, LeaseCounts, NackCounts},
    verdict::Nack,
};
use self::{
    credit::{Credit, Meter},
    lost::Lost,
    outbox::{Outbox, Requests},
    tally::Tally,
};
use crate::{Client, Error, wire};

/// An open inbox. Deliveries are taken with [`next`](Self::next) or by the batch, which also gives the broker new credit,
/// half a window at a time. Acks, nacks and extensions are collected and go out as soon as the connection is free.
///
/// A delivery is a lease: when its ack deadline passes the message goes elsewhere, which [`next_incoming`](Self::next_incoming)
/// or [`take_leases_lost`](Self::take_leases_lost) tells. [`close`](Self::close) ends the subscription in order: it waits for
/// all answers and gives back what is held. Dropping it may lose what was not sent yet, and what is held counts as a
/// failed attempt.
///
/// Nothing runs in the background: answers are read by the same calls that take deliveries, and a heartbeat
/// ([`extend_all`](Self::extend_all)) is the caller's.
pub struct Subscription {
    client: Client,
    id: String,
    ack_deadline: Duration,
    responses: Box<Streaming<SubscribeResponse>>,
    /// Came while something else was waited for. Bounded by the credit.
    ready: VecDeque<RawDelivery>,
    lost: Lost,
    meter: Meter,
    tally: Tally,
    outbox: Arc<Outbox>,
    ended: bool,
}

/// What the broker lends for when neither side says otherwise.
const DEFAULT_ACK_DEADLINE: Duration = Duration::from_secs(30);

impl Subscription {
    pub(crate) async fn open(
        client: Client,
        workspace_id: String,
        sandbox_id: String,
        options: SubscribeOptions,
    ) -> Result<Self, Error> {
        let credit = Credit { messages: options.credit_messages, bytes: options.credit_bytes };
        let outbox = Outbox::new(options.open(workspace_id, sandbox_id), credit);
        let settings = client.settings();
        let mut service = SubscribeServiceClient::new(client.channel())
            .max_encoding_message_size(settings.max_request_bytes)
            .max_decoding_message_size(settings.max_response_bytes);
        let answer = service.subscribe(client.stream_request(Requests(Arc::clone(&outbox)))).await;
        let mut responses = Box::new(answer.map_err(|status| client.error(&status))?.into_inner());
        let first = responses.message().await.map_err(|status| client.error(&status))?;
        let opened = match first.and_then(|response| response.kind) {
            Some(Kind::Opened(opened)) => opened,
            Some(_) => return Err(Error::Contract("a subscription began without `opened`".to_owned())),
            None => return Err(Error::StreamEnded { stream: "subscribe", unanswered: 1 }),
        };
        let in_force = wire::from_duration(opened.ack_deadline).or(options.ack_deadline);
        Ok(Self {
            client,
            id: opened.subscription_id,
            ack_deadline: in_force.unwrap_or(DEFAULT_ACK_DEADLINE),
            responses,
            ready: VecDeque::new(),
            lost: Lost::default(),
            meter: Meter::new(options.credit_messages, options.credit_bytes),
            tally: Tally::default(),
            outbox,
            ended: false,
        })
    }

    /// The broker's name of this subscription.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How long a delivery may take before it counts as failed, as the broker confirmed it.
    pub fn ack_deadline(&self) -> Duration {
        self.ack_deadline
    }

    /// The next delivery; None when the broker has ended the stream. Safe to cancel.
    ///
    /// # Errors
    /// When the stream breaks; open a new subscription then.
    pub async fn next(&mut self) -> Result<Option<Delivery>, Error> {
        if !self.fill().await? {
            return Ok(None);
        }
        let Some(raw) = self.ready.pop_front() else { return Ok(None) };
        self.taken(1, raw.message.len() as u64);
        raw.decode().map(Some)
    }

    /// The next delivery, or the news that leases were lost, whichever comes first; None when the broker has ended the
    /// stream. For callers that work on several messages at once and want to stop in time. Safe to cancel.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_incoming(&mut self) -> Result<Option<Incoming>, Error> {
        loop {
            if let Some(lost) = self.lost.take() {
                return Ok(Some(Incoming::LeasesLost(lost)));
            }
            if let Some(raw) = self.ready.pop_front() {
                self.taken(1, raw.message.len() as u64);
                return raw.decode().map(|delivery| Some(Incoming::Delivery(delivery)));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// The leases of which the broker has told, in whatever call, that they ended on their own; None when none did since
    /// the last time this or [`next_incoming`](Self::next_incoming) told of them. Of a caller who never asks the newest
    /// 65,536 ranges are kept; [`lease_counts`](Self::lease_counts) counts all.
    pub fn take_leases_lost(&mut self) -> Option<LeasesLost> {
        self.lost.take()
    }

    /// All deliveries that are here, at least one; None when the broker has ended the stream. Safe to cancel.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_batch(&mut self) -> Result<Option<Vec<Delivery>>, Error> {
        let Some(raw) = self.next_raw_batch().await? else { return Ok(None) };
        raw.iter().map(RawDelivery::decode).collect::<Result<_, _>>().map(Some)
    }

    /// The same, with messages as they are encoded: for callers that need little of each.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_raw_batch(&mut self) -> Result<Option<Vec<RawDelivery>>, Error> {
        if !self.fill().await? {
            return Ok(None);
        }
        let batch: Vec<_> = std::mem::take(&mut self.ready).into();
        self.taken(batch.len() as u32, batch.iter().map(|delivery| delivery.message.len() as u64).sum());
        Ok(Some(batch))
    }

    /// Acknowledges a delivery of this subscription: its message leaves the inbox for good. Goes out at once when the
    /// connection is free, together with all that wait.
    pub fn ack(&self, delivery: &Delivery) {
        self.outbox.ack(delivery.delivery_id, delivery.delivery_id);
    }

    /// Gives a delivery of this subscription back as failed: its message is attempted again, or becomes a dead letter.
    pub fn nack(&self, delivery: &Delivery, nack: Nack) {
        self.outbox.nack(delivery.delivery_id, delivery.delivery_id, nack);
    }

    /// Lets the ack deadline of a delivery begin anew: `deadline` from now on, 1 s to 24 h, or None for the one of the
    /// subscription.
    pub fn extend(&self, delivery: &Delivery, deadline: Option<Duration>) {
        self.outbox.extend(delivery.delivery_id, delivery.delivery_id, deadline);
    }

    /// The same for everything that has come and is not done: a heartbeat, to be sent two or three times within an
    /// [`ack_deadline`](Self::ack_deadline). An [`Acker`] does it from another task.
    pub fn extend_all(&self, deadline: Option<Duration>) {
        self.acker().extend_all(deadline);
    }

    /// A handle that acknowledges, gives back and extends from elsewhere, also by range.
    pub fn acker(&self) -> Acker {
        Acker::new(Arc::clone(&self.outbox))
    }

    /// What became of the acknowledgements, as far as answers have been read.
    pub fn ack_counts(&self) -> AckCounts {
        self.tally.acks(self.outbox.acked())
    }

    /// What became of the nacks, as far as answers have been read.
    pub fn nack_counts(&self) -> NackCounts {
        self.tally.nacks(self.outbox.nacked())
    }

    /// What became of the leases, as far as answers have been read.
    pub fn lease_counts(&self) -> LeaseCounts {
        self.tally.leases
    }

    /// Returns once every ack and nack given so far is durable, and every extension in force. Deliveries that come
    /// meanwhile are kept for [`next`](Self::next).
    ///
    /// # Errors
    /// The broker's refusal when it refused one since the last flush; the error of the stream when that broke.
    pub async fn flush_acks(&mut self) -> Result<(), Error> {
        while self.outbox.unanswered(self.tally.outcomes) > 0 {
            if !self.read().await? {
                return Err(self.ended_early());
            }
        }
        self.tally.take_refusal().map_or(Ok(()), Err)
    }

    /// Ends the subscription in order: sends what waits, tells the broker that no more follows, and returns once every ack,
    /// nack and extension is answered and the broker has ended the stream. What is still held goes back to the inbox
    /// without a failed attempt, and so do deliveries that nobody has taken.
    ///
    /// # Errors
    /// As [`flush_acks`](Self::flush_acks).
    pub async fn close(mut self) -> Result<(), Error> {
        self.wind_up().await?;
        self.tally.take_refusal().map_or(Ok(()), Err)
    }

    /// The same, for who has heard of each refusal already.
    async fn wind_up(&mut self) -> Result<(), Error> {
        self.outbox.finish();
        while self.read().await? {
            self.ready.clear();
        }
        if self.outbox.unanswered(self.tally.outcomes) > 0 { Err(self.ended_early()) } else { Ok(()) }
    }

    fn ended_early(&self) -> Error {
        Error::StreamEnded { stream: "subscribe", unanswered: self.outbox.unanswered(self.tally.outcomes) }
    }

    /// Deliveries that nobody has taken, and whose messages come again, here or elsewhere.
    fn forget(&mut self, lost: &LeasesLost) {
        let (mut messages, mut bytes) = (0, 0);
        self.ready.retain(|delivery| {
            let is_lost = lost.contains(delivery.delivery_id);
            if is_lost {
                messages += 1;
                bytes += delivery.message.len() as u64;
            }
            !is_lost
        });
        self.taken(messages, bytes);
    }

    /// Reads until there is something to take; false when the stream has ended.
    async fn fill(&mut self) -> Result<bool, Error> {
        while self.ready.is_empty() {
            if !self.read().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads one response; false when the stream has ended.
    async fn read(&mut self) -> Result<bool, Error> {
        if self.ended {
            return Ok(false);
        }
        let response = self.responses.message().await;
        self.ended = !matches!(response, Ok(Some(_)));
        let Some(response) = response.map_err(|status| self.client.error(&status))? else { return Ok(false) };
        match response.kind {
            Some(Kind::DeliveryBatch(batch)) => {
                let batch = DeliveryBatch::decode(batch)
                    .map_err(|error| Error::Contract(format!("a delivery batch does not decode: {error}")))?;
                self.outbox.has_delivered(batch.deliveries.last().map_or(0, |delivery| delivery.delivery_id));
                self.ready.extend(batch.deliveries.into_iter().map(RawDelivery::from));
            }
            Some(Kind::AckOutcome(outcome)) => {
                self.outbox.settled(&outcome.refusals);
                self.tally.add_ack(&outcome);
            }
            Some(Kind::NackOutcome(outcome)) => {
                self.outbox.settled(&outcome.refusals);
                self.tally.add_nack(&outcome);
            }
            Some(Kind::ExtendOutcome(outcome)) => {
                self.outbox.extended(&outcome.refusals);
                self.tally.add_extend(&outcome);
            }
            Some(Kind::LeasesLost(lost)) => self.tally.leases.lost += self.lost.add(&lost),
            Some(Kind::Opened(_)) => return Err(Error::Contract("a subscription was opened twice".to_owned())),
            None => return Err(Error::Contract("a response of a kind unknown here came".to_owned())),
        }
        Ok(true)
    }

    fn taken(&mut self, messages: u32, bytes: u64) {
        if let Some(credit) = self.meter.taken(messages, bytes) {
            self.outbox.grant(credit);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.outbox.finish();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("id", &self.id).field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}
