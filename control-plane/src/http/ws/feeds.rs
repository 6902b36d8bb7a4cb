//! `/ws/events` and `/ws/broadcast`: what happens in a workspace, and what is said to all of it.
//!
//! ```text
//! client: {"workspace_id": "default", "from": 17, "token": "…"}
//! server: {"op": "event", "cursor": 18, "event": {…}}
//! server: {"op": "message", "cursor": 42, "message": {…}}
//! ```
//!
//! A cursor goes on behind what was said with it, on a later socket: `from`.

use axum::{extract::State, http::HeaderMap, response::Response};
use serde_json::json;
use tandem_client::{Client, EventQuery, StreamQuery, destination};

use super::{End, Hello, Purpose, Socket, Upgrade, accept, opened, wrong_frame};
use crate::http::{Edge, events::ShownEvent, message::ShownMessage};

pub(super) async fn events(State(edge): State<Edge>, headers: HeaderMap, upgrade: Upgrade) -> Response {
    accept(edge, upgrade, &headers, Purpose::Events)
}

pub(super) async fn broadcasts(State(edge): State<Edge>, headers: HeaderMap, upgrade: Upgrade) -> Response {
    accept(edge, upgrade, &headers, Purpose::Broadcasts)
}

pub(super) async fn serve_events(socket: &mut Socket, broker: &Client, hello: &Hello) -> Result<(), End> {
    let (from_event, sandbox_id) = (hello.from.unwrap_or(0), hello.sandbox_id.clone());
    let query = EventQuery { from_event, sandbox_id, ..EventQuery::default() };
    let mut events = opened(broker.events(hello.workspace_id.as_str(), query)).await?;
    socket.say(&json!({ "op": "opened", "cursor": events.cursor() })).await?;
    loop {
        tokio::select! {
            // Nothing is expected; pings and the end are seen there.
            said = socket.hear() => drop(said?),
            event = events.next() => {
                let Some(event) = event? else { return Ok(()) };
                let shown = serde_json::to_value(ShownEvent::from(event)).map_err(|error| wrong_frame(&error))?;
                socket.say(&json!({ "op": "event", "cursor": events.cursor(), "event": shown })).await?;
            }
        }
    }
}

pub(super) async fn serve_broadcasts(socket: &mut Socket, broker: &Client, hello: &Hello) -> Result<(), End> {
    let history = broker.history(hello.workspace_id.as_str());
    // From now on: behind the newest message that there is.
    let from_sequence = match hello.from {
        Some(from) => from,
        None => broker.workspaces().get(hello.workspace_id.as_str()).await?.last_sequence + 1,
    };
    let mut messages = history.stream_messages(StreamQuery { from_sequence, follow: true, ..StreamQuery::default() });
    socket.say(&json!({ "op": "opened", "cursor": from_sequence })).await?;
    loop {
        tokio::select! {
            said = socket.hear() => drop(said?),
            message = messages.next() => {
                let Some(message) = message? else { return Ok(()) };
                let kind = message.destination.as_ref().and_then(|destination| destination.kind.as_ref());
                if !matches!(kind, Some(destination::Kind::Broadcast(_))) {
                    continue;
                }
                let shown = serde_json::to_value(ShownMessage::from(message)).map_err(|error| wrong_frame(&error))?;
                socket.say(&json!({ "op": "message", "cursor": messages.cursor(), "message": shown })).await?;
            }
        }
    }
}
