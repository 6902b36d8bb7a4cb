//! WebSockets: an inbox, the broadcasts of a workspace, and its events, for who speaks no gRPC.
//!
//! The first frame of a client says what it wants, and who it is unless the head of its request has said so: browsers cannot set
//! that. What is sent waits until the client takes it, so who is slow gets no more than there is room for. Whether somebody may
//! is what the broker says: it is asked in his name.

mod feeds;
mod inbox;

use std::time::{Duration, Instant};

use axum::{
    Router,
    extract::ws::{CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code},
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tandem_client::Token;
use tokio::{sync::OwnedSemaphorePermit, time::Interval};

use super::{Edge, REQUEST_ID, door, problem::Problem};
use crate::{
    clock,
    error::{Failure, Reason},
};

/// How long a client may take for its first frame, and for the answer to a ping.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may take nothing of what is sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of a frame: a message, and what is around it.
const MAX_FRAME_BYTES: usize = 12 << 20;

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/ws/sandboxes/{id}", get(inbox::open))
        .route("/ws/events", get(feeds::events))
        .route("/ws/broadcast", get(feeds::broadcasts))
}

/// The first frame of a client.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    /// Unset: the head of the request has it, or none is needed.
    token: Option<String>,
    workspace_id: String,
    /// Of an inbox: how many messages may be out without an ack. Unset: 64.
    window: Option<usize>,
    /// Of the others: from where. Unset: what happens from now on.
    from: Option<u64>,
    /// Of events: about this sandbox alone.
    sandbox_id: Option<String>,
}

/// Why a socket ends.
enum End {
    /// The client has gone, or says nothing any more.
    Gone,
    /// The client is told.
    Because(Failure),
}

impl From<Failure> for End {
    fn from(why: Failure) -> Self {
        Self::Because(why)
    }
}

impl From<tandem_client::Error> for End {
    fn from(error: tandem_client::Error) -> Self {
        Self::Because(error.into())
    }
}

/// A client that is connected.
struct Socket {
    socket: WebSocket,
    next_ping: Interval,
    /// Since when the answer to a ping is missing.
    unanswered: Option<Instant>,
    /// None: it is given back.
    place: Option<OwnedSemaphorePermit>,
}

impl Socket {
    /// The next frame of text. Safe to cancel.
    async fn hear(&mut self) -> Result<String, End> {
        loop {
            tokio::select! {
                frame = self.socket.recv() => match frame {
                    Some(Ok(Frame::Text(text))) => return Ok(text.to_string()),
                    Some(Ok(Frame::Binary(_))) => {
                        return Err(Failure::new(Reason::MalformedRequest, "a frame is binary; send text").into());
                    }
                    Some(Ok(Frame::Pong(_))) => self.unanswered = None,
                    // Pings are answered by the library.
                    Some(Ok(Frame::Ping(_))) => {}
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return Err(End::Gone),
                },
                _ = self.next_ping.tick() => {
                    if self.unanswered.is_some_and(|since| since.elapsed() > PATIENCE) {
                        return Err(End::Gone);
                    }
                    self.unanswered.get_or_insert_with(clock::now);
                    self.send(Frame::Ping(Vec::new().into())).await?;
                }
            }
        }
    }

    /// What the next frame says.
    async fn hear_json<T: DeserializeOwned>(&mut self) -> Result<T, End> {
        let text = self.hear().await?;
        serde_json::from_str(&text).map_err(|error| wrong_frame(&error).into())
    }

    /// Says something, and waits until the client has room for it.
    async fn say(&mut self, what: &Value) -> Result<(), End> {
        self.send(Frame::Text(what.to_string().into())).await
    }

    async fn send(&mut self, frame: Frame) -> Result<(), End> {
        match tokio::time::timeout(SEND_TIMEOUT, self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Gone),
        }
    }
}

/// What is no frame that is understood here.
fn wrong_frame(error: &serde_json::Error) -> Failure {
    Failure::new(Reason::MalformedRequest, format!("a frame is not what is expected: {error}"))
}

/// A failure as a frame; `about` names what it answers.
fn problem(why: &Failure, about: Option<&Value>) -> Value {
    let mut said = json!({ "op": "problem", "code": why.code(), "detail": why.to_string() });
    if let Some(delay) = why.retry() {
        said["retry_after_ms"] = json!(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
    }
    if let Some(about) = about {
        said["ref"] = about.clone();
    }
    said
}

/// What a client connects for.
enum Purpose {
    /// The inbox of this sandbox.
    Inbox(String),
    Events,
    Broadcasts,
}

/// Takes a client, hears what it wants, and serves it until one of both has enough.
fn accept(edge: Edge, upgrade: WebSocketUpgrade, headers: &HeaderMap, purpose: Purpose) -> Response {
    let given = match door::token(headers) {
        Ok(token) => token.map(str::to_owned),
        Err(why) => return Problem::from(why).into_response(),
    };
    let Ok(place) = std::sync::Arc::clone(&edge.sockets).try_acquire_owned() else {
        let text = "as many WebSockets are open as there may be (limits.max_websockets); close one";
        let failure = Failure::new(Reason::TooManySockets, text).after(Duration::from_secs(1));
        return Problem::from(failure).into_response();
    };
    let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    upgrade.max_message_size(MAX_FRAME_BYTES).max_frame_size(MAX_FRAME_BYTES).on_upgrade(move |socket| async move {
        let next_ping = tokio::time::interval(PING_INTERVAL);
        let mut socket = Socket { socket, next_ping, unanswered: None, place: Some(place) };
        let mut stopping = edge.stopping.clone();
        let served = async {
            let late = |_| {
                let text = format!("there was no first frame within {} s", PATIENCE.as_secs());
                End::Because(Failure::new(Reason::RequestTooSlow, text))
            };
            let hello: Hello = tokio::time::timeout(PATIENCE, socket.hear_json()).await.map_err(late)??;
            let token = hello.token.as_deref().or(given.as_deref()).map(Token::from_text);
            let broker = edge.broker.acting_as(token).with_request_id(&request_id);
            match purpose {
                Purpose::Inbox(id) => inbox::serve(&mut socket, &broker, &id, &hello).await,
                Purpose::Events => feeds::serve_events(&mut socket, &broker, &hello).await,
                Purpose::Broadcasts => feeds::serve_broadcasts(&mut socket, &broker, &hello).await,
            }
        };
        let end = tokio::select! {
            end = served => end,
            _ = stopping.wait_for(|stopping| *stopping) => {
                Err(Failure::new(Reason::ShuttingDown, "the control plane stops; connect again").into())
            }
        };
        socket.close(end).await;
    })
}

impl Socket {
    /// Says why it ends, as far as anybody hears it.
    async fn close(mut self, end: Result<(), End>) {
        let (code, reason) = match &end {
            Ok(()) => (close_code::NORMAL, String::new()),
            Err(End::Gone) => return,
            Err(End::Because(why)) => (close_code::POLICY, why.code().to_owned()),
        };
        let told = match &end {
            Err(End::Because(why)) => self.say(&problem(why, None)).await,
            _ => Ok(()),
        };
        // Whoever hears the end may come again.
        self.place = None;
        if told.is_ok() {
            self.send(Frame::Close(Some(CloseFrame { code, reason: reason.into() }))).await.ok();
        }
    }
}
