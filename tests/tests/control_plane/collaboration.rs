//! What the broker does, over REST: messages, agents, policies, approvals, dead letters, events, audit, keys.

use std::time::Duration;

use serde_json::{Value, json};
use tandem_client::{Agent, Client, Nack, Sandbox, Settings, SubscribeOptions, Token};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::stage::{Stage, refused, until};

const W: &str = "workspace_id=default";

pub(crate) fn client(stage: &Stage, token: &str) -> Client {
    let endpoint = format!("http://{}", stage.broker.as_ref().unwrap().grpc_address());
    Client::with_settings(Settings { token: Some(Token::from_text(token)), ..Settings::for_endpoint(endpoint) })
        .unwrap()
}

/// With sandboxes a, b and c, of which b has an agent.
async fn stage() -> Stage {
    let stage = Stage::start().await;
    let registry = client(&stage, &stage.admin).registry("default");
    for id in ["a", "b", "c"] {
        let reviewer = Agent { name: "ada".into(), role: "reviewer".into(), capabilities: vec!["rust".into()] };
        let agents = if id == "b" { vec![reviewer] } else { Vec::new() };
        registry.register(Sandbox { sandbox_id: id.into(), agents, ..Sandbox::default() }).await.unwrap();
    }
    stage
}

fn message(more: Value) -> String {
    let mut body = json!({"workspace_id": "default", "from_sandbox_id": "a", "to": {"sandbox_id": "b"},
        "type": "request", "content": {"question": "is it green?"}});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body.to_string()
}

#[tokio::test]
async fn what_is_sent_over_rest_is_delivered_and_found_again() {
    let stage = stage().await;
    let mut inbox = client(&stage, &stage.admin).subscribe("default", "b", SubscribeOptions::default()).await.unwrap();
    let wanted = message(json!({"correlation_id": "c1", "metadata": {"k": "v"}, "priority": 9, "message_id": "m1"}));
    let trace = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("X-Request-Id", "r-1")];
    let sent = stage.as_who(&stage.admin, ("POST", "/api/v1/messages"), &trace, &wanted).await;
    assert_eq!((sent.status, &sent.json()["message_id"]), (201, &json!("m1")), "{sent:?}");
    assert_eq!(sent.header("x-request-id"), Some("r-1"));
    let delivery = inbox.next().await.unwrap().unwrap();
    assert_eq!(delivery.message.content, br#"{"question":"is it green?"}"#[..]);
    assert_eq!((delivery.message.priority, delivery.message.traceparent.as_str()), (Some(9), trace[0].1));
    inbox.ack(&delivery);
    let again = stage.ask("POST", "/api/v1/messages", &wanted).await.json();
    assert_eq!((&again["duplicate"], &again["sequence"]), (&json!(true), &sent.json()["sequence"]));
    // A key names the message, where it has no name.
    let key = [("Idempotency-Key", "k1")];
    let named = stage
        .as_who(&stage.admin, ("POST", "/api/v1/messages"), &key, &message(json!({"to": {"sandbox_id": "c"}})))
        .await;
    assert!(named.json()["message_id"].as_str().unwrap().starts_with("idem-"), "{named:?}");
    let found = stage.ask("GET", &format!("/api/v1/messages/m1?{W}"), "").await.json();
    assert_eq!((&found["content"]["question"], &found["to"]), (&json!("is it green?"), &json!({"sandbox_id": "b"})));
    let all = message(json!({"to": {"broadcast": true}, "content": "AAEC", "content_encoding": "base64",
        "content_type": "application/octet-stream"}));
    assert_eq!(stage.ask("POST", "/api/v1/broadcast", &all).await.status, 201);
    let spread = inbox.next().await.unwrap().unwrap();
    assert_eq!(spread.message.content, [0, 1, 2][..]);
    for number in 0..5 {
        let more = message(json!({"content": number, "to": {"capability": {"name": "rust"}}}));
        assert_eq!(stage.ask("POST", "/api/v1/messages", &more).await.status, 201);
    }
    for descending in [false, true] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/api/v1/messages?{W}&limit=2&descending={descending}{cursor}");
            let page = stage.ask("GET", &path, "").await.json();
            seen.extend(page["messages"].as_array().unwrap().iter().map(|one| one["sequence"].as_u64().unwrap()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        if descending {
            seen.reverse();
        }
        assert!(seen.len() == 8 && seen.is_sorted(), "{seen:?}");
    }
    let of = stage.ask("GET", &format!("/api/v1/messages?{W}&correlation_id=c1&type=request"), "").await.json();
    assert_eq!(of["messages"].as_array().unwrap().len(), 1);
    for path in ["/api/v1/agents/discover?workspace_id=default&capability=rust&online=true", ""] {
        let found = match path {
            "" => stage.ask("POST", "/api/v1/agents/discover", r#"{"workspace_id":"default","role":"reviewer"}"#).await,
            path => stage.ask("GET", path, "").await,
        };
        let found = found.json();
        assert_eq!((&found["agents"][0]["name"], &found["agents"][0]["sandbox_id"]), (&json!("ada"), &json!("b")));
    }
}

#[tokio::test]
async fn who_may_say_what_is_what_the_broker_says() {
    let stage = stage().await;
    let own = stage.token(&["--role", "sandbox", "--bind-workspace", "default", "--bind-sandbox", "c"]).await;
    let forged = stage.as_who(&own, ("POST", "/api/v1/messages"), &[], &message(json!({}))).await;
    refused(&forged, 403, "OTHER_SANDBOX");
    let listed = stage.as_who(&own, ("GET", &format!("/api/v1/messages?{W}")), &[], "").await;
    refused(&listed, 403, "ROLE_MISSING");
    for (more, status, code) in [
        (json!({"workspace_id": "nowhere"}), 404, "UNKNOWN_WORKSPACE"),
        (json!({"to": {"sandbox_id": "nobody"}}), 404, "UNKNOWN_SANDBOX"),
        (json!({"to": null}), 400, "INVALID_FIELD"),
        (json!({"to": {}}), 400, "INVALID_FIELD"),
        (json!({"to": {"sandbox_id": "b", "topic": "x"}}), 400, "INVALID_FIELD"),
        (json!({"priority": 10}), 400, "INVALID_FIELD"),
        (json!({"type": "shout"}), 400, "INVALID_FIELD"),
        (json!({"content": "x".repeat(1_100_000)}), 400, "MESSAGE_TOO_LARGE"),
    ] {
        refused(&stage.ask("POST", "/api/v1/messages", &message(more)).await, status, code);
    }
    refused(&stage.ask("GET", "/api/v1/messages", "").await, 400, "INVALID_FIELD");
    let many = stage.ask("GET", &format!("/api/v1/messages?{W}&limit=100000"), "").await;
    assert_eq!(refused(&many, 400, "INVALID_FIELD")["errors"][0]["field"], "limit");
    refused(&stage.ask("GET", &format!("/api/v1/messages?{W}&cursor=x"), "").await, 400, "INVALID_CURSOR");
    refused(&stage.ask("GET", &format!("/api/v1/messages/nothing?{W}"), "").await, 404, "UNKNOWN_MESSAGE");
    // A key that was made over REST is one of the broker; its secret is told once, and it ends when it is revoked.
    let wanted = r#"{"subject":"ci","roles":["developer"],"workspace_id":"default"}"#;
    let key = [("Idempotency-Key", "k")];
    refused(&stage.as_who(&stage.admin, ("POST", "/api/v1/api-keys"), &key, wanted).await, 400, "INVALID_FIELD");
    let made = stage.ask("POST", "/api/v1/api-keys", wanted).await;
    assert_eq!((made.status, made.header("cache-control")), (201, Some("no-store")), "{made:?}");
    let (secret, id) = (made.json()["secret"].clone(), made.json()["key"]["id"].clone());
    let (secret, id) = (secret.as_str().unwrap(), id.as_str().unwrap());
    let shown = stage.as_who(secret, ("GET", &format!("/api/v1/messages?{W}")), &[], "").await;
    assert_eq!(shown.status, 200, "{shown:?}");
    let listed = stage.ask("GET", &format!("/api/v1/api-keys?{W}"), "").await;
    assert!(listed.body.contains(id) && !listed.body.contains(secret));
    assert_eq!(stage.ask("DELETE", &format!("/api/v1/api-keys/{id}"), "").await.status, 200);
    until("the key ends", async || {
        stage.as_who(secret, ("GET", &format!("/api/v1/messages?{W}")), &[], "").await.status == 401
    })
    .await;
}

#[tokio::test]
async fn a_human_approves_over_rest_and_the_audit_tells_who() {
    let stage = stage().await;
    let policy = r#"{"policy":"allow_list","rules":[{"from":"*","to":["*"],"approval_required":true}]}"#;
    let path = format!("/api/v1/policies?{W}");
    let set = stage.ask("PUT", &path, policy).await;
    assert_eq!((set.status, &set.json()["revision"]), (200, &json!(1)), "{set:?}");
    let late = stage.as_who(&stage.admin, ("DELETE", &path), &[("If-Match", "\"7\"")], "").await;
    refused(&late, 412, "POLICY_CHANGED");
    let wrong = stage.ask("PUT", &path, r#"{"policy":"maybe","rules":[]}"#).await;
    refused(&wrong, 400, "INVALID_POLICY");
    let held = stage.ask("POST", "/api/v1/messages", &message(json!({"content": "risky"}))).await;
    assert_eq!(held.status, 202, "{held:?}");
    let id = held.json()["approval_id"].as_u64().unwrap();
    let approver = stage.token(&["--role", "approver"]).await;
    let waiting =
        stage.as_who(&approver, ("GET", &format!("/api/v1/approvals?{W}&state=waiting")), &[], "").await.json();
    assert_eq!(waiting["approvals"][0]["id"], id);
    let shown = stage.as_who(&approver, ("GET", &format!("/api/v1/approvals/{id}?{W}")), &[], "").await.json();
    assert_eq!(shown["message"]["content"], "risky");
    let decide = format!("/api/v1/approvals/{id}/approve?{W}");
    let lines = [("X-Request-Id", "approve-1")];
    let done = stage.as_who(&approver, ("POST", &decide), &lines, r#"{"comment":"fine"}"#).await;
    assert_eq!((done.status, &done.json()["state"]), (200, &json!("approved")), "{done:?}");
    let deny = format!("/api/v1/approvals/{id}/deny?{W}");
    refused(&stage.as_who(&approver, ("POST", &deny), &[], "{}").await, 409, "APPROVAL_ENDED");
    let audit = stage.ask("GET", &format!("/api/v1/audit?{W}&kind=message_approved"), "").await.json();
    let record = &audit["records"][0];
    assert_eq!((&record["by"], &record["request_id"]), (&json!("zoe"), &json!("approve-1")), "{audit}");
    refused(&stage.ask("GET", &format!("/api/v1/audit?{W}&kind=nonsense"), "").await, 400, "INVALID_FIELD");
    let events = stage.ask("GET", &format!("/api/v1/events?{W}"), "").await.json();
    let kinds: Vec<_> = events["events"].as_array().unwrap().iter().map(|event| event["type"].clone()).collect();
    assert!(kinds.contains(&json!("approval_granted")) && kinds.contains(&json!("sandbox_registered")), "{kinds:?}");
    let removed = stage.ask("DELETE", &path, "").await.json();
    assert_eq!((&removed["policy"], &removed["revision"]), (&Value::Null, &json!(2)));
}

#[tokio::test]
async fn dead_letters_are_put_back() {
    let stage = stage().await;
    assert_eq!(stage.ask("POST", "/api/v1/messages", &message(json!({}))).await.status, 201);
    let mut inbox = client(&stage, &stage.admin).subscribe("default", "b", SubscribeOptions::default()).await.unwrap();
    let delivery = inbox.next().await.unwrap().unwrap();
    inbox.nack(&delivery, Nack::dead_letter("no credentials"));
    let path = format!("/api/v1/dead-letters?{W}&sandbox_id=b&reason=rejected");
    until("it is a dead letter", async || {
        let list = stage.ask("GET", &path, "").await.json();
        list["dead_letters"].as_array().unwrap().len() == 1
    })
    .await;
    let dead = stage.ask("GET", &path, "").await.json();
    assert_eq!(dead["dead_letters"][0]["attempts"][0]["text"], "no credentials", "{dead}");
    let redrive = r#"{"workspace_id":"default","sandbox_id":"b"}"#;
    let done = stage.ask("POST", "/api/v1/dead-letters/redrive", redrive).await.json();
    assert_eq!(done, json!({"redriven": 1, "skipped": 0}));
    let again = inbox.next().await.unwrap().unwrap();
    assert_eq!(again.message.sequence, delivery.message.sequence);
}

#[tokio::test]
async fn events_come_as_they_happen_and_go_on_behind_the_last() {
    let stage = stage().await;
    let listen = async |last: &str| {
        let mut stream = TcpStream::connect(stage.control_plane.address()).await.unwrap();
        let head = format!(
            "GET /api/v1/events?{W}&follow=true&from_event=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{last}\r\n",
            stage.admin
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    };
    let read = async |stream: &mut TcpStream, until: &str| {
        let mut text = String::new();
        let mut part = [0; 4096];
        while !text.contains(until) {
            let got = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut part)).await.unwrap().unwrap();
            assert!(got > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&part[..got]));
        }
        text
    };
    let mut stream = listen("").await;
    let first = read(&mut stream, "id: 3").await;
    assert!(first.contains("text/event-stream") && first.contains("event: sandbox_registered"), "{first}");
    let registry = client(&stage, &stage.admin).registry("default");
    registry.register(Sandbox { sandbox_id: "d".into(), ..Sandbox::default() }).await.unwrap();
    let more = read(&mut stream, "\"sandbox_id\":\"d\"").await;
    assert!(more.contains("id: 4"), "{more}");
    let mut again = listen("Last-Event-ID: 3\r\n").await;
    let behind = read(&mut again, "\"sandbox_id\":\"d\"").await;
    assert!(!behind.contains("id: 3"), "{behind}");
}
