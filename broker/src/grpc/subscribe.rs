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
use tandem_proto::raw::messaging::v1::{
    AckOutcome, AckRefusal, DeliveryRange, Opened, SubscribeRequest, SubscribeResponse, subscribe_request::Kind as Ask,
    subscribe_response::Kind as Answer, subscribe_service_server::SubscribeService,
};
use tokio::{sync::oneshot, time::Sleep};
use tonic::{Request, Response, Status, Streaming};

use super::{Edge, StreamPlace, status};
use crate::{
    batcher::{BatcherHandle, VerbResult},
    clock,
    command::{Ack, Outcome},
    delivery::{
        inbox::Ended,
        subscription::{Stop, Subscription},
    },
    error::RequestError,
    field,
    rejection::{Reason, Rejection},
};

/// Acks of one stream that wait for their outcome; beyond, the stream is not read.
const MAX_WAITING_ACKS: usize = 1_024;
/// Ranges in one ack.
const MAX_ACK_RANGES: usize = 1_024;
/// Requests handled before deliveries get a turn.
const MAX_REQUESTS_A_TURN: usize = 64;

#[tonic::async_trait]
impl SubscribeService for Edge {
    type SubscribeStream = SubscriptionStream;

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeRequest>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let place = self.take_stream_place()?;
        let credit_timeout = Box::pin(tokio::time::sleep(Duration::from_millis(self.limits.credit_timeout_ms)));
        Ok(Response::new(SubscriptionStream {
            edge: self.clone(),
            requests: request.into_inner(),
            requests_ended: false,
            open: None,
            answers: VecDeque::new(),
            acks: VecDeque::new(),
            credit_timeout,
            done: false,
            _place: place,
        }))
    }
}

/// What a stream has once it is open.
struct Open {
    subscription: Subscription,
    batcher: BatcherHandle,
}

/// An ack on its way.
struct WaitingAck {
    result: Option<oneshot::Receiver<VerbResult>>,
    refusals: Vec<AckRefusal>,
}

/// The response side of a subscription.
pub(crate) struct SubscriptionStream {
    edge: Edge,
    requests: Streaming<SubscribeRequest>,
    requests_ended: bool,
    open: Option<Open>,
    answers: VecDeque<Answer>,
    acks: VecDeque<WaitingAck>,
    credit_timeout: Pin<Box<Sleep>>,
    done: bool,
    _place: StreamPlace,
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
                this.end();
                Poll::Ready(None)
            }
            Ok(Poll::Pending) => Poll::Pending,
            Err(status) => {
                status::count(&status, &this.edge.metrics);
                this.end();
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
            return Ok(Poll::Ready(Some(Answer::AckOutcome(outcome))));
        }
        if self.requests_ended && self.acks.is_empty() {
            // The client has closed its side and every ack is answered: nothing it could still acknowledge is sent.
            return Ok(Poll::Ready(None));
        }
        if let Some(open) = self.open.as_mut().filter(|_| !self.requests_ended) {
            let batch = open.subscription.next(context.waker()).map_err(stopped)?;
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
                Poll::Ready(Some(Err(status))) => return Err(status::translate_status(status, &self.edge.limits)),
            }
        }
        Ok(true)
    }

    fn handle(&mut self, request: SubscribeRequest) -> Result<(), Status> {
        let Some(kind) = request.kind else {
            return Err(Rejection::field("kind", "the request is empty; send open, credit or ack").into());
        };
        let open = match (kind, &mut self.open) {
            (Ask::Open(open), None) => return self.open(&open.workspace_id, &open.sandbox_id),
            (Ask::Open(_), Some(_)) => {
                let text = "the subscription is open already; use another stream for another sandbox";
                return Err(Rejection::new(Reason::StreamOpenedTwice, text).into());
            }
            (_, None) => {
                let text = "the first request of a subscription must be open";
                return Err(Rejection::new(Reason::StreamNotOpen, text).into());
            }
            (Ask::Credit(credit), Some(open)) => {
                return Ok(open.subscription.add_credit(credit.messages, credit.bytes)?);
            }
            (Ask::Ack(ack), Some(open)) => (ack, open),
        };
        let (ack, open) = open;
        if ack.ranges.len() > MAX_ACK_RANGES {
            let text = format!("the ack has {} ranges; at most {MAX_ACK_RANGES} are allowed", ack.ranges.len());
            return Err(Rejection::field("ack.ranges", text).into());
        }
        let ranges: Vec<_> = ack.ranges.iter().map(|range| (range.first, range.last)).collect();
        let done = open.subscription.acknowledge(&ranges);
        let refusals =
            done.refused.into_iter().map(|(first, last, rejection)| refusal(first, last, &rejection)).collect();
        let result = done.command.map(|command| submit_ack(open, command));
        self.acks.push_back(WaitingAck { result, refusals });
        Ok(())
    }

    fn open(&mut self, workspace: &str, sandbox: &str) -> Result<(), Status> {
        let workspace = field::id("workspace_id", workspace)?;
        let sandbox = field::id("sandbox_id", sandbox)?;
        let shard = self.edge.shards.of(workspace);
        let delivery = Arc::clone(&shard.delivery);
        let subscription = Subscription::open(delivery, workspace, sandbox, self.edge.limits)?;
        let subscription_id = clock::new_id();
        tracing::debug!(%workspace, %sandbox, %subscription_id, "subscription opened");
        self.open = Some(Open { subscription, batcher: shard.batcher.clone() });
        self.answers.push_back(Answer::Opened(Opened { subscription_id }));
        Ok(())
    }

    fn poll_ack(&mut self, context: &mut Context<'_>) -> Result<Poll<AckOutcome>, Status> {
        let Some(front) = self.acks.front_mut() else { return Ok(Poll::Pending) };
        let mut outcome = AckOutcome { acknowledged: 0, refusals: std::mem::take(&mut front.refusals) };
        if let Some(receiver) = &mut front.result {
            let Poll::Ready(result) = receiver.poll_unpin(context) else {
                front.refusals = outcome.refusals;
                return Ok(Poll::Pending);
            };
            match result.unwrap_or(Err(RequestError::Unavailable(tandem_raft::ProposeError::Unsettled)))? {
                Outcome::Ack(acked) => outcome.acknowledged = acked?.count,
                other => return Err(RequestError::internal(format!("an ack came to {other:?}")).into()),
            }
        }
        self.acks.pop_front();
        self.edge.metrics.acknowledged.inc_by(outcome.acknowledged);
        Ok(Poll::Ready(outcome))
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

    fn end(&mut self) {
        self.done = true;
        self.open = None;
        self.acks.clear();
    }
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
        Stop::Ended(Ended::ShuttingDown) => status::shutting_down(),
        Stop::Ended(Ended::AckFailed) => RequestError::Unavailable(tandem_raft::ProposeError::Unsettled).into(),
        Stop::State(error) => RequestError::internal(error.to_string()).into(),
    }
}
