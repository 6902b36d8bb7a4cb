//! Receiving what waits in the inbox of a sandbox.

mod acks;
mod credit;
mod delivery;
mod outbox;

use std::{collections::VecDeque, fmt, sync::Arc};

use prost::Message as _;
use tandem_proto::raw::messaging::v1::{
    DeliveryBatch, SubscribeResponse, subscribe_response::Kind, subscribe_service_client::SubscribeServiceClient,
};
use tonic::Streaming;

pub use self::{
    acks::AckCounts,
    delivery::{Delivery, RawDelivery},
    outbox::Acker,
};
use self::{
    acks::Tally,
    credit::Meter,
    outbox::{Outbox, Requests},
};
use crate::{Client, Error};

/// How much the broker may send ahead of what has been taken from the subscription.
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// Messages. The broker allows up to 65,536 unless its settings say otherwise. Default: 1,024.
    pub credit_messages: u32,
    /// Bytes of encoded messages. The broker allows up to 64 MiB unless its settings say otherwise. Default: 8 MiB.
    pub credit_bytes: u64,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self { credit_messages: 1024, credit_bytes: 8 << 20 }
    }
}

/// An open inbox. Deliveries are taken with [`next`](Self::next) or by the batch, which also gives the broker new credit,
/// half a window at a time. Acknowledgements are collected and go out as soon as the connection is free.
///
/// What is not acknowledged when the subscription ends is delivered again. Dropping it may lose acknowledgements that
/// were not sent yet; [`close`](Self::close) waits for them.
///
/// Nothing runs in the background: answers to acknowledgements are read by the same calls that take deliveries.
pub struct Subscription {
    client: Client,
    id: String,
    responses: Box<Streaming<SubscribeResponse>>,
    /// Came while something else was waited for. Bounded by the credit.
    ready: VecDeque<RawDelivery>,
    meter: Meter,
    tally: Tally,
    outbox: Arc<Outbox>,
    ended: bool,
}

impl Subscription {
    pub(crate) async fn open(
        client: Client,
        workspace_id: String,
        sandbox_id: String,
        options: SubscribeOptions,
    ) -> Result<Self, Error> {
        let outbox = Outbox::new(workspace_id, sandbox_id, &options);
        let settings = client.settings();
        let mut service = SubscribeServiceClient::new(client.channel())
            .max_encoding_message_size(settings.max_request_bytes)
            .max_decoding_message_size(settings.max_response_bytes);
        let answer = service.subscribe(Requests(Arc::clone(&outbox))).await;
        let mut responses = Box::new(answer.map_err(|status| client.error(&status))?.into_inner());
        let first = responses.message().await.map_err(|status| client.error(&status))?;
        let id = match first.and_then(|response| response.kind) {
            Some(Kind::Opened(opened)) => opened.subscription_id,
            Some(_) => return Err(Error::Contract("a subscription began without `opened`".to_owned())),
            None => return Err(Error::StreamEnded { stream: "subscribe", unanswered: 1 }),
        };
        let meter = Meter::new(options.credit_messages, options.credit_bytes);
        let (ready, tally) = (VecDeque::new(), Tally::default());
        Ok(Self { client, id, responses, ready, meter, tally, outbox, ended: false })
    }

    /// The broker's name of this subscription.
    pub fn id(&self) -> &str {
        &self.id
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

    /// A handle that acknowledges from elsewhere, also by range.
    pub fn acker(&self) -> Acker {
        Acker::new(Arc::clone(&self.outbox))
    }

    /// What became of the acknowledgements, as far as answers have been read.
    pub fn ack_counts(&self) -> AckCounts {
        self.tally.counts(self.outbox.acked())
    }

    /// Returns once every acknowledgement given so far is durable. Deliveries that come meanwhile are kept for
    /// [`next`](Self::next).
    ///
    /// # Errors
    /// The broker's refusal when it refused one since the last flush; the error of the stream when that broke.
    pub async fn flush_acks(&mut self) -> Result<(), Error> {
        while !self.outbox.settled(self.tally.outcomes) {
            if !self.read().await? {
                return Err(Error::StreamEnded {
                    stream: "subscribe",
                    unanswered: self.outbox.unanswered(&self.tally),
                });
            }
        }
        self.tally.take_refusal().map_or(Ok(()), Err)
    }

    /// Flushes acknowledgements and ends the subscription.
    ///
    /// # Errors
    /// As [`flush_acks`](Self::flush_acks).
    pub async fn close(mut self) -> Result<(), Error> {
        self.flush_acks().await
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
                self.ready.extend(batch.deliveries.into_iter().map(RawDelivery::from));
            }
            Some(Kind::AckOutcome(outcome)) => self.tally.add(&outcome),
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
