//! `/messages` and `/broadcast`: what the broker does, as the caller.

use axum::{
    Extension, Json as JsonAnswer,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tandem_client::{HistoryQuery, Message};
use utoipa::{IntoParams, ToSchema};

use super::{
    body::{Json, Path, Query},
    message::{Kind, NewMessage, ShownMessage, To},
    problem::{Problem, ProblemDocument},
    some, time,
};
use crate::{
    clock,
    error::{Failure, Reason},
    service::caller::Caller,
};

const DEFAULT_PAGE: usize = 50;
const MAX_PAGE: usize = 500;

/// A message that is accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    message_id: String,
    /// Its position in the log of the workspace. 0: it is not in the log yet.
    sequence: u64,
    /// RFC 3339.
    #[schema(format = DateTime)]
    server_time: String,
    /// It had been sent before; nothing was done.
    duplicate: bool,
    /// It waits for a human, under this number, and is not delivered before.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_id: Option<u64>,
}

/// Some messages.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageList {
    messages: Vec<ShownMessage>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// Which messages are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The workspace.
    #[param(max_length = 128)]
    workspace_id: String,
    /// How many at most: 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u16>,
    /// `next_cursor` of the page before, whose other parameters must be the same.
    #[param(max_length = 20, pattern = "^[0-9]*$")]
    cursor: Option<String>,
    /// Newest first.
    #[serde(default)]
    descending: bool,
    /// Sent by, or to, this sandbox.
    sandbox_id: Option<String>,
    /// Sent by, or meant for, this agent.
    agent: Option<String>,
    /// Of this conversation.
    correlation_id: Option<String>,
    /// Of this type.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    /// From then on. RFC 3339.
    #[param(format = DateTime)]
    start_time: Option<String>,
    /// Before then. RFC 3339.
    #[param(format = DateTime)]
    end_time: Option<String>,
}

/// In which workspace something is.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct InWorkspace {
    /// The workspace.
    #[param(max_length = 128)]
    pub(crate) workspace_id: String,
}

async fn sent(caller: &Caller, new: NewMessage, to: To, headers: &HeaderMap) -> Result<Response, Problem> {
    let trace = headers.get("traceparent").and_then(|trace| trace.to_str().ok());
    let workspace = new.workspace_id.clone();
    // A key makes of tries one message also where the broker did not say what became of the first.
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let new = match key {
        Some(key) => new.named(|| format!("idem-{}", caller.digest(key))),
        None => new,
    };
    let message = new.wire(to, trace, clock::system())?;
    let receipt = caller.broker.publisher(workspace).publish(message).await.map_err(Failure::from)?;
    let held = receipt.approval_id.is_some();
    let accepted = Accepted {
        message_id: receipt.message_id,
        sequence: receipt.sequence,
        server_time: time::of_system(receipt.server_time),
        duplicate: receipt.duplicate,
        approval_id: receipt.approval_id,
    };
    let status = if held { StatusCode::ACCEPTED } else { StatusCode::CREATED };
    Ok((status, JsonAnswer(accepted)).into_response())
}

/// Sends a message to a sandbox, a topic, whoever has a capability, or everybody.
#[utoipa::path(post, path = "/messages", operation_id = "publish_message", tag = "messages",
    params(("Idempotency-Key" = Option<String>, Header, description = "As with every POST; a `message_id` does the same for as long as the broker remembers it")),
    request_body = NewMessage, responses(
    (status = 201, description = "It is in the log, on disk, at a majority of the nodes", body = Accepted),
    (status = 202, description = "It waits for a human", body = Accepted),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn publish(
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Json(mut new): Json<NewMessage>,
) -> Result<Response, Problem> {
    let to = new.destination()?;
    sent(&caller, new, to, &headers).await
}

/// Sends a message to everybody in a workspace.
#[utoipa::path(post, path = "/broadcast", operation_id = "broadcast_message", tag = "messages",
    params(("Idempotency-Key" = Option<String>, Header, description = "As with every POST; a `message_id` does the same for as long as the broker remembers it")),
    request_body = NewMessage, responses(
    (status = 201, description = "It is in the log, on disk, at a majority of the nodes", body = Accepted),
    (status = 202, description = "It waits for a human", body = Accepted),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn broadcast(
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Json(new): Json<NewMessage>,
) -> Result<Response, Problem> {
    match &new.to {
        None | Some(To::Broadcast(true)) => sent(&caller, new, To::Broadcast(true), &headers).await,
        Some(_) => Err(Failure::field("to", "a broadcast goes to everybody; leave it out").into()),
    }
}

/// Lists messages in the order of the log.
#[utoipa::path(get, path = "/messages", operation_id = "list_messages", tag = "messages", params(Wanted), responses(
    (status = 200, description = "A page of them", body = MessageList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<JsonAnswer<MessageList>, Problem> {
    let most = some::most(wanted.limit.map(usize::from), DEFAULT_PAGE, MAX_PAGE)?;
    let begin = wanted.cursor.as_deref().map(str::parse::<u64>).transpose().map_err(|_| {
        Failure::new(Reason::InvalidCursor, "this cursor was not given out for this listing; begin without one")
    })?;
    let descending = wanted.descending;
    let query = HistoryQuery {
        from_sequence: begin.filter(|_| !descending).unwrap_or(0),
        to_sequence: begin.filter(|_| descending).unwrap_or(0),
        start_time: time::read("start_time", wanted.start_time.as_deref())?,
        end_time: time::read("end_time", wanted.end_time.as_deref())?,
        sandbox_id: wanted.sandbox_id,
        agent: wanted.agent,
        correlation_id: wanted.correlation_id,
        message_type: wanted.kind.map(Kind::wire),
        descending,
        // One more tells whether there are any behind.
        page_size: most as u16 + 1,
    };
    let (messages, next) = some::first(most, caller.broker.history(wanted.workspace_id).list(query)).await?;
    let next_cursor = next.map(|message: Message| message.sequence.to_string());
    Ok(JsonAnswer(MessageList { messages, next_cursor }))
}

/// Returns a message by its id.
#[utoipa::path(get, path = "/messages/{id}", operation_id = "get_message", tag = "messages",
    params(("id" = String, Path, description = "Its id"), InWorkspace), responses(
    (status = 200, description = "It", body = ShownMessage),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(place): Query<InWorkspace>,
) -> Result<JsonAnswer<ShownMessage>, Problem> {
    let message = caller.broker.history(place.workspace_id).get(id).await.map_err(Failure::of_question)?;
    Ok(JsonAnswer(message.into()))
}
