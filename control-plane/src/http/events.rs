//! `/events`: what happens in a workspace, as a page or as it happens.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension, Json as JsonAnswer,
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tandem_client::{Event, EventQuery, EventStream};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::{IntoParams, ToSchema};

use super::{
    Edge,
    body::Query,
    problem::{Problem, ProblemDocument},
    time,
};
use crate::{error::Failure, service::caller::Caller};

const DEFAULT_MOST: usize = 100;
const MAX_MOST: usize = 1_000;
/// So that nobody in between takes a silent stream for a dead one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownEvent {
    /// Counts the events of the workspace, from 1.
    id: u64,
    /// Such as `sandbox_offline`, as the contract of the broker calls it.
    #[serde(rename = "type")]
    kind: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    time: Option<String>,
    /// The sandbox that it is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    sandbox_id: String,
    /// Of the message that it is about, or the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    /// How many messages.
    count: u64,
    /// Why.
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
    /// The approval that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_id: Option<u64>,
}

impl From<Event> for ShownEvent {
    fn from(event: Event) -> Self {
        let kind = event.r#type().as_str_name().trim_start_matches("EVENT_TYPE_").to_lowercase();
        Self {
            id: event.event_id,
            kind,
            time: time::of(event.time.as_ref()),
            sandbox_id: event.sandbox_id,
            sequence: Some(event.sequence).filter(|sequence| *sequence > 0),
            count: event.count,
            text: event.text,
            approval_id: Some(event.approval_id).filter(|approval| *approval > 0),
        }
    }
}

/// Some events.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventList {
    events: Vec<ShownEvent>,
    /// `from_event` of the next page.
    next_event: u64,
}

/// Which events are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The workspace.
    #[param(max_length = 128)]
    workspace_id: String,
    /// The first one; `EVENT_GAP` when it is not kept any more, and its text says what is. Unset: 1, or with `follow` what happens
    /// from now on.
    from_event: Option<u64>,
    /// About this sandbox.
    sandbox_id: Option<String>,
    /// As it happens, as server-sent events: `id` is the event's number, and `Last-Event-ID` goes on behind it.
    #[serde(default)]
    follow: bool,
    /// How many at most, without `follow`: 1 to 1,000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// What happened in a workspace, or what happens.
#[utoipa::path(get, path = "/events", operation_id = "list_events", tag = "events",
    params(Wanted, ("Last-Event-ID" = Option<String>, Header, description = "With `follow`: the last one that was seen")), responses(
    (status = 200, description = "A page of them; with `follow` a stream", content((EventList = "application/json"), (String = "text/event-stream"))),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Result<Response, Problem> {
    let last = headers.get("last-event-id").map(|last| {
        let last = last.to_str().ok().and_then(|last| last.trim().parse::<u64>().ok());
        last.ok_or_else(|| Failure::field("Last-Event-ID", "it is no number of an event"))
    });
    let after_last = last.transpose()?.map(|last| last.saturating_add(1));
    let from_event = after_last.or(wanted.from_event).unwrap_or(if wanted.follow { 0 } else { 1 });
    let query =
        EventQuery { from_event, sandbox_id: wanted.sandbox_id, follow: wanted.follow, ..EventQuery::default() };
    let mut events = caller.broker.events(wanted.workspace_id, query).await.map_err(Failure::of_question)?;
    if wanted.follow {
        let place = edge.place()?;
        let mut stopping = edge.stopping.clone();
        let stopped = async move { drop(stopping.wait_for(|stopping| *stopping).await) };
        let events = as_it_happens(events, place).take_until(Box::pin(stopped));
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        return Ok(Sse::new(events).keep_alive(keep_alive).into_response());
    }
    let most = wanted.limit.unwrap_or(DEFAULT_MOST);
    if !(1..=MAX_MOST).contains(&most) {
        return Err(Failure::field("limit", format!("{most} is not 1 to {MAX_MOST}")).into());
    }
    let mut found = Vec::new();
    while found.len() < most
        && let Some(event) = events.next().await.map_err(Failure::of_question)?
    {
        found.push(ShownEvent::from(event));
    }
    Ok(JsonAnswer(EventList { next_event: events.cursor(), events: found }).into_response())
}

/// Ends with an event `problem`, which says why.
fn as_it_happens(events: EventStream, place: OwnedSemaphorePermit) -> impl Stream<Item = Result<SseEvent, Infallible>> {
    stream::unfold(Some((events, place)), |events| async move {
        let (mut events, place) = events?;
        let (said, left) = match events.next().await {
            Ok(Some(event)) => {
                let shown = ShownEvent::from(event);
                let said = SseEvent::default().id(shown.id.to_string()).event(shown.kind.clone()).json_data(&shown);
                (said, Some((events, place)))
            }
            Ok(None) => return None,
            Err(error) => {
                let failure = Failure::from(error);
                let why = serde_json::json!({ "code": failure.code(), "detail": failure.to_string() });
                (SseEvent::default().event("problem").json_data(why), None)
            }
        };
        // What is made of texts and numbers can be written.
        Some((Ok(said.unwrap_or_default()), left))
    })
}
