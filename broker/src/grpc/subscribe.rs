//! Subscribe, at the node that leads. The response stream itself reads the credit and the acks, so that a delivery costs no
//! channel and no second task here; in a cluster, one task more takes the client from leader to leader (`moving`). Leases
//! lapse in a task beside (`lapsing`): nobody may be reading this stream.

mod lapsing;
mod open;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, Stream, StreamExt};
use tandem_proto::{
    messaging::v1::AckMode,
    raw::messaging::v1::{
        self as wire, AckOutcome, AckRefusal, NackOutcome, Opened, SubscribeRequest, SubscribeResponse,
        subscribe_request::Kind as Ask, subscribe_response::Kind as Answer, subscribe_service_server::SubscribeService,
    },
};
use tokio::{sync::oneshot, time::Sleep};
use tonic::{Request, Response, Status, Streaming};

use self::open::{ACK_DEADLINES_MS, Open};
use super::{
    Edge, StreamPlace,
    moving::{self, Requests, Resume, Subscribed},
    quotas::WorkspacePlace,
    status, time,
};
use crate::{
    auth::Caller,
    batcher::VerbResult,
    clock,
    command::Outcome,
    delivery::{
        inbox::Ended,
        subscription::{Stop, Subscription, SubscriptionOptions},
    },
    error::RequestError,
    field,
    rejection::{Reason, Rejection},
};

/// Acks of one stream that wait for their outcome; beyond, the stream is not read.
const MAX_WAITING_ACKS: usize = 1_024;
/// How long a delivery may take unless the subscriber says otherwise.
const ACK_DEADLINE_MS: u64 = 30_000;
/// Requests handled before deliveries get a turn.
const MAX_REQUESTS_A_TURN: usize = 64;

/// For the audit.
const SUBSCRIBE: &str = "/aintandem.messaging.v1.SubscribeService/Subscribe";

#[tonic::async_trait]
impl SubscribeService for Edge {
    type SubscribeStream = Subscribed;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let caller = Caller::of(&request)?;
        let place = self.take_stream_place()?;
        let resume = Resume::of(request.metadata());
        let requests = request.into_inner();
        if self.routing.is_some() && resume.is_none() {
            return Ok(Response::new(moving::subscription(self.clone(), caller, requests, place)));
        }
        let stream = self.serve_here(caller, Box::pin(requests), resume.unwrap_or_default(), Some(place));
        Ok(Response::new(Subscribed::Here(Box::new(stream))))
    }
}

impl Edge {
    /// A subscription that this node serves itself.
    pub(super) fn serve_here(
        &self,
        caller: Caller,
        requests: Requests,
        resume: Resume,
        place: Option<StreamPlace>,
    ) -> SubscriptionStream {
        let credit_timeout = Box::pin(tokio::time::sleep(Duration::from_millis(self.limits.credit_timeout_ms)));
        SubscriptionStream {
            edge: self.clone(),
            caller,
            requests,
            resume,
            requests_ended: false,
            open: None,
            answers: VecDeque::new(),
            acks: VecDeque::new(),
            credit_timeout,
            done: false,
            _place: place,
            workspace_place: None,
        }
    }
}

/// An ack or nack on its way.
struct Waiting {
    is_nack: bool,
    /// A nack of many deliveries is several commands.
    results: VecDeque<oneshot::Receiver<VerbResult>>,
    /// So far: acknowledged or deferred, and dead-lettered.
    counts: (u64, u64),
    refusals: Vec<AckRefusal>,
}

/// The response side of a subscription.
pub(crate) struct SubscriptionStream {
    edge: Edge,
    caller: Caller,
    requests: Requests,
    resume: Resume,
    requests_ended: bool,
    open: Option<Open>,
    answers: VecDeque<Answer>,
    acks: VecDeque<Waiting>,
    credit_timeout: Pin<Box<Sleep>>,
    done: bool,
    _place: Option<StreamPlace>,
    workspace_place: Option<WorkspacePlace>,
}

impl Stream for SubscriptionStream {
    type Item = Result<SubscribeResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        match this.poll_answer(context) {
            Ok(Poll::Ready(Some(answer))) => Poll::Ready(Some(Ok(SubscribeResponse { kind: Some(answer) }))),
            Ok(Poll::Ready(None)) => {
                this.end(false);
                Poll::Ready(None)
            }
            Ok(Poll::Pending) => Poll::Pending,
            Err(status) => {
                status::count(&status, &this.edge.metrics);
                this.end(false);
                Poll::Ready(Some(Err(status)))
            }
        }
    }
}

impl SubscriptionStream {
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Result<Poll<Option<Answer>>, Status> {
        let more_requests = self.poll_requests(context)?;
        if let Some(answer) = self.answers.pop_front() {
            return Ok(Poll::Ready(Some(answer)));
        }
        if let Poll::Ready(outcome) = self.poll_ack(context)? {
            return Ok(Poll::Ready(Some(outcome)));
        }
        if let Some(lost) = self.open.as_ref().and_then(|open| open.lost(context.waker())) {
            return Ok(Poll::Ready(Some(Answer::LeasesLost(lost))));
        }
        if self.requests_ended && self.acks.is_empty() {
            // The client has closed its side and every ack is answered: nothing it could still acknowledge is sent.
            return Ok(Poll::Ready(None));
        }
        if let Some(open) = self.open.as_ref().filter(|_| !self.requests_ended)
            && let Some((batch, count)) = open.next(context.waker()).map_err(stopped)?
        {
            self.edge.metrics.deliveries.inc_by(count);
            return Ok(Poll::Ready(Some(Answer::DeliveryBatch(batch))));
        }
        self.poll_credit_timeout(context)?;
        if more_requests {
            context.waker().wake_by_ref();
        }
        Ok(Poll::Pending)
    }

    /// Handles requests that are there. True when there may be more at once.
    fn poll_requests(&mut self, context: &mut Context<'_>) -> Result<bool, Status> {
        for _ in 0..MAX_REQUESTS_A_TURN {
            if self.requests_ended || self.acks.len() >= MAX_WAITING_ACKS {
                return Ok(false);
            }
            match self.requests.poll_next_unpin(context) {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => self.requests_ended = true,
                Poll::Ready(Some(Ok(request))) => self.handle(request)?,
                Poll::Ready(Some(Err(status))) => {
                    // The client has gone without a word: what it holds has failed.
                    self.end(true);
                    return Err(status::translate_status(status, &self.edge.limits));
                }
            }
        }
        Ok(true)
    }

    fn handle(&mut self, request: SubscribeRequest) -> Result<(), Status> {
        let Some(kind) = request.kind else {
            let text = "the request is empty; send open, credit, ack, nack or extend";
            return Err(Rejection::field("kind", text).into());
        };
        match (kind, &mut self.open) {
            (Ask::Open(open), None) => self.open(&open),
            (Ask::Open(_), Some(_)) => {
                let text = "the subscription is open already; use another stream for another sandbox";
                Err(Rejection::new(Reason::StreamOpenedTwice, text).into())
            }
            (_, None) => {
                let text = "the first request of a subscription must be open";
                Err(Rejection::new(Reason::StreamNotOpen, text).into())
            }
            (Ask::Credit(credit), Some(open)) => Ok(open.add_credit(&credit)?),
            (Ask::Ack(ack), Some(open)) => {
                let waiting = open.acknowledge(&ack)?;
                self.acks.push_back(waiting);
                Ok(())
            }
            (Ask::Nack(nack), Some(open)) => {
                let waiting = open.refuse(&nack)?;
                self.acks.push_back(waiting);
                Ok(())
            }
            (Ask::Extend(extend), Some(open)) => {
                let outcome = open.extend(&extend)?;
                self.answers.push_back(Answer::ExtendOutcome(outcome));
                Ok(())
            }
        }
    }

    fn open(&mut self, open: &wire::Open) -> Result<(), Status> {
        let told = |why: &Rejection| self.edge.turned_away(&self.caller, SUBSCRIBE, why);
        let workspace = self.caller.workspace(&open.workspace_id).inspect_err(told)?;
        let sandbox = field::id("sandbox_id", &open.sandbox_id)?;
        self.caller.acts_as("sandbox_id", sandbox).inspect_err(told)?;
        let options = options(open)?;
        let place = self.edge.workspace_place(workspace)?;
        let shard = self.edge.shards.of(workspace);
        let parts = (Arc::clone(&shard.delivery), Arc::clone(&shard.time));
        let subscription =
            Subscription::open(parts, workspace, sandbox, self.edge.limits, options, self.resume.first_delivery)?;
        let known = std::mem::take(&mut self.resume.subscription_id);
        let subscription_id = if known.is_empty() { clock::new_id() } else { known };
        tracing::debug!(%workspace, %sandbox, %subscription_id, "subscription opened");
        let ack_deadline = Some(time::duration(options.ack_deadline_ms));
        self.answers.push_back(Answer::Opened(Opened { subscription_id: subscription_id.clone(), ack_deadline }));
        let metrics = Arc::clone(&self.edge.metrics);
        self.workspace_place = place;
        self.open = Some(Open::new(subscription, shard.batcher.clone(), subscription_id, metrics));
        Ok(())
    }

    fn poll_ack(&mut self, context: &mut Context<'_>) -> Result<Poll<Answer>, Status> {
        let Some(front) = self.acks.front_mut() else { return Ok(Poll::Pending) };
        while let Some(receiver) = front.results.front_mut() {
            let Poll::Ready(result) = receiver.poll_unpin(context) else { return Ok(Poll::Pending) };
            front.results.pop_front();
            match result.unwrap_or(Err(RequestError::Unavailable(tandem_raft::ProposeError::Unsettled)))? {
                Outcome::Ack(acked) => front.counts.0 += acked?.count,
                Outcome::Nack(nacked) => {
                    let nacked = nacked?;
                    front.counts.0 += nacked.deferred;
                    front.counts.1 += nacked.dead_lettered;
                }
                other => return Err(RequestError::internal(format!("an ack came to {other:?}")).into()),
            }
        }
        let Some(Waiting { is_nack, counts, refusals, .. }) = self.acks.pop_front() else { return Ok(Poll::Pending) };
        if is_nack {
            let (deferred, dead_lettered) = counts;
            self.edge.metrics.nacked.inc_by(deferred + dead_lettered);
            return Ok(Poll::Ready(Answer::NackOutcome(NackOutcome { deferred, dead_lettered, refusals })));
        }
        self.edge.metrics.acknowledged.inc_by(counts.0);
        Ok(Poll::Ready(Answer::AckOutcome(AckOutcome { acknowledged: counts.0, refusals })))
    }

    /// Ends a stream that holds a place and will never be sent anything.
    fn poll_credit_timeout(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        let had_credit = self.open.as_ref().is_some_and(Open::had_credit);
        if had_credit || self.credit_timeout.poll_unpin(context).is_pending() {
            return Ok(());
        }
        let limit_ms = self.edge.limits.credit_timeout_ms;
        Err(match self.open {
            Some(_) => {
                let text = format!(
                    "the subscription gave no credit for messages and bytes within {limit_ms} ms, so nothing can be sent; \
                     send credit right after open"
                );
                Rejection::new(Reason::NoCredit, text).into()
            }
            None => {
                let text = format!("the stream was not opened within {limit_ms} ms; send open first");
                Rejection::new(Reason::StreamNotOpen, text).into()
            }
        })
    }

    /// Ends the stream. What it holds has failed when it broke, and is given back untouched otherwise.
    fn end(&mut self, broken: bool) {
        self.done = true;
        if let Some(open) = self.open.take().filter(|_| broken) {
            open.break_off();
        }
        self.acks.clear();
    }
}

impl Drop for SubscriptionStream {
    fn drop(&mut self) {
        // Dropped before its end: the client cancelled, or its connection is gone. Unless this server stops.
        let stopping = *self.edge.stopping.borrow();
        if !self.done {
            self.end(!stopping && !self.requests_ended);
        }
    }
}

fn options(open: &wire::Open) -> Result<SubscriptionOptions, Rejection> {
    let lenient = match AckMode::try_from(open.ack_mode) {
        Ok(AckMode::Unspecified | AckMode::Strict) => false,
        Ok(AckMode::Lenient) => true,
        Err(_) => {
            let text = format!("ack_mode {} does not exist; it must be 0, 1 or 2", open.ack_mode);
            return Err(Rejection::field("ack_mode", text));
        }
    };
    if open.low_priority_percent > 50 {
        let text = format!("low_priority_percent is {}; it must be 0 to 50", open.low_priority_percent);
        return Err(Rejection::field("low_priority_percent", text));
    }
    let ack_deadline_ms = time::milliseconds("ack_deadline", open.ack_deadline, ACK_DEADLINES_MS)?;
    Ok(SubscriptionOptions {
        ack_deadline_ms: ack_deadline_ms.unwrap_or(ACK_DEADLINE_MS),
        lenient,
        low_priority_percent: open.low_priority_percent,
    })
}

fn stopped(stop: Stop) -> Status {
    match stop {
        Stop::Ended(Ended::Gone) => {
            let text = "the sandbox was unregistered; register it again and subscribe anew";
            Rejection::new(Reason::UnknownSandbox, text).into()
        }
        Stop::Ended(Ended::LeaderChanged) => {
            RequestError::Unavailable(tandem_raft::ProposeError::NotLeader(None)).into()
        }
        Stop::Ended(Ended::ShuttingDown) => status::shutting_down(),
        Stop::Ended(Ended::FollowsChanged) => status::follows_changed(),
        Stop::Ended(Ended::AckFailed) => RequestError::Unavailable(tandem_raft::ProposeError::Unsettled).into(),
        Stop::Unreadable(rejection) => rejection.into(),
        Stop::State(error) => RequestError::internal(error.to_string()).into(),
    }
}
