//! Subscribe: one stream, one task. The response stream itself reads the client's credit and acks, so that a delivery
//! costs no channel and no second task.

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
        self as wire, AckOutcome, AckRefusal, DeliveryRange, ExtendOutcome, LeasesLost, NackOutcome, Opened,
        SubscribeRequest, SubscribeResponse, subscribe_request::Kind as Ask, subscribe_response::Kind as Answer,
        subscribe_service_server::SubscribeService,
    },
};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep},
};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Edge, StreamPlace,
    moving::{self, Requests, Resume, Subscribed},
    status, time,
};
use crate::{
    batcher::{BatcherHandle, VerbResult},
    clock,
    command::{Ack, Nack, Outcome, nack::AttemptError},
    delivery::{
        inbox::Ended,
        leases::Refused,
        subscription::{Failure, Stop, Subscription, SubscriptionOptions},
    },
    error::RequestError,
    field,
    rejection::{Reason, Rejection},
};

/// Acks of one stream that wait for their outcome; beyond, the stream is not read.
const MAX_WAITING_ACKS: usize = 1_024;
/// Ranges in one ack.
const MAX_ACK_RANGES: usize = 1_024;
/// How long a delivery may take unless the subscriber says otherwise.
const ACK_DEADLINE_MS: u64 = 30_000;
/// What an ack deadline may be.
const ACK_DEADLINES_MS: std::ops::RangeInclusive<u64> = 1_000..=24 * 3_600_000;
/// What the delay of a nack may be.
const DELAYS_MS: std::ops::RangeInclusive<u64> = 0..=24 * 3_600_000;
/// Bytes of the reason of a nack.
const MAX_REASON_BYTES: usize = 1_024;
/// Requests handled before deliveries get a turn.
const MAX_REQUESTS_A_TURN: usize = 64;

#[tonic::async_trait]
impl SubscribeService for Edge {
    type SubscribeStream = Subscribed;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let place = self.take_stream_place()?;
        let resume = Resume::of(request.metadata());
        let requests = request.into_inner();
        if self.routing.is_some() && resume.is_none() {
            return Ok(Response::new(moving::subscription(self.clone(), requests, place)));
        }
        let stream = self.serve_here(Box::pin(requests), resume.unwrap_or_default(), Some(place));
        Ok(Response::new(Subscribed::Here(Box::new(stream))))
    }
}

impl Edge {
    /// A subscription that this node serves itself.
    pub(super) fn serve_here(
        &self,
        requests: Requests,
        resume: Resume,
        place: Option<StreamPlace>,
    ) -> SubscriptionStream {
        let credit_timeout = Box::pin(tokio::time::sleep(Duration::from_millis(self.limits.credit_timeout_ms)));
        SubscriptionStream {
            edge: self.clone(),
            requests,
            resume,
            requests_ended: false,
            open: None,
            answers: VecDeque::new(),
            acks: VecDeque::new(),
            credit_timeout,
            deadline: Box::pin(tokio::time::sleep(Duration::ZERO)),
            done: false,
            _place: place,
        }
    }
}

/// What a stream has once it is open.
struct Open {
    subscription: Subscription,
    batcher: BatcherHandle,
    subscription_id: String,
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
    requests: Requests,
    resume: Resume,
    requests_ended: bool,
    open: Option<Open>,
    answers: VecDeque<Answer>,
    acks: VecDeque<Waiting>,
    credit_timeout: Pin<Box<Sleep>>,
    /// The next deadline of a lease.
    deadline: Pin<Box<Sleep>>,
    done: bool,
    _place: Option<StreamPlace>,
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
        if let Some(lost) = self.poll_deadlines(context) {
            return Ok(Poll::Ready(Some(Answer::LeasesLost(lost))));
        }
        if self.requests_ended && self.acks.is_empty() {
            // The client has closed its side and every ack is answered: nothing it could still acknowledge is sent.
            return Ok(Poll::Ready(None));
        }
        if let Some(open) = self.open.as_mut().filter(|_| !self.requests_ended) {
            let batch = open.subscription.next(context.waker()).map_err(stopped)?;
            if let Some(ack) = open.subscription.dropped() {
                // In the name of the subscribers, who never see these; nobody waits for the outcome.
                drop(submit_ack(open, ack));
            }
            if let Some(batch) = batch {
                self.edge.metrics.deliveries.inc_by(open.subscription.last_batch_len());
                return Ok(Poll::Ready(Some(Answer::DeliveryBatch(batch))));
            }
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
            (Ask::Credit(credit), Some(open)) => Ok(open.subscription.add_credit(credit.messages, credit.bytes)?),
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
        let workspace = field::id("workspace_id", &open.workspace_id)?;
        let sandbox = field::id("sandbox_id", &open.sandbox_id)?;
        let options = options(open)?;
        let shard = self.edge.shards.of(workspace);
        let delivery = Arc::clone(&shard.delivery);
        let subscription =
            Subscription::open(delivery, workspace, sandbox, self.edge.limits, options, self.resume.first_delivery)?;
        let known = std::mem::take(&mut self.resume.subscription_id);
        let subscription_id = if known.is_empty() { clock::new_id() } else { known };
        tracing::debug!(%workspace, %sandbox, %subscription_id, "subscription opened");
        let ack_deadline = Some(time::duration(options.ack_deadline_ms));
        self.answers.push_back(Answer::Opened(Opened { subscription_id: subscription_id.clone(), ack_deadline }));
        self.open = Some(Open { subscription, batcher: shard.batcher.clone(), subscription_id });
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

    /// Ends leases whose deadline has passed, and sees to it that this is called when the next one does.
    fn poll_deadlines(&mut self, context: &mut Context<'_>) -> Option<LeasesLost> {
        let open = self.open.as_mut()?;
        let next_ms = open.subscription.next_deadline_ms()?;
        let now_ms = open.subscription.elapsed_ms();
        if next_ms > now_ms {
            let at = Instant::from_std(clock::now()) + Duration::from_millis(next_ms - now_ms);
            // Moved only when it would come too late; one that comes too early looks again.
            if self.deadline.is_elapsed() || self.deadline.deadline() > at {
                self.deadline.as_mut().reset(at);
            }
            if self.deadline.poll_unpin(context).is_pending() {
                return None;
            }
        }
        let (nacks, ids) = open.subscription.lapse();
        for nack in nacks {
            drop(submit_nack(open, nack));
        }
        if ids.is_empty() {
            // The entry was of leases that are done or prolonged: look for the next one.
            context.waker().wake_by_ref();
            return None;
        }
        let lapsed = ids.iter().map(|(first, last)| last - first + 1).sum();
        self.edge.metrics.leases_lapsed.inc_by(lapsed);
        let text = "the ack deadline passed; the messages will come again. Use extend for work that takes longer";
        let status = status::rejected_in_response(&Rejection::new(Reason::LeaseLost, text));
        let ranges = ids.into_iter().map(|(first, last)| DeliveryRange { first, last }).collect();
        Some(LeasesLost { ranges, status: Some(status) })
    }

    /// Ends a stream that holds a place and will never be sent anything.
    fn poll_credit_timeout(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        let had_credit = self.open.as_ref().is_some_and(|open| open.subscription.had_credit());
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
        if let Some(mut open) = self.open.take().filter(|_| broken) {
            for nack in open.subscription.break_off() {
                drop(submit_nack(&open, nack));
            }
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

impl Open {
    fn acknowledge(&mut self, ack: &wire::Ack) -> Result<Waiting, Rejection> {
        let ranges = ranges("ack.ranges", &ack.ranges)?;
        if let Some(refusals) = self.foreign(&ack.subscription_id, &ranges) {
            return Ok(Waiting { is_nack: false, results: VecDeque::new(), counts: (0, 0), refusals });
        }
        let (command, refused) = self.subscription.acknowledge(&ranges);
        let results = command.map(|command| submit_ack(self, command)).into_iter().collect();
        Ok(Waiting { is_nack: false, results, counts: (0, 0), refusals: refusals(refused) })
    }

    fn refuse(&mut self, nack: &wire::Nack) -> Result<Waiting, Rejection> {
        let ranges = ranges("nack.ranges", &nack.ranges)?;
        if let Some(refusals) = self.foreign(&nack.subscription_id, &ranges) {
            return Ok(Waiting { is_nack: true, results: VecDeque::new(), counts: (0, 0), refusals });
        }
        if nack.reason.len() > MAX_REASON_BYTES {
            let text = format!("the reason has {} bytes; at most {MAX_REASON_BYTES} are allowed", nack.reason.len());
            return Err(Rejection::field("nack.reason", text));
        }
        let how = Failure {
            error: AttemptError::Nacked,
            text: nack.reason.clone().into(),
            delay_ms: time::milliseconds("nack.delay", nack.delay, DELAYS_MS)?,
            dead_letter: nack.dead_letter,
        };
        let (commands, refused) = self.subscription.refuse(&ranges, how);
        let results = commands.into_iter().map(|command| submit_nack(self, command)).collect();
        Ok(Waiting { is_nack: true, results, counts: (0, 0), refusals: refusals(refused) })
    }

    fn extend(&mut self, extend: &wire::Extend) -> Result<ExtendOutcome, Rejection> {
        let ranges = ranges("extend.ranges", &extend.ranges)?;
        if let Some(refusals) = self.foreign(&extend.subscription_id, &ranges) {
            return Ok(ExtendOutcome { extended: 0, refusals });
        }
        let deadline_ms = time::milliseconds("extend.ack_deadline", extend.ack_deadline, ACK_DEADLINES_MS)?;
        let (extended, refused) = self.subscription.extend(&ranges, deadline_ms);
        Ok(ExtendOutcome { extended, refusals: refusals(refused) })
    }

    /// Refusals of all ranges when they are of another subscription, whose leases ended with it.
    fn foreign(&self, subscription_id: &str, ranges: &[(u64, u64)]) -> Option<Vec<AckRefusal>> {
        if subscription_id.is_empty() || subscription_id == self.subscription_id {
            return None;
        }
        let text = format!(
            "subscription {:?} has ended, and its leases with it; the messages come again",
            field::shown(subscription_id)
        );
        let why = Rejection::new(Reason::LeaseLost, text);
        Some(ranges.iter().map(|(first, last)| refusal(*first, *last, &why)).collect())
    }
}

fn ranges(field: &'static str, ranges: &[DeliveryRange]) -> Result<Vec<(u64, u64)>, Rejection> {
    if ranges.len() > MAX_ACK_RANGES {
        let text = format!("there are {} ranges; at most {MAX_ACK_RANGES} are allowed", ranges.len());
        return Err(Rejection::field(field, text));
    }
    Ok(ranges.iter().map(|range| (range.first, range.last)).collect())
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

/// Hands in a nack, as `submit_ack` does an ack.
fn submit_nack(open: &Open, nack: Nack) -> oneshot::Receiver<VerbResult> {
    let settle = open.subscription.settler();
    let (sender, receiver) = oneshot::channel();
    let answer = move |result: VerbResult| {
        settle(matches!(result, Ok(Outcome::Nack(Ok(_)))));
        drop(sender.send(result));
    };
    open.batcher.refuse(nack, Box::new(answer));
    receiver
}

fn refusals(refused: Vec<Refused>) -> Vec<AckRefusal> {
    refused.into_iter().map(|(first, last, why)| refusal(first, last, &why)).collect()
}

/// Hands in an ack, and sees to it that the inbox hears how it ended even when the stream has gone by then.
fn submit_ack(open: &Open, ack: Ack) -> oneshot::Receiver<VerbResult> {
    let settle = open.subscription.settler();
    let (sender, receiver) = oneshot::channel();
    let answer = move |result: VerbResult| {
        settle(matches!(result, Ok(Outcome::Ack(Ok(_)))));
        // The stream may have gone; the ack stands.
        drop(sender.send(result));
    };
    open.batcher.acknowledge(ack, Box::new(answer));
    receiver
}

fn refusal(first: u64, last: u64, rejection: &Rejection) -> AckRefusal {
    AckRefusal { range: Some(DeliveryRange { first, last }), status: Some(status::rejected_in_response(rejection)) }
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
        Stop::State(error) => RequestError::internal(error.to_string()).into(),
    }
}
