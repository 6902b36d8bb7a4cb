//! `/ws/sandboxes/{id}`: an inbox. What is not acknowledged comes again, to this client or to another one.
//!
//! ```text
//! client: {"workspace_id": "default", "window": 16, "token": "…"}
//! server: {"op": "opened", "ack_deadline_ms": 30000}
//! server: {"op": "message", "delivery_id": 1, "attempt": 1, "message": {…}}
//! client: {"op": "ack", "delivery_id": 1}
//! client: {"op": "nack", "delivery_id": 2, "reason": "…", "delay_ms": 5000, "dead_letter": false}
//! client: {"op": "extend", "delivery_id": 3, "deadline_ms": 60000}
//! client: {"op": "send", "ref": "a", "message": {"to": {"sandbox_id": "b"}, "type": "request", "content": {…}}}
//! server: {"op": "sent", "ref": "a", "message_id": "…", "sequence": 7}
//! server: {"op": "lost", "first": 3, "last": 3, "detail": "…"}
//! server: {"op": "problem", "ref": "a", "code": "…", "detail": "…"}
//! ```

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::{extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tandem_client::{Client, Incoming, Nack, SubscribeOptions, Subscription};

use super::{End, Hello, Purpose, Socket, Upgrade, accept, opened, problem, wrong_frame};
use crate::{
    clock,
    error::{Failure, Reason},
    http::{
        Edge,
        body::Path,
        message::{NewMessage, ShownMessage},
    },
};

const DEFAULT_WINDOW: usize = 64;
const MAX_WINDOW: usize = 4_096;
/// How often is looked whose lease has ended.
const LOOK: Duration = Duration::from_secs(1);
/// What the broker takes of a verdict: how long a delay and a deadline may be, and bytes of a reason.
const MAX_DELAY: Duration = Duration::from_secs(86_400);
const MIN_DEADLINE: Duration = Duration::from_secs(1);
const MAX_REASON_BYTES: usize = 1_024;
/// Bytes that the broker may send ahead of what the client takes.
const AHEAD_BYTES: u64 = 4 << 20;

/// What a client says.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase", deny_unknown_fields)]
enum Said {
    Ack {
        delivery_id: u64,
    },
    Nack {
        delivery_id: u64,
        #[serde(default)]
        reason: String,
        delay_ms: Option<u64>,
        #[serde(default)]
        dead_letter: bool,
    },
    Extend {
        delivery_id: u64,
        deadline_ms: Option<u64>,
    },
    Send {
        #[serde(rename = "ref")]
        about: Option<Value>,
        message: Map<String, Value>,
    },
}

pub(super) async fn open(
    State(edge): State<Edge>,
    Path(id): Path<String>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    accept(edge, upgrade, &headers, Purpose::Inbox(id))
}

/// `pace`: whether one more may be sent now.
pub(super) async fn serve(
    socket: &mut Socket,
    broker: &Client,
    (id, hello): (&str, &Hello),
    pace: impl Fn() -> Result<(), Failure>,
) -> Result<(), End> {
    let window = hello.window.unwrap_or(DEFAULT_WINDOW);
    if !(1..=MAX_WINDOW).contains(&window) {
        return Err(Failure::field("window", format!("{window} is not 1 to {MAX_WINDOW}")).into());
    }
    let options = SubscribeOptions::default().credit(window as u32, AHEAD_BYTES);
    let mut inbox = opened(broker.subscribe(hello.workspace_id.as_str(), id, options)).await?;
    let deadline = inbox.ack_deadline();
    let deadline_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    socket.say(&json!({ "op": "opened", "ack_deadline_ms": deadline_ms })).await?;
    // Deliveries that are out, and when their leases end: a full window is not asked for more, and would not hear of that.
    let mut out = HashMap::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = look.tick() => tell_late(socket, &mut out).await?,
            said = socket.hear() => {
                let said: Result<Said, _> = serde_json::from_str(&said?);
                match said {
                    Ok(Said::Send { about, message }) => {
                        let answer = match pace() {
                            Ok(()) => send(broker, (&hello.workspace_id, id), message).await,
                            Err(why) => Err(why),
                        };
                        socket.say(&answered(answer, about.as_ref())).await?;
                    }
                    Ok(verdict) => {
                        if let Err(why) = judge(&inbox, &mut out, verdict) {
                            socket.say(&problem(&why, None)).await?;
                        }
                    }
                    Err(error) => socket.say(&problem(&wrong_frame(&error), None)).await?,
                }
            }
            next = inbox.next_incoming(), if out.len() < window => match next? {
                Some(incoming) => tell(socket, &mut out, incoming, deadline).await?,
                None => return Ok(()),
            }
        }
    }
}

/// Tells of a delivery, or of leases that were lost.
async fn tell(
    socket: &mut Socket,
    out: &mut HashMap<u64, Instant>,
    incoming: Incoming,
    deadline: Duration,
) -> Result<(), End> {
    match incoming {
        Incoming::Delivery(delivery) => {
            out.insert(delivery.delivery_id, clock::now() + deadline);
            let (delivery_id, attempt) = (delivery.delivery_id, delivery.attempt);
            let message =
                serde_json::to_value(ShownMessage::from(delivery.message)).map_err(|error| wrong_frame(&error))?;
            let said = json!({ "op": "message", "delivery_id": delivery_id, "attempt": attempt, "message": message });
            socket.say(&said).await
        }
        Incoming::LeasesLost(lost) => {
            for range in &lost.ranges {
                let before = out.len();
                out.retain(|delivery, _| !range.contains(delivery));
                if out.len() < before {
                    let (first, last) = (range.start(), range.end());
                    let said = json!({ "op": "lost", "first": first, "last": last, "detail": lost.refusal.text });
                    socket.say(&said).await?;
                }
            }
            Ok(())
        }
    }
}

/// Tells of deliveries whose leases have ended by the clock.
async fn tell_late(socket: &mut Socket, out: &mut HashMap<u64, Instant>) -> Result<(), End> {
    let now = clock::now();
    let late: Vec<u64> = out.iter().filter(|(_, until)| **until < now).map(|(delivery, _)| *delivery).collect();
    for delivery in late {
        out.remove(&delivery);
        let text = "it was not acknowledged in time, and comes again";
        socket.say(&json!({ "op": "lost", "first": delivery, "last": delivery, "detail": text })).await?;
    }
    Ok(())
}

/// What the client says of a delivery that it has.
fn judge(inbox: &Subscription, out: &mut HashMap<u64, Instant>, said: Said) -> Result<(), Failure> {
    let acker = inbox.acker();
    let known = |out: &HashMap<u64, Instant>, delivery: u64| {
        let text = || format!("delivery {delivery} is none that is out on this socket; it is acknowledged, or lost");
        if out.contains_key(&delivery) { Ok(()) } else { Err(Failure::new(Reason::UnknownDelivery, text())) }
    };
    match said {
        Said::Ack { delivery_id } => {
            known(out, delivery_id)?;
            acker.ack(delivery_id);
            out.remove(&delivery_id);
        }
        Said::Nack { delivery_id, reason, delay_ms, dead_letter } => {
            known(out, delivery_id)?;
            let delay = delay_ms.map(Duration::from_millis);
            if delay.is_some_and(|delay| delay > MAX_DELAY) {
                return Err(Failure::field("delay_ms", format!("at most {} are allowed", MAX_DELAY.as_millis())));
            }
            if reason.len() > MAX_REASON_BYTES {
                let text = format!("it has {} bytes; at most {MAX_REASON_BYTES} are allowed", reason.len());
                return Err(Failure::field("reason", text));
            }
            acker.nack(delivery_id, Nack { delay, reason, dead_letter });
            out.remove(&delivery_id);
        }
        Said::Extend { delivery_id, deadline_ms } => {
            known(out, delivery_id)?;
            let deadline = deadline_ms.map(Duration::from_millis);
            if deadline.is_some_and(|deadline| !(MIN_DEADLINE..=MAX_DELAY).contains(&deadline)) {
                let text = format!("{} to {} are allowed", MIN_DEADLINE.as_millis(), MAX_DELAY.as_millis());
                return Err(Failure::field("deadline_ms", text));
            }
            acker.extend(delivery_id, deadline);
            out.insert(delivery_id, clock::now() + deadline.unwrap_or(inbox.ack_deadline()));
        }
        // Its answer takes time, and is given elsewhere.
        Said::Send { .. } => {}
    }
    Ok(())
}

/// Sends a message as the sandbox whose inbox this is.
async fn send(
    broker: &Client,
    (workspace, id): (&str, &str),
    mut message: Map<String, Value>,
) -> Result<Value, Failure> {
    message.insert("workspace_id".to_owned(), json!(workspace));
    message.entry("from_sandbox_id").or_insert_with(|| json!(id));
    let mut new: NewMessage = serde_path_to_error::deserialize(Value::Object(message)).map_err(|error| {
        let place = error.path().to_string();
        Failure::field(&place, error.into_inner().to_string())
    })?;
    let to = new.destination()?;
    let receipt = broker.publisher(workspace).publish(new.wire(to, None, clock::system())?).await?;
    let mut sent = json!({ "op": "sent", "message_id": receipt.message_id, "sequence": receipt.sequence });
    if let Some(approval) = receipt.approval_id {
        sent["approval_id"] = json!(approval);
    }
    Ok(sent)
}

fn answered(answer: Result<Value, Failure>, about: Option<&Value>) -> Value {
    match (answer, about) {
        (Ok(mut sent), Some(about)) => {
            sent["ref"] = about.clone();
            sent
        }
        (Ok(sent), None) => sent,
        (Err(why), about) => problem(&why, about),
    }
}
