//! A subscription in a cluster: the client's stream stays, and moves with the leader behind it.
//!
//! Credit, deliveries and acks pass through. When the leader is gone, the client hears that its leases are lost, and the
//! next leader is given what is left of the credit, the number of the next delivery, and the acks without an answer, which
//! it refuses or finds done. The client sees a pause.

mod ranges;
mod tries;
mod unanswered;

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt};
use prost::Message as _;
use tandem_proto::raw::messaging::v1::{
    Credit, DeliveryBatch, LeasesLost, Open, SubscribeRequest, SubscribeResponse, subscribe_request::Kind as Ask,
    subscribe_response::Kind as Answer, subscribe_service_client::SubscribeServiceClient,
};
use tokio::sync::mpsc::{self, OwnedPermit};
use tonic::{Code, Request, Status, Streaming, metadata::MetadataMap};
use tonic_types::StatusExt as _;

use self::{ranges::Ranges, tries::Tries, unanswered::Unanswered};
use super::{Edge, StreamPlace, forward, status, subscribe::SubscriptionStream};
use crate::{
    auth::Caller,
    clock,
    cluster::Place,
    error::RequestError,
    field,
    rejection::{Reason, Rejection},
};

/// Responses that wait for the client; more stay with the leader.
const QUEUED_RESPONSES: usize = 4;
/// Requests on their way to the leader; more stay with the client.
const QUEUED_REQUESTS: usize = 16;
/// A leader that served for that long has taken the subscription over.
const SETTLED: Duration = Duration::from_secs(1);

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

pub(crate) const SUBSCRIPTION_ID: &str = "aintandem-subscription-id";
pub(crate) const FIRST_DELIVERY: &str = "aintandem-first-delivery";

/// Far from where numbers of deliveries would run out.
const MAX_FIRST_DELIVERY: u64 = 1 << 62;

impl Resume {
    /// What another node says of the client behind it; None for a client that came here itself.
    pub(super) fn of(metadata: &MetadataMap) -> Option<Self> {
        metadata.get(forward::FORWARDED)?;
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let subscription_id = field::id("subscription_id", text(SUBSCRIPTION_ID)).unwrap_or_default().to_owned();
        Some(Self {
            subscription_id,
            first_delivery: text(FIRST_DELIVERY).parse().unwrap_or(1).clamp(1, MAX_FIRST_DELIVERY),
        })
    }

    fn put(&self, shard: u32, metadata: &mut MetadataMap) {
        metadata.insert(forward::FORWARDED, shard.into());
        metadata.insert(FIRST_DELIVERY, self.first_delivery.into());
        if let Ok(id) = self.subscription_id.parse() {
            metadata.insert(SUBSCRIPTION_ID, id);
        }
    }
}

/// Serves a client from whoever leads.
pub(super) fn subscription(
    edge: Edge,
    caller: Caller,
    requests: Streaming<SubscribeRequest>,
    place: StreamPlace,
) -> Subscribed {
    let (responses, receiver) = mpsc::channel(QUEUED_RESPONSES);
    tokio::spawn(async move {
        let mut moving = Moving {
            edge,
            caller,
            responses,
            open: None,
            resume: Resume { subscription_id: String::new(), first_delivery: 1 },
            credit: (0, 0),
            held: Ranges::default(),
            unanswered: Unanswered::default(),
            tries: Tries::default(),
        };
        if let Err(failed) = moving.run(requests).await {
            if let Failed::Here(status) = &failed {
                status::count(status, &moving.edge.metrics);
            }
            moving.responses.send(Err(failed.into_status())).await.ok();
        }
        drop(place);
    });
    Subscribed::Moving(receiver)
}

/// The leader's side of a subscription.
struct Upstream {
    /// None once the client has ended its side.
    requests: Option<mpsc::Sender<SubscribeRequest>>,
    responses: Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>,
    since: Instant,
}

struct Moving {
    edge: Edge,
    caller: Caller,
    responses: mpsc::Sender<Result<SubscribeResponse, Status>>,
    open: Option<Open>,
    resume: Resume,
    /// Messages and bytes that may still be sent.
    credit: (i64, i64),
    /// Deliveries that are neither acknowledged nor given back.
    held: Ranges,
    unanswered: Unanswered,
    tries: Tries,
}

/// The client has gone.
struct Gone;

/// Why a subscription ends.
enum Failed {
    /// Refused by this part of this node.
    Here(Status),
    /// Refused where it is served, and counted there.
    AtLeader(Status),
}

impl Failed {
    fn moves(&self) -> bool {
        let (Self::Here(status) | Self::AtLeader(status)) = self;
        moves(status)
    }

    fn into_status(self) -> Status {
        let (Self::Here(status) | Self::AtLeader(status)) = self;
        status
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Here(status)
    }
}

impl From<Rejection> for Failed {
    fn from(rejection: Rejection) -> Self {
        Self::Here(rejection.into())
    }
}

impl Moving {
    async fn run(&mut self, mut requests: Streaming<SubscribeRequest>) -> Result<(), Failed> {
        self.open = match self.first(&mut requests).await? {
            Some(open) => Some(open),
            None => return Ok(()),
        };
        let mut stopping = self.edge.stopping.clone();
        let Some(mut leader) = self.connect(false).await? else { return Ok(()) };
        loop {
            let reads = leader.requests.is_some() && self.unanswered.has_room();
            tokio::select! {
                (request, place) = next(&mut requests, leader.requests.clone()), if reads => match request {
                    Some(Ok(request)) => self.asked(request, place),
                    Some(Err(status)) => return Err(status::translate_status(status, &self.edge.limits).into()),
                    None => {
                        drop(place);
                        // The leader ends its side once everything is answered.
                        leader.requests = None;
                    }
                },
                response = leader.responses.next() => match response {
                    Some(Ok(response)) => {
                        if self.answered(response).await.is_err() {
                            return Ok(());
                        }
                    }
                    None if leader.requests.is_none() => return Ok(()),
                    broken => {
                        let (ended, lasted) = (leader.requests.is_none(), leader.since.elapsed());
                        drop(leader);
                        let ended_early = || status::leader_unreachable(&"it ended the stream");
                        let status = broken.and_then(Result::err).unwrap_or_else(ended_early);
                        leader = match self.moved(Failed::AtLeader(status), lasted, ended).await? {
                            Some(next) => next,
                            None => return Ok(()),
                        };
                    }
                },
                () = self.responses.closed() => return Ok(()),
                () = stopped(&mut stopping) => return Err(status::shutting_down().into()),
            }
        }
    }

    /// The first request, which says what is to be opened; None when there is none.
    async fn first(&self, requests: &mut Streaming<SubscribeRequest>) -> Result<Option<Open>, Failed> {
        let timeout = Duration::from_millis(self.edge.limits.credit_timeout_ms);
        let first = match tokio::time::timeout(timeout, requests.message()).await {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(status)) => return Err(status::translate_status(status, &self.edge.limits).into()),
            Err(_) => {
                let text = format!("the stream was not opened within {} ms; send open first", timeout.as_millis());
                return Err(Rejection::new(Reason::StreamNotOpen, text).into());
            }
        };
        let Some(Ask::Open(open)) = first.kind else {
            let text = "the first request of a subscription must be open";
            return Err(Rejection::new(Reason::StreamNotOpen, text).into());
        };
        self.caller.workspace(&open.workspace_id)?;
        Ok(Some(open))
    }

    /// Passes on what the client asks.
    fn asked(&mut self, request: SubscribeRequest, place: OwnedPermit<SubscribeRequest>) {
        match &request.kind {
            Some(Ask::Credit(credit)) => {
                self.credit.0 += i64::from(credit.messages);
                self.credit.1 = self.credit.1.saturating_add(i64::try_from(credit.bytes).unwrap_or(i64::MAX));
            }
            Some(Ask::Ack(ack)) => self.held.remove(&ack.ranges),
            Some(Ask::Nack(nack)) => self.held.remove(&nack.ranges),
            Some(Ask::Extend(_) | Ask::Open(_)) | None => {}
        }
        self.unanswered.asked(&request);
        place.send(request);
    }

    /// Passes on what the leader answers.
    async fn answered(&mut self, response: SubscribeResponse) -> Result<(), Gone> {
        if !matches!(response.kind, Some(Answer::Opened(_))) {
            self.tries.succeeded();
        }
        match &response.kind {
            Some(Answer::Opened(opened)) => {
                if !self.resume.subscription_id.is_empty() {
                    return Ok(());
                }
                self.resume.subscription_id.clone_from(&opened.subscription_id);
            }
            Some(Answer::DeliveryBatch(batch)) => self.delivered(batch),
            Some(Answer::LeasesLost(lost)) => self.held.remove(&lost.ranges),
            Some(answer) => self.unanswered.answered(answer),
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

    /// The leader that follows one that has failed after that time; None when there is nothing left to do.
    async fn moved(&mut self, failed: Failed, lasted: Duration, ended: bool) -> Result<Option<Upstream>, Failed> {
        if failed.moves() && self.edge.is_stopping() {
            return Err(status::shutting_down().into());
        }
        if lasted >= SETTLED {
            self.tries.succeeded();
        }
        self.go_on_after(failed)?;
        if self.lose_leases().await.is_err() || (ended && self.unanswered.is_empty()) {
            return Ok(None);
        }
        self.connect(ended).await
    }

    /// Opens the subscription at the leader, with what the client has asked for so far; None when the client has gone.
    /// `ended` when it asks nothing more.
    async fn connect(&mut self, ended: bool) -> Result<Option<Upstream>, Failed> {
        let mut stopping = self.edge.stopping.clone();
        loop {
            let pause = self.tries.begin();
            let connect = async {
                tokio::time::sleep(pause).await;
                self.try_connect(ended).await
            };
            let connected = tokio::select! {
                connected = connect => connected,
                () = self.responses.closed() => return Ok(None),
                () = stopped(&mut stopping) => return Err(status::shutting_down().into()),
            };
            match connected {
                Ok(upstream) => return Ok(Some(upstream)),
                Err(failed) => self.go_on_after(failed)?,
            }
        }
    }

    /// Whether another try may get over it.
    fn go_on_after(&self, failed: Failed) -> Result<(), Failed> {
        if !failed.moves() || self.tries.are_enough() {
            return Err(failed);
        }
        tracing::debug!(status = ?failed.into_status(), "a subscription moves to the next leader");
        Ok(())
    }

    async fn try_connect(&self, ended: bool) -> Result<Upstream, Failed> {
        let (Some(open), Some(routing)) = (&self.open, &self.edge.routing) else {
            return Err(status::shutting_down().into());
        };
        let group = &self.edge.shards.of(&open.workspace_id).group;
        let shard = group.shard();
        let unavailable = |error| Failed::from(Status::from(RequestError::from(error)));
        let place = routing.place(shard).await.map_err(unavailable)?;
        let first = [Ask::Open(open.clone())];
        let credit = (self.credit.0 > 0 || self.credit.1 > 0).then(|| {
            let messages = u32::try_from(self.credit.0.max(0)).unwrap_or(u32::MAX);
            Ask::Credit(Credit { messages, bytes: self.credit.1.max(0) as u64 })
        });
        let again = first.into_iter().chain(credit).map(|kind| SubscribeRequest { kind: Some(kind) });
        let again: Vec<_> = again.chain(self.unanswered.requests()).collect();
        let (requests, queue) = mpsc::channel(QUEUED_REQUESTS);
        let queue = tokio_stream::wrappers::ReceiverStream::new(queue);
        let queue = futures_util::stream::iter(again).chain(queue);
        let responses: Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>> = match place {
            Place::Here => {
                // A leader that was stopped for a while goes on as one until it looks around. It would lend messages that were
                // acknowledged meanwhile under another leader.
                group.leader_barrier().await.map_err(unavailable)?;
                let queue = Box::pin(queue.map(Ok));
                Box::pin(self.edge.serve_here(self.caller.clone(), queue, self.resume.clone(), None))
            }
            Place::There { streams: channel, .. } => {
                let mut request = Request::new(queue);
                self.resume.put(shard, request.metadata_mut());
                self.edge.vouch(&self.caller, request.metadata_mut());
                let mut service = SubscribeServiceClient::new(channel).max_decoding_message_size(usize::MAX);
                Box::pin(service.subscribe(request).await.map_err(Failed::AtLeader)?.into_inner())
            }
        };
        Ok(Upstream { requests: (!ended).then_some(requests), responses, since: clock::now() })
    }
}

/// The client's next request, once there is a place for it on the way to the leader: what a leader does not read yet stays
/// with the client.
async fn next(
    requests: &mut Streaming<SubscribeRequest>,
    leader: Option<mpsc::Sender<SubscribeRequest>>,
) -> (Option<Result<SubscribeRequest, Status>>, OwnedPermit<SubscribeRequest>) {
    if let Some(leader) = leader
        && let Ok(place) = leader.reserve_owned().await
    {
        return (requests.next().await, place);
    }
    // A leader that has gone is noticed by its responses.
    std::future::pending().await
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
        // What an earlier stream of the sandbox acknowledged is on its way: the inbox opens in a moment.
        Code::ResourceExhausted => {
            status.get_details_error_info().is_some_and(|info| info.reason == Reason::Overloaded.code())
        }
        // What a broken connection comes to, in the words of the transport.
        Code::Cancelled | Code::Unknown | Code::Internal => status.details().is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_follows_what_passes_and_nothing_else() {
        let refused = |reason| Status::from(Rejection::new(reason, "text"));
        assert!(moves(&status::shutting_down()) && moves(&status::leader_unreachable(&"gone")));
        assert!(moves(&Status::unknown("h2 protocol error")));
        assert!(moves(&refused(Reason::Overloaded)), "acks are being settled");
        assert!(!moves(&refused(Reason::TooManyStreams)) && !moves(&refused(Reason::UnknownSandbox)));
        assert!(!moves(&status::follows_changed()));
    }
}
