//! Publish: one message, or batches over a stream.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::BoxStream};
use tandem_proto::raw::messaging::v1::{
    ProducerPosition, PublishException, PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse,
    publish_exception::Outcome, publish_service_server::PublishService,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Edge, StreamPlace,
    capability::{Capable, Choice},
    given::Gift,
    status,
    time::timestamp,
};
use crate::{
    auth::Caller,
    batch::Record,
    batcher::{BatcherHandle, PublishRecords, PublishResult},
    command::{Published, publish::Exception},
    error::RequestError,
    field,
    machine::{keys, policy::InForce, workspace::Workspace},
    message::{self, Chosen, Destination, Envelope, SEQUENCE_ID_PREFIX},
    metrics::Metrics,
    query::QueryError,
    quotas::Quotas,
    rejection::{Reason, Rejection},
    shard::Shard,
};

/// For the audit.
const PUBLISH_STREAM: &str = "/aintandem.messaging.v1.PublishService/PublishStream";

/// A batch whose good messages are on their way.
struct Checked {
    records: Bytes,
    count: u32,
    /// What was refused here already, by position in the request.
    refused: Vec<(u32, Rejection)>,
}

/// An answer in the making.
struct Answer {
    request_id: u64,
    total: u32,
    refused: Vec<(u32, Rejection)>,
    published: Option<oneshot::Receiver<PublishResult>>,
    /// What is on its way until it is published.
    gift: Gift,
}

#[tonic::async_trait]
impl PublishService for Edge {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<PublishResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace: Arc<str> = caller.workspace(&request.workspace_id)?.into();
        let mut records = BytesMut::with_capacity(request.message.len() + 256);
        let mut context = self.context(&caller, &workspace)?;
        let producer = producer(&caller, request.producer.as_ref())?;
        self.encode(&mut context, &request.message, producer, 0, &mut records)?;
        let publish = PublishRecords { workspace, count: 1, records: records.freeze() };
        let published = self.shards.of(&request.workspace_id).batcher.publish_now(publish).await?;
        context.gift.arrived();
        let (sequence, time_ms, duplicate, approval_id) = match published.exceptions.into_iter().next() {
            None => (published.first_sequence, published.time_ms, false, 0),
            Some((_, Exception::Duplicate { sequence, time_ms })) => (sequence, time_ms, true, 0),
            Some((_, Exception::Held { approval })) => (0, published.time_ms, false, approval),
            Some((_, Exception::Refused(rejection))) => return Err(rejection.into()),
        };
        let mut message_id = message::read(&request.message).map(|view| view.message_id.to_owned()).unwrap_or_default();
        if message_id.is_empty() && approval_id == 0 {
            message_id = format!("{SEQUENCE_ID_PREFIX}{sequence}");
        }
        let server_time = Some(timestamp(time_ms));
        Ok(Response::new(PublishResponse { message_id, sequence, server_time, duplicate, approval_id }))
    }

    type PublishStreamStream = BoxStream<'static, Result<PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let caller = Caller::of(&request)?;
        // Who is bound to a workspace takes a place of it at once, also if he never says anything.
        let place = match &caller.identity().workspace {
            Some(workspace) => self.take_stream_place_of(workspace)?,
            None => self.take_stream_place()?,
        };
        let (answers, waiting) = mpsc::channel(self.limits.max_stream_requests);
        tokio::spawn(read_requests(self.clone(), caller, request.into_inner(), answers, place));
        let metrics = Arc::clone(&self.metrics);
        let answered = tokio_stream::wrappers::ReceiverStream::new(waiting).then(move |answer| {
            let metrics = Arc::clone(&metrics);
            async move {
                match answer {
                    Ok(answer) => finish(answer, &metrics).await,
                    Err(status) => {
                        status::count(&status, &metrics);
                        Err(status)
                    }
                }
            }
        });
        Ok(Response::new(answered.boxed()))
    }
}

/// Reads the requests of a stream and hands them in, in order, until the stream ends or one is wrong as a whole. The
/// bounded channel of answers holds it back when the client is ahead of the log.
async fn read_requests(
    edge: Edge,
    caller: Caller,
    mut requests: Streaming<PublishStreamRequest>,
    answers: mpsc::Sender<Result<Answer, Status>>,
    mut place: StreamPlace,
) {
    let mut target: Option<(Arc<str>, BatcherHandle)> = None;
    loop {
        let request = tokio::select! {
            request = requests.message() => request,
            () = edge.stopped() => {
                // What was read before is answered first.
                drop(answers.send(Err(status::shutting_down())).await);
                return;
            }
        };
        let request = match request {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(status) => {
                // The client has gone or sent what is not protobuf; the second may still listen.
                drop(answers.send(Err(status::translate_status(status, &edge.limits))).await);
                return;
            }
        };
        let Ok(slot) = answers.reserve().await else { return };
        match submit(&edge, &caller, (&mut target, &mut place), request).await {
            Ok(answer) => slot.send(Ok(answer)),
            Err(error) => {
                slot.send(Err(error.into()));
                return;
            }
        }
    }
}

async fn submit(
    edge: &Edge,
    caller: &Caller,
    (target, place): (&mut Option<(Arc<str>, BatcherHandle)>, &mut StreamPlace),
    request: PublishStreamRequest,
) -> Result<Answer, RequestError> {
    // The stream ends with what its caller has shown; until that reaches a client that reads nothing, nothing more is taken.
    caller.in_time()?;
    let (workspace, batcher) = match target {
        Some(target) if request.workspace_id.is_empty() || *request.workspace_id == *target.0 => target,
        Some((workspace, _)) => {
            let text = format!(
                "the stream publishes to workspace {workspace:?}, and this request names {:?}; use another stream for it",
                field::shown(&request.workspace_id)
            );
            return Err(Rejection::field("workspace_id", text).into());
        }
        None => {
            let told = |why: &Rejection| edge.turned_away(caller, PUBLISH_STREAM, why);
            let workspace = caller.workspace(&request.workspace_id).inspect_err(told)?;
            if place.of_workspace.is_none() {
                place.of_workspace = edge.workspace_place(workspace)?;
            }
            target.insert((workspace.into(), edge.shards.of(workspace).batcher.clone()))
        }
    };
    let total = request.messages.len() as u32;
    let mut context = edge.context(caller, workspace)?;
    let checked = check(edge, &mut context, &request)?;
    let published = if checked.count == 0 {
        None
    } else {
        let publish =
            PublishRecords { workspace: Arc::clone(workspace), count: checked.count, records: checked.records };
        Some(batcher.publish(publish).await?)
    };
    Ok(Answer { request_id: request.request_id, total, refused: checked.refused, published, gift: context.gift })
}

/// Checks a batch. What is wrong with one message refuses that message; what is wrong with the batch refuses all of it. A
/// refused message keeps its place in the log, so that sequences follow positions.
fn check(edge: &Edge, context: &mut PublishContext<'_>, request: &PublishStreamRequest) -> Result<Checked, Rejection> {
    let (messages, limits) = (&request.messages, &edge.limits);
    let bytes: usize = messages.iter().map(Bytes::len).sum();
    if messages.is_empty() {
        return Err(Rejection::field("messages", "the request has no messages; send at least one"));
    }
    if messages.len() > limits.max_batch_messages || bytes > limits.max_batch_bytes {
        let text = format!(
            "the request has {} messages and {bytes} bytes; at most {} messages and {} bytes are allowed",
            messages.len(),
            limits.max_batch_messages,
            limits.max_batch_bytes
        );
        return Err(Rejection { reason: Reason::BatchTooLarge, text, field: "messages".into(), retry_ms: 0 });
    }
    let (producer, first) = producer(context.caller, request.producer.as_ref())?;
    if first.checked_add(messages.len() as u64).is_none() {
        let text =
            format!("producer.sequence is {first}; positions end before the last of {} messages", messages.len());
        return Err(Rejection::field("producer.sequence", text));
    }
    let mut records = BytesMut::with_capacity(bytes + messages.len() * 64);
    let mut refused = Vec::new();
    // Whether all that is refused is so because it is too much.
    let mut over = true;
    for (position, message) in messages.iter().enumerate() {
        let before = records.len();
        let producer = (producer, first + position as u64);
        if let Err(error) = edge.encode(context, message, producer, 0, &mut records) {
            let RequestError::Rejected(rejection) = error else { return Err(unreadable(&error)) };
            edge.turned_away(context.caller, PUBLISH_STREAM, &rejection);
            over &= matches!(rejection.reason, Reason::RateLimited | Reason::QuotaExceeded);
            records.truncate(before);
            // It takes its place among what the producer sends, or what follows would be missing something.
            Record { producer, ..Record::void() }.encode(&mut records);
            refused.push((position as u32, rejection));
        }
    }
    // What is too much as a whole costs the log nothing, and takes no positions.
    let nothing = refused.len() == messages.len() && (producer == 0 || over);
    let count = if nothing { 0 } else { messages.len() as u32 };
    Ok(Checked { records: records.freeze(), count, refused })
}

fn unreadable(error: &RequestError) -> Rejection {
    Rejection::new(Reason::Overloaded, format!("the registry could not be read: {error}; try again"))
}

/// The hash of the producer and the position of its first message. Producers of a caller that is bound to a sandbox are its own:
/// else one could take the positions of another.
fn producer(caller: &Caller, position: Option<&ProducerPosition>) -> Result<(u128, u64), Rejection> {
    let Some(position) = position else { return Ok((0, 0)) };
    let id = field::id("producer.producer_id", &position.producer_id)?;
    if position.sequence == 0 {
        return Err(Rejection::field("producer.sequence", "producer.sequence is 0; it begins with 1"));
    }
    let hash = match &caller.identity().sandbox {
        Some(own) => keys::text_hash(&format!("{own}\0{id}")),
        None => keys::text_hash(id),
    };
    Ok((hash, position.sequence))
}

/// What a publish needs to know of its workspace. A workspace that is not there is told by the machine.
pub(super) struct PublishContext<'a> {
    pub(super) shard: &'a Shard,
    pub(super) caller: &'a Caller,
    pub(super) workspace: Option<Workspace>,
    pub(super) quotas: Option<Quotas>,
    /// Of the workspace.
    pub(super) name_hash: u128,
    pub(super) now_ms: u64,
    /// The policy, where it limits rates.
    pub(super) rated: Option<Arc<InForce>>,
    /// The name of the workspace, where its messages are encrypted.
    seals_for: Option<Box<str>>,
    /// By capability, as far as messages were addressed to one.
    pub(super) capable: HashMap<String, Capable>,
    /// To whom of them messages are on their way.
    pub(super) gift: Gift,
}

impl PublishContext<'_> {
    /// A message as it is stored.
    fn stored<'b>(&self, body: &'b [u8]) -> Result<Cow<'b, [u8]>, Rejection> {
        match &self.seals_for {
            Some(workspace) => self.shard.delivery.sealer().seal(workspace, body),
            None => Ok(body.into()),
        }
    }

    /// 0 where there is no such workspace.
    pub(super) fn workspace_number(&self) -> u32 {
        self.workspace.as_ref().map_or(0, |workspace| workspace.number)
    }
}

impl Edge {
    pub(super) fn context<'a>(
        &'a self,
        caller: &'a Caller,
        workspace: &str,
    ) -> Result<PublishContext<'a>, RequestError> {
        let shard = self.shards.of(workspace);
        let found = match shard.reader.workspace(workspace) {
            Ok(found) => Some(found),
            Err(QueryError::Rejected(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let quotas = match &found {
            Some(found) => shard.reader.quotas(found.number)?,
            None => None,
        };
        let in_force = match &found {
            Some(found) => shard.reader.policy_in_force(found.number)?,
            None => None,
        };
        Ok(PublishContext {
            shard,
            rated: in_force.filter(|policy| policy.limits_rates()),
            caller,
            workspace: found,
            name_hash: keys::text_hash(workspace),
            quotas,
            now_ms: shard.time.now_ms(),
            seals_for: shard.delivery.sealer().seals(workspace).then(|| workspace.into()),
            capable: HashMap::new(),
            gift: Gift::new(&shard.given),
        })
    }

    /// Checks a message and appends its record.
    pub(super) fn encode(
        &self,
        context: &mut PublishContext<'_>,
        body: &[u8],
        producer: (u128, u64),
        reply_timeout_ms: u64,
        out: &mut BytesMut,
    ) -> Result<(), RequestError> {
        let view = message::check(body, &self.limits, context.now_ms)?;
        context.caller.acts_as("message.from_sandbox_id", view.from_sandbox_id)?;
        let default_ttl_ms = context.workspace.as_ref().map_or(0, |workspace| workspace.settings.default_ttl_ms);
        let mut envelope =
            Envelope { default_ttl_ms, producer, reply_timeout_ms, now_ms: context.now_ms, chosen: Chosen::Nobody };
        let (Destination::Capability(wanted), Some(_)) = (view.to, &context.workspace) else {
            self.within_quotas(context, (&view, body), &Choice::Nobody)?;
            return Ok(view.encode(&context.stored(body)?, &envelope, out)?);
        };
        let choice = self.choose(context, wanted, (&view, body))?;
        envelope.chosen = match &choice {
            Choice::One(name) => Chosen::One(name),
            Choice::Several(numbers) => Chosen::Several(numbers),
            Choice::Nobody => Chosen::Nobody,
        };
        self.within_quotas(context, (&view, body), &choice)?;
        Ok(view.encode(&context.stored(body)?, &envelope, out)?)
    }
}

async fn finish(mut answer: Answer, metrics: &Metrics) -> Result<PublishStreamResponse, Status> {
    let published = match answer.published {
        None => Published { first_sequence: 0, time_ms: 0, exceptions: Vec::new() },
        Some(receiver) => match receiver.await {
            Ok(result) => result?,
            Err(_) => return Err(RequestError::Unavailable(tandem_raft::ProposeError::Unsettled).into()),
        },
    };
    answer.gift.arrived();
    let mut exceptions: Vec<(u32, Exception)> = published
        .exceptions
        .into_iter()
        .filter(|(index, _)| answer.refused.binary_search_by_key(index, |(at, _)| *at).is_err())
        .chain(answer.refused.iter().map(|(index, rejection)| (*index, Exception::Refused(rejection.clone()))))
        .collect();
    exceptions.sort_by_key(|(index, _)| *index);
    let accepted = answer.total - exceptions.len() as u32;
    Ok(PublishStreamResponse {
        request_id: answer.request_id,
        first_sequence: if accepted == 0 { 0 } else { published.first_sequence },
        accepted,
        server_time: (published.time_ms > 0).then(|| timestamp(published.time_ms)),
        exceptions: exceptions
            .into_iter()
            .map(|(index, exception)| exception_on_wire(index, exception, metrics))
            .collect(),
    })
}

fn exception_on_wire(index: u32, exception: Exception, metrics: &Metrics) -> PublishException {
    let outcome = match exception {
        Exception::Duplicate { sequence, .. } => Outcome::DuplicateOf(sequence),
        Exception::Held { approval } => Outcome::ApprovalId(approval),
        Exception::Refused(rejection) => {
            metrics.refused(rejection.reason);
            Outcome::Refusal(status::rejected_in_response(&rejection))
        }
    };
    PublishException { index, outcome: Some(outcome) }
}
