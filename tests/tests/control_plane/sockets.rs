//! WebSockets: an inbox, broadcasts and events.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tandem_client::Sandbox;
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{
    collaboration::client,
    stage::{Stage, refused},
};

struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    async fn open(stage: &Stage, path: &str, hello: &Value) -> Self {
        let address = stage.control_plane.address();
        let stream = TcpStream::connect(address).await.unwrap();
        let (socket, _) = tokio_tungstenite::client_async(format!("ws://{address}{path}"), stream).await.unwrap();
        let mut socket = Self(socket);
        socket.say(hello).await;
        socket
    }

    async fn say(&mut self, what: &Value) {
        self.0.send(Message::text(what.to_string())).await.unwrap();
    }

    /// The next frame of text; None: the socket has ended.
    async fn hear(&mut self) -> Option<Value> {
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(10), self.0.next()).await.expect("it says something");
            match frame {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }
}

async fn stage() -> Stage {
    let stage = Stage::with(|config| config.limits.max_websockets = 4).await;
    let registry = client(&stage, &stage.admin).registry("default");
    for id in ["a", "b"] {
        registry.register(Sandbox { sandbox_id: id.into(), ..Sandbox::default() }).await.unwrap();
    }
    stage
}

fn hello(token: &str) -> Value {
    json!({"workspace_id": "default", "token": token})
}

#[tokio::test]
async fn an_inbox_is_read_answered_and_goes_on() {
    let stage = stage().await;
    let own = async |id| stage.token(&["--role", "sandbox", "--bind-workspace", "default", "--bind-sandbox", id]).await;
    let (for_a, for_b) = (own("a").await, own("b").await);
    let mut a = Socket::open(&stage, "/ws/sandboxes/a", &hello(&for_a)).await;
    let mut wanted = hello(&for_b);
    wanted["window"] = json!(2);
    let mut b = Socket::open(&stage, "/ws/sandboxes/b", &wanted).await;
    for socket in [&mut a, &mut b] {
        assert_eq!(socket.hear().await.unwrap()["op"], "opened");
    }
    for number in 0..5 {
        let message = json!({"to": {"sandbox_id": "b"}, "type": "request", "content": {"n": number}});
        a.say(&json!({"op": "send", "ref": number, "message": message})).await;
        let sent = a.hear().await.unwrap();
        assert_eq!((&sent["op"], &sent["ref"]), (&json!("sent"), &json!(number)), "{sent}");
    }
    // No more are out than there is room for.
    let (first, second) = (b.hear().await.unwrap(), b.hear().await.unwrap());
    assert_eq!((&first["message"]["content"]["n"], &second["message"]["content"]["n"]), (&json!(0), &json!(1)));
    let silent = tokio::time::timeout(Duration::from_millis(300), b.0.next()).await;
    assert!(silent.is_err(), "{silent:?}");
    b.say(&json!({"op": "ack", "delivery_id": first["delivery_id"]})).await;
    let third = b.hear().await.unwrap();
    assert_eq!(third["message"]["content"]["n"], 2);
    b.say(&json!({"op": "extend", "delivery_id": third["delivery_id"], "deadline_ms": 60000})).await;
    b.say(&json!({"op": "nack", "delivery_id": second["delivery_id"], "reason": "no", "dead_letter": true})).await;
    assert_eq!(b.hear().await.unwrap()["message"]["content"]["n"], 3);
    b.say(&json!({"op": "ack", "delivery_id": 999})).await;
    assert_eq!(b.hear().await.unwrap()["code"], "UNKNOWN_DELIVERY");
    for wrong in [json!({"op": "shout"}), json!([]), json!({"op": "ack"})] {
        b.say(&wrong).await;
        assert_eq!(b.hear().await.unwrap()["code"], "MALFORMED_REQUEST", "{wrong}");
    }
    for (wrong, field) in [
        (json!({"op": "nack", "delivery_id": third["delivery_id"], "delay_ms": 999_999_999_999_u64}), "delay_ms"),
        (json!({"op": "nack", "delivery_id": third["delivery_id"], "reason": "x".repeat(2_000)}), "reason"),
        (json!({"op": "extend", "delivery_id": third["delivery_id"], "deadline_ms": 0}), "deadline_ms"),
        (json!({"op": "send", "message": {"to": {}, "type": "request", "content": 1}}), "to: "),
    ] {
        b.say(&wrong).await;
        let said = b.hear().await.unwrap();
        assert!(said["code"] == "INVALID_FIELD" && said["detail"].as_str().unwrap().starts_with(field), "{said}");
    }
    let forged = json!({"from_sandbox_id": "a", "to": {"sandbox_id": "b"}, "type": "request", "content": 1});
    b.say(&json!({"op": "send", "ref": "f", "message": forged})).await;
    let refusal = b.hear().await.unwrap();
    assert_eq!((&refusal["code"], &refusal["ref"]), (&json!("OTHER_SANDBOX"), &json!("f")));
    // What was out without an ack comes again.
    drop(b);
    let mut again = Socket::open(&stage, "/ws/sandboxes/b", &hello(&for_b)).await;
    assert_eq!(again.hear().await.unwrap()["op"], "opened");
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(again.hear().await.unwrap()["message"]["content"]["n"].as_u64().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, [2, 3, 4]);
}

#[tokio::test]
async fn broadcasts_and_events_go_on_behind_their_cursor() {
    let stage = stage().await;
    let say = async |content: &str| {
        let body =
            json!({"workspace_id": "default", "from_sandbox_id": "a", "type": "notification", "content": content});
        assert_eq!(stage.ask("POST", "/api/v1/broadcast", &body.to_string()).await.status, 201);
    };
    let mut socket = Socket::open(&stage, "/ws/broadcast", &hello(&stage.admin)).await;
    assert_eq!(socket.hear().await.unwrap()["op"], "opened");
    say("one").await;
    let one = socket.hear().await.unwrap();
    assert_eq!(one["message"]["content"], "one");
    drop(socket);
    say("two").await;
    let mut behind = hello(&stage.admin);
    behind["from"] = one["cursor"].clone();
    let mut socket = Socket::open(&stage, "/ws/broadcast", &behind).await;
    assert_eq!(socket.hear().await.unwrap()["op"], "opened");
    assert_eq!(socket.hear().await.unwrap()["message"]["content"], "two");

    let mut from = hello(&stage.admin);
    (from["from"], from["sandbox_id"]) = (json!(1), json!("b"));
    let mut socket = Socket::open(&stage, "/ws/events", &from).await;
    assert_eq!(socket.hear().await.unwrap()["op"], "opened");
    let event = socket.hear().await.unwrap();
    assert_eq!((&event["event"]["type"], &event["event"]["sandbox_id"]), (&json!("sandbox_registered"), &json!("b")));
}

#[tokio::test]
async fn who_may_not_or_says_nothing_is_sent_away() {
    let stage = stage().await;
    let own = stage.token(&["--role", "sandbox", "--bind-workspace", "default", "--bind-sandbox", "a"]).await;
    for (path, hello, code) in [
        ("/ws/sandboxes/b", hello(&own), "OTHER_SANDBOX"),
        ("/ws/sandboxes/a", hello("nonsense"), "TOKEN_INVALID"),
        ("/ws/sandboxes/a", json!({"workspace_id": "default"}), "TOKEN_MISSING"),
        ("/ws/sandboxes/nobody", hello(&stage.admin), "UNKNOWN_SANDBOX"),
        ("/ws/events", json!({"workspace_id": "nowhere", "token": stage.admin}), "UNKNOWN_WORKSPACE"),
        ("/ws/broadcast", hello(&own), "ROLE_MISSING"),
        ("/ws/sandboxes/a", json!({"token": own}), "MALFORMED_REQUEST"),
        ("/ws/sandboxes/a", json!({"token": own, "workspace_id": "default", "window": 0}), "INVALID_FIELD"),
    ] {
        let mut socket = Socket::open(&stage, path, &hello).await;
        let mut said = socket.hear().await.unwrap();
        // The log is asked once the socket is open.
        if said["op"] == "opened" {
            said = socket.hear().await.unwrap();
        }
        assert_eq!((&said["op"], &said["code"]), (&json!("problem"), &json!(code)), "{path}: {said}");
        assert_eq!(socket.hear().await, None);
    }
    // Places are given back, and there are no more than there may be.
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut socket = Socket::open(&stage, "/ws/events", &hello(&stage.admin)).await;
        assert_eq!(socket.hear().await.unwrap()["op"], "opened");
        open.push(socket);
    }
    let upgrade = [
        ("Connection", "upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "eA=="),
    ];
    let bearer = format!("Bearer {}", stage.admin);
    let mut head = vec![("Authorization", bearer.as_str())];
    head.extend(upgrade);
    let full = tandem_tests::ask_1_1(stage.control_plane.address(), ("GET", "/ws/events"), &head).await;
    refused(&full, 429, "TOO_MANY_SOCKETS");
    // A control plane that stops says so.
    stage.control_plane.shutdown().await;
    assert_eq!(open[0].hear().await.unwrap()["code"], "SHUTTING_DOWN");
}
