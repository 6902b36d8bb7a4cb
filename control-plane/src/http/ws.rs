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
    extract::ws::{
        CloseFrame, Message as Frame, WebSocket, WebSocketUpgrade, close_code, rejection::WebSocketUpgradeRejection,
    },
    http::HeaderMap,
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tandem_client::Token;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Interval, MissedTickBehavior},
};

use super::{Edge, REQUEST_ID, door, problem::Problem};
use crate::{
    clock,
    error::{Failure, Reason},
    hex,
};

/// How long a client may take for its first frame, and for the answer to a ping.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may take nothing of what is sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long is listened behind the last frame.
const LINGER: Duration = Duration::from_secs(1);
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
                // What has come counts before what is missing.
                biased;
                frame = self.socket.recv() => match frame.inspect(|_| self.unanswered = None) {
                    Some(Ok(Frame::Text(text))) => return Ok(text.to_string()),
                    Some(Ok(Frame::Binary(_))) => {
                        return Err(Failure::new(Reason::MalformedRequest, "a frame is binary; send text").into());
                    }
                    // Pings are answered by the library.
                    Some(Ok(Frame::Ping(_) | Frame::Pong(_))) => {}
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

/// Opens something at the broker, which has to answer in time.
async fn opened<T>(opening: impl Future<Output = Result<T, tandem_client::Error>>) -> Result<T, End> {
    match tokio::time::timeout(PATIENCE, opening).await {
        Ok(opened) => Ok(opened?),
        Err(_) => {
            let text = format!("the broker did not answer within {} s; try again", PATIENCE.as_secs());
            Err(Failure::new(Reason::BrokerUnavailable, text).after(Duration::from_secs(1)).into())
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

/// A request for a WebSocket, or one that is none.
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Takes a client, hears what it wants, and serves it until one of both has enough.
fn accept(edge: Edge, upgrade: Upgrade, headers: &HeaderMap, purpose: Purpose) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(error) => {
            let text = format!("this is a WebSocket, and the request asks for none: {}", error.body_text());
            return Problem::from(Failure::new(Reason::MalformedRequest, text)).into_response();
        }
    };
    let given = match door::token(headers) {
        Ok(token) => token.map(str::to_owned),
        Err(why) => return Problem::from(why).into_response(),
    };
    let place = match edge.place() {
        Ok(place) => place,
        Err(why) => return Problem::from(why).into_response(),
    };
    let request_id = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let tracker = edge.tasks.clone();
    let serving = move |socket| async move {
        let mut next_ping = tokio::time::interval(PING_INTERVAL);
        next_ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
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
                Purpose::Inbox(id) => {
                    // Who sends on several sockets with one token is one.
                    let caller = hello.token.as_deref().or(given.as_deref()).unwrap_or_default();
                    let caller = hex::of(&Sha256::digest(caller));
                    let pace = || edge.rates.check(&caller, &id).map(drop);
                    inbox::serve(&mut socket, &broker, (&id, &hello), pace).await
                }
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
    };
    let upgrade = upgrade.max_message_size(MAX_FRAME_BYTES).max_frame_size(MAX_FRAME_BYTES);
    upgrade.on_upgrade(move |socket| tracker.track_future(serving(socket)))
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
            // Who closes while something lies unread takes back what he has said last.
            let heard = async { while self.socket.recv().await.is_some_and(|frame| frame.is_ok()) {} };
            tokio::time::timeout(LINGER, heard).await.ok();
        }
    }
}
