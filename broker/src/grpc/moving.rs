//! A subscription in a cluster: the client's stream stays, and moves with the leader behind it.
//!
//! Credit, deliveries and acks pass through. When the leader is gone, the client hears that its leases are lost, and the
//! next leader is given what is left of the credit, the number of the next delivery, and the acks without an answer, which
//! it refuses or finds done. The client sees a pause.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt};
use prost::Message as _;
use tandem_proto::raw::messaging::v1::{
    Credit, DeliveryBatch, DeliveryRange, LeasesLost, Open, SubscribeRequest, SubscribeResponse,
    subscribe_request::Kind as Ask, subscribe_response::Kind as Answer,
    subscribe_service_client::SubscribeServiceClient,
};
use tokio::sync::mpsc;
use tonic::{Code, Request, Status, Streaming, metadata::MetadataMap};

use super::{Edge, StreamPlace, forward, status, subscribe::SubscriptionStream};
use crate::{
    cluster::Place,
    error::RequestError,
    field,
    rejection::{Reason, Rejection},
};

/// Responses that wait for the client; more stay with the leader.
const QUEUED_RESPONSES: usize = 4;
/// Acks without an answer; beyond, the client is not read.
const MAX_UNANSWERED: usize = 1_024;
/// Tries in a row to open the subscription at a leader before the client is told. Each waits for a leader.
const MAX_MOVES: u32 = 8;
/// Between two of them.
const MOVE_DELAY: std::time::Duration = std::time::Duration::from_millis(50);

/// What a client sends on a subscription.
pub(super) type Requests = Pin<Box<dyn Stream<Item = Result<SubscribeRequest, Status>> + Send>>;

/// What a client is sent.
pub(crate) enum Subscribed {
    /// Served by this node, whoever the client spoke to.
    Here(Box<SubscriptionStream>),
    /// Served by whoever leads.
    Moving(mpsc::Receiver<Result<SubscribeResponse, Status>>),
}

impl Stream for Subscribed {
    type Item = Result<SubscribeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut *self {
            Self::Here(stream) => stream.poll_next_unpin(context),
            Self::Moving(responses) => responses.poll_recv(context),
        }
    }
}

/// Where a subscription goes on that another node serves for a client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resume {
    /// The name that the client knows; empty for one that begins.
    pub(super) subscription_id: String,
    /// The number of the next delivery.
    pub(super) first_delivery: u64,
}

const SUBSCRIPTION_ID: &str = "aintandem-subscription-id";
const FIRST_DELIVERY: &str = "aintandem-first-delivery";

impl Resume {
    /// What another node says of the client behind it; None for a client that came here itself.
    pub(super) fn of(metadata: &MetadataMap) -> Option<Self> {
        metadata.get(forward::FORWARDED)?;
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let subscription_id = field::id("subscription_id", text(SUBSCRIPTION_ID)).unwrap_or_default().to_owned();
        Some(Self { subscription_id, first_delivery: text(FIRST_DELIVERY).parse().unwrap_or(1) })
    }

    fn put(&self, metadata: &mut MetadataMap) {
        metadata.insert(forward::FORWARDED, "1".parse().expect("a digit is a header"));
        metadata.insert(FIRST_DELIVERY, self.first_delivery.into());
        if let Ok(id) = self.subscription_id.parse() {
            metadata.insert(SUBSCRIPTION_ID, id);
        }
    }
}

/// Serves a client from whoever leads.
pub(super) fn subscription(edge: Edge, requests: Streaming<SubscribeRequest>, place: StreamPlace) -> Subscribed {
    let (responses, receiver) = mpsc::channel(QUEUED_RESPONSES);
    tokio::spawn(async move {
        let mut moving = Moving {
            edge,
            responses,
            open: None,
            resume: Resume { subscription_id: String::new(), first_delivery: 1 },
            credit: (0, 0),
            held: Ranges::default(),
            unanswered: VecDeque::new(),
        };
        if let Err(status) = moving.run(requests).await {
            status::count(&status, &moving.edge.metrics);
            moving.responses.send(Err(status)).await.ok();
        }
        drop(place);
    });
    Subscribed::Moving(receiver)
}

/// The leader's side of a subscription.
struct Upstream {
    requests: mpsc::UnboundedSender<SubscribeRequest>,
    responses: Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>,
}

struct Moving {
    edge: Edge,
    responses: mpsc::Sender<Result<SubscribeResponse, Status>>,
    open: Option<Open>,
    resume: Resume,
    /// Messages and bytes that may still be sent.
    credit: (i64, i64),
    /// Deliveries that are neither acknowledged nor given back.
    held: Ranges,
    /// Acks, nacks and extensions without an answer.
    unanswered: VecDeque<SubscribeRequest>,
}

/// The client has gone.
struct Gone;

impl Moving {
    async fn run(&mut self, mut requests: Streaming<SubscribeRequest>) -> Result<(), Status> {
        let timeout = std::time::Duration::from_millis(self.edge.limits.credit_timeout_ms);
        let first = match tokio::time::timeout(timeout, requests.message()).await {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(status)) => return Err(status::translate_status(status, &self.edge.limits)),
            Err(_) => {
                let text = format!("the stream was not opened within {} ms; send open first", timeout.as_millis());
                return Err(Rejection::new(Reason::StreamNotOpen, text).into());
            }
        };
        let Some(Ask::Open(open)) = first.kind else {
            let text = "the first request of a subscription must be open";
            return Err(Rejection::new(Reason::StreamNotOpen, text).into());
        };
        field::id("workspace_id", &open.workspace_id)?;
        self.open = Some(open);
        let mut upstream = Some(self.connect().await?);
        let mut requests_ended = false;
        let mut stopping = self.edge.stopping.clone();
        while let Some(leader) = upstream.as_mut() {
            tokio::select! {
                request = requests.next(), if !requests_ended && self.unanswered.len() < MAX_UNANSWERED => match request {
                    Some(Ok(request)) => self.asked(request, leader)?,
                    Some(Err(status)) => return Err(status::translate_status(status, &self.edge.limits)),
                    None => {
                        requests_ended = true;
                        // The leader ends its side once everything is answered.
                        leader.requests = mpsc::unbounded_channel().0;
                    }
                },
                response = leader.responses.next() => match response {
                    Some(Ok(response)) => {
                        if self.answered(response).await.is_err() {
                            return Ok(());
                        }
                    }
                    None if requests_ended => return Ok(()),
                    Some(Err(status)) if !moves(&status) => return Err(status),
                    broken => {
                        drop(upstream.take());
                        if self.edge.is_stopping() {
                            return Err(status::shutting_down());
                        }
                        tracing::debug!(?broken, "a subscription moves to the next leader");
                        if self.lose_leases().await.is_err() {
                            return Ok(());
                        }
                        if requests_ended && self.unanswered.is_empty() {
                            return Ok(());
                        }
                        let mut next = self.connect().await?;
                        if requests_ended {
                            next.requests = mpsc::unbounded_channel().0;
                        }
                        upstream = Some(next);
                    }
                },
                () = self.responses.closed() => return Ok(()),
                () = stopped(&mut stopping) => return Err(status::shutting_down()),
            }
        }
        Ok(())
    }

    /// Passes on what the client asks.
    fn asked(&mut self, request: SubscribeRequest, leader: &Upstream) -> Result<(), Status> {
        match &request.kind {
            Some(Ask::Credit(credit)) => {
                self.credit.0 += i64::from(credit.messages);
                self.credit.1 = self.credit.1.saturating_add(i64::try_from(credit.bytes).unwrap_or(i64::MAX));
            }
            Some(Ask::Ack(ack)) => {
                self.held.remove(&ack.ranges);
                self.unanswered.push_back(request.clone());
            }
            Some(Ask::Nack(nack)) => {
                self.held.remove(&nack.ranges);
                self.unanswered.push_back(request.clone());
            }
            Some(Ask::Extend(_)) => self.unanswered.push_back(request.clone()),
            Some(Ask::Open(_)) | None => {}
        }
        // A leader that has gone is noticed by its responses.
        leader.requests.send(request).ok();
        Ok(())
    }

    /// Passes on what the leader answers.
    async fn answered(&mut self, response: SubscribeResponse) -> Result<(), Gone> {
        match &response.kind {
            Some(Answer::Opened(opened)) => {
                if !self.resume.subscription_id.is_empty() {
                    return Ok(());
                }
                self.resume.subscription_id.clone_from(&opened.subscription_id);
            }
            Some(Answer::DeliveryBatch(batch)) => self.delivered(batch),
            Some(Answer::AckOutcome(_) | Answer::NackOutcome(_) | Answer::ExtendOutcome(_)) => {
                self.unanswered.pop_front();
            }
            Some(Answer::LeasesLost(lost)) => self.held.remove(&lost.ranges),
            None => {}
        }
        self.responses.send(Ok(response)).await.map_err(|_| Gone)
    }

    fn delivered(&mut self, batch: &bytes::Bytes) {
        let Ok(batch) = DeliveryBatch::decode(batch.clone()) else { return };
        let (Some(first), Some(last)) = (batch.deliveries.first(), batch.deliveries.last()) else { return };
        let bytes: usize = batch.deliveries.iter().map(|delivery| delivery.message.len()).sum();
        self.held.add(first.delivery_id, last.delivery_id);
        self.resume.first_delivery = last.delivery_id + 1;
        self.credit.0 -= batch.deliveries.len() as i64;
        self.credit.1 -= bytes as i64;
    }

    /// Tells the client that what it holds is lost.
    async fn lose_leases(&mut self) -> Result<(), Gone> {
        let ranges = self.held.take();
        if ranges.is_empty() {
            return Ok(());
        }
        let text = "another node leads now; the messages will come again";
        let status = status::rejected_in_response(&Rejection::new(Reason::LeaseLost, text));
        let lost = Answer::LeasesLost(LeasesLost { ranges, status: Some(status) });
        self.responses.send(Ok(SubscribeResponse { kind: Some(lost) })).await.map_err(|_| Gone)
    }

    /// Opens the subscription at the leader, with what the client has asked for so far.
    async fn connect(&mut self) -> Result<Upstream, Status> {
        let mut last = None;
        for attempt in 0..MAX_MOVES {
            if attempt > 0 {
                tokio::time::sleep(MOVE_DELAY).await;
            }
            match self.try_connect().await {
                Ok(upstream) => return Ok(upstream),
                Err(status) if moves(&status) => last = Some(status),
                Err(status) => return Err(status),
            }
        }
        Err(last.unwrap_or_else(status::shutting_down))
    }

    async fn try_connect(&mut self) -> Result<Upstream, Status> {
        let (Some(open), Some(routing)) = (&self.open, &self.edge.routing) else { return Err(status::shutting_down()) };
        let shard = self.edge.shards.of(&open.workspace_id).group.shard();
        let place = routing.place(shard).await.map_err(RequestError::from)?;
        let (requests, queue) = mpsc::unbounded_channel();
        let first = [Ask::Open(open.clone())];
        let credit = (self.credit.0 > 0 || self.credit.1 > 0).then(|| {
            let messages = u32::try_from(self.credit.0.max(0)).unwrap_or(u32::MAX);
            Ask::Credit(Credit { messages, bytes: self.credit.1.max(0) as u64 })
        });
        for kind in first.into_iter().chain(credit) {
            requests.send(SubscribeRequest { kind: Some(kind) }).ok();
        }
        for request in &self.unanswered {
            requests.send(request.clone()).ok();
        }
        let queue = tokio_stream::wrappers::UnboundedReceiverStream::new(queue);
        let responses: Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>> = match place {
            Place::Here => {
                let queue = Box::pin(queue.map(Ok));
                Box::pin(self.edge.serve_here(queue, self.resume.clone(), None))
            }
            Place::There { channel, .. } => {
                let mut request = Request::new(queue);
                self.resume.put(request.metadata_mut());
                let mut service = SubscribeServiceClient::new(channel).max_decoding_message_size(usize::MAX);
                Box::pin(service.subscribe(request).await?.into_inner())
            }
        };
        Ok(Upstream { requests, responses })
    }
}

async fn stopped(stopping: &mut tokio::sync::watch::Receiver<bool>) {
    if stopping.wait_for(|stopping| *stopping).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Whether the next leader may go on where this status came from.
fn moves(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => {
            let reason = status.metadata().get(forward::REASON).and_then(|reason| reason.to_str().ok());
            // A status of ours says why; one without a reason comes from the transport.
            reason.is_none_or(|reason| reason != "FOLLOWS_CHANGED")
        }
        // What a broken connection comes to, in the words of the transport.
        Code::Cancelled | Code::Unknown | Code::Internal => status.details().is_empty(),
        _ => false,
    }
}

/// Numbers, as ranges.
#[derive(Debug, Default)]
struct Ranges(std::collections::BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range that lies behind all others.
    fn add(&mut self, first: u64, last: u64) {
        if let Some(mut newest) = self.0.last_entry()
            && *newest.get() + 1 == first
        {
            newest.insert(last);
            return;
        }
        self.0.insert(first, last);
    }

    fn remove(&mut self, ranges: &[DeliveryRange]) {
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

    fn take(&mut self) -> Vec<DeliveryRange> {
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
