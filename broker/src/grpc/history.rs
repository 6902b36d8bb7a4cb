//! Reads of the log.

use bytes::{Buf as _, Bytes};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tandem_proto::raw::messaging::v1::{
    GetMessageRequest, GetMessageResponse, ListMessagesRequest, ListMessagesResponse, MessageFilter,
    ReplayMessagesRequest, ReplayMessagesResponse, StreamMessagesRequest, StreamMessagesResponse,
    history_service_server::HistoryService,
};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{Edge, StreamPlace, time};
use crate::{
    auth::Caller,
    batch::MessageRef,
    command::{Outcome, Replay, Verb},
    delivery::subscription::encode_message,
    error::RequestError,
    field,
    machine::workspace::Workspace,
    message::SEQUENCE_ID_PREFIX,
    query::{
        QueryError,
        history::{Filter, Page, Span},
    },
    rejection::{Reason, Rejection},
    shard::Shard,
};

/// Messages in one response of a stream.
const MAX_STREAMED: usize = 500;
/// Messages that one call replays.
const MAX_REPLAYED: usize = 1_000;

#[tonic::async_trait]
impl HistoryService for Edge {
    async fn get_message(&self, request: Request<GetMessageRequest>) -> Result<Response<GetMessageResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = caller.workspace(&request.workspace_id)?;
        let id = field::id("message_id", &request.message_id)?;
        let shard = self.shards.of(name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(name)?;
        let sequence = match id.strip_prefix(SEQUENCE_ID_PREFIX) {
            Some(number) => number.parse().ok(),
            None => shard
                .reader
                .known_id(&workspace, id)
                .map_err(|error| RequestError::internal(error.to_string()))?
                .map(|known| known.sequence),
        };
        let found = match sequence {
            Some(sequence) => shard.reader.message_in_history(&workspace, sequence)?,
            None => None,
        };
        // A message with an id of its own is not found under its sequence: it has one name.
        let found = found.filter(|message| message.record().id.is_empty() == id.starts_with(SEQUENCE_ID_PREFIX));
        let Some(message) = found else {
            let text = format!("message {id:?} does not exist in workspace {name:?}");
            return Err(Rejection::new(Reason::UnknownMessage, text).into());
        };
        let message = encode_message(shard.delivery.sealer(), &message, name)?;
        Ok(Response::new(GetMessageResponse { message }))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = caller.workspace(&request.workspace_id)?;
        let limit = field::page_size(request.page_size)?;
        let filter = Filter {
            sandbox: field::name("sandbox_id", &request.sandbox_id)?.to_owned(),
            agent: field::name("agent", &request.agent)?.to_owned(),
            correlation_id: field::name("correlation_id", &request.correlation_id)?.to_owned(),
            message_type: message_type("type", request.r#type)?,
            start_ms: time::unix_ms("start_time", request.start_time)?,
            end_ms: time::unix_ms("end_time", request.end_time)?,
        };
        let to = if request.to_sequence == 0 { u64::MAX } else { request.to_sequence };
        let mut span = Span { from: request.from_sequence, to, descending: request.descending };
        if !request.page_token.is_empty() {
            let next = page_token(&request.page_token)?;
            if span.descending { span.to = span.to.min(next) } else { span.from = span.from.max(next) }
        }
        let shard = self.shards.of(name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(name)?;
        let encode = |message: &MessageRef| Ok(encode_message(shard.delivery.sealer(), message, name)?);
        let page = shard.reader.history(&workspace, span, &filter, limit, &encode)?;
        Ok(Response::new(ListMessagesResponse {
            messages: page.messages,
            next_page_token: page.next.map(|sequence| format!("m{sequence}")).unwrap_or_default(),
        }))
    }

    type StreamMessagesStream = BoxStream<'static, Result<StreamMessagesResponse, Status>>;

    async fn stream_messages(
        &self,
        request: Request<StreamMessagesRequest>,
    ) -> Result<Response<Self::StreamMessagesStream>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = caller.workspace(&request.workspace_id)?.to_owned();
        if request.follow && request.to_sequence > 0 {
            let text = "follow and to_sequence are both set; a stream that follows has no end";
            return Err(Rejection::field("follow", text).into());
        }
        let filter = filter(request.filter.unwrap_or_default())?;
        let shard = self.shards.of(&name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        shard.reader.workspace(&name)?;
        let to = if request.to_sequence == 0 { u64::MAX } else { request.to_sequence };
        let reading = Reading {
            edge: self.clone(),
            place: self.take_stream_place_of(&name)?,
            appended: shard.delivery.signals.appended(),
            name,
            filter,
            span: Span { from: request.from_sequence, to, descending: false },
            follow: request.follow,
        };
        let pages = stream::try_unfold(Some(reading), |reading| async move {
            let Some(mut reading) = reading else { return Ok(None) };
            let page = reading.next().await?;
            Ok::<_, Status>(page.map(|(page, more)| (page, more.then_some(reading))))
        });
        Ok(Response::new(pages.boxed()))
    }

    async fn replay_messages(
        &self,
        request: Request<ReplayMessagesRequest>,
    ) -> Result<Response<ReplayMessagesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = caller.workspace(&request.workspace_id)?;
        let sandbox = field::id("sandbox_id", &request.sandbox_id)?;
        caller.acts_as("sandbox_id", sandbox)?;
        if request.from_sequence == 0 || request.to_sequence < request.from_sequence {
            let text = format!(
                "the range {} to {} is empty; from_sequence begins with 1, to_sequence is included",
                request.from_sequence, request.to_sequence
            );
            return Err(Rejection::field("to_sequence", text).into());
        }
        let filter = filter(request.filter.unwrap_or_default())?;
        let shard = self.shards.of(name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(name)?;
        let span = Span { from: request.from_sequence, to: request.to_sequence, descending: false };
        let page = replayable(shard, &workspace, sandbox, span, &filter)?;
        let messages: Vec<(u64, Bytes)> = page
            .messages
            .into_iter()
            .filter_map(|mut message| {
                let sequence = message.try_get_u64().ok()?;
                Some((sequence, message))
            })
            .collect();
        let bytes = messages.iter().map(|(_, message)| message.len()).sum();
        let verb = Verb::Replay(Replay { workspace: name.to_owned(), sandbox: sandbox.to_owned(), messages });
        let replayed = match shard.batcher.call(caller.asks(verb), bytes).await? {
            Outcome::Replay(result) => result?.replayed,
            other => return Err(RequestError::internal(format!("a replay came to {other:?}")).into()),
        };
        Ok(Response::new(ReplayMessagesResponse { replayed, next_sequence: page.next.unwrap_or(0) }))
    }
}

/// Messages of the history, each behind its sequence, as batches of one; those that wait in a lane of the sandbox already are
/// empty.
fn replayable(
    shard: &Shard,
    workspace: &Workspace,
    sandbox: &str,
    span: Span,
    filter: &Filter,
) -> Result<Page, QueryError> {
    let lanes = shard.reader.lanes(workspace, sandbox)?;
    let alone = |message: &MessageRef| {
        if lanes.hold(message)? {
            return Ok(Bytes::new());
        }
        let alone = message.batch.alone(usize::from(message.index));
        Ok([message.sequence().to_be_bytes().as_slice(), &alone].concat().into())
    };
    shard.reader.history(workspace, span, filter, MAX_REPLAYED, &alone)
}

/// A stream of the history under way.
struct Reading {
    edge: Edge,
    place: StreamPlace,
    appended: watch::Receiver<u64>,
    name: String,
    filter: Filter,
    span: Span,
    follow: bool,
}

impl Reading {
    /// The next page, and whether more may follow. The client's own pace holds it back: the next page is read when this one
    /// was taken.
    async fn next(&mut self) -> Result<Option<(StreamMessagesResponse, bool)>, Status> {
        let _held = &self.place;
        loop {
            self.appended.mark_unchanged();
            let shard = self.edge.shards.of(&self.name);
            let workspace = shard.reader.workspace(&self.name)?;
            if self.span.from == 0 {
                self.span.from = workspace.first_sequence;
            }
            let last = workspace.last_sequence.min(self.span.to);
            if self.span.from <= last {
                let encode = |message: &MessageRef| Ok(encode_message(shard.delivery.sealer(), message, &self.name)?);
                let page = shard.reader.history(&workspace, self.span, &self.filter, MAX_STREAMED, &encode)?;
                let next_sequence = page.next.unwrap_or(last + 1);
                self.span.from = next_sequence;
                let more = self.follow || page.next.is_some();
                return Ok(Some((StreamMessagesResponse { messages: page.messages, next_sequence }, more)));
            }
            if !self.follow {
                return Ok(None);
            }
            tokio::select! {
                changed = self.appended.changed() => changed.map_err(|_| super::status::shutting_down())?,
                () = self.edge.stopped() => return Err(super::status::shutting_down()),
            }
        }
    }
}

fn filter(filter: MessageFilter) -> Result<Filter, Rejection> {
    Ok(Filter {
        sandbox: field::name("filter.sandbox_id", &filter.sandbox_id)?.to_owned(),
        agent: field::name("filter.agent", &filter.agent)?.to_owned(),
        correlation_id: field::name("filter.correlation_id", &filter.correlation_id)?.to_owned(),
        message_type: message_type("filter.type", filter.r#type)?,
        start_ms: time::unix_ms("filter.start_time", filter.start_time)?,
        end_ms: time::unix_ms("filter.end_time", filter.end_time)?,
    })
}

fn message_type(field: &'static str, value: i32) -> Result<u64, Rejection> {
    match value {
        0..=4 => Ok(value as u64),
        _ => Err(Rejection::field(field, format!("{field} {value} does not exist; it must be 0 to 4"))),
    }
}

fn page_token(token: &str) -> Result<u64, Rejection> {
    token.strip_prefix('m').and_then(|number| number.parse().ok()).ok_or_else(|| {
        let text = format!("page_token {:?} is not from a listing of messages", field::shown(token));
        Rejection { reason: Reason::InvalidPageToken, text, field: "page_token".into(), retry_ms: 0 }
    })
}
