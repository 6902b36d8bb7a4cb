//! Alerts: rules that look at what happens, and webhooks that hear of it.

use std::time::Duration;

use serde_json::{Value, json};
use tandem_client::{MessageBuilder, Nack, Sandbox, SubscribeOptions, to_sandbox};
use tandem_control_plane::ControlPlane;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use crate::{
    collaboration::client,
    stage::{Stage, config, refused, until},
};

const RULES: &str = "/api/v1/alerts/rules";
const ALERTS: &str = "/api/v1/alerts?workspace_id=default";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn stage() -> Stage {
    let stage = Stage::keeping_secrets(|config| {
        config.alerts.allow_loopback = true;
        config.alerts.webhook_backoff_ms = 50;
    })
    .await;
    until("the workspace of the broker is taken in", async || stage.ids(&stage.admin, "").await == ["default"]).await;
    stage
}

fn rule(more: Value) -> String {
    let mut body =
        json!({"workspace_id": "default", "name": "somebody comes", "condition": {"event": "sandbox_registered"}});
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body.to_string()
}

async fn register(stage: &Stage, id: &str) {
    let registry = client(stage, &stage.admin).registry("default");
    registry.register(Sandbox { sandbox_id: id.into(), ..Sandbox::default() }).await.unwrap();
}

async fn alerts(stage: &Stage) -> Vec<Value> {
    stage.ask("GET", ALERTS, "").await.json()["alerts"].as_array().unwrap().clone()
}

/// A receiver that answers so, one request after the other, and tells what it was sent.
async fn receiver(answers: &'static [&'static str]) -> (String, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (heard, hearing) = unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut asked, mut part) = (String::new(), [0; 8_192]);
            while !asked.ends_with("\"alert.fired\"}") {
                let read = stream.read(&mut part).await.unwrap();
                asked.push_str(std::str::from_utf8(&part[..read]).unwrap());
            }
            let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            heard.send(asked).ok();
        }
    });
    (url, hearing)
}

#[tokio::test]
async fn what_the_broker_sees_fires_and_the_webhook_hears_of_it() {
    let stage = stage().await;
    register(&stage, "before").await;
    let (url, mut hearing) = receiver(&["500 Oh", "204 No Content"]).await;
    let wanted = rule(json!({"severity": "critical", "webhook": {"url": url, "secret": SECRET}}));
    let made = stage.ask("POST", RULES, &wanted).await;
    assert_eq!((made.status, &made.json()["webhook"]), (201, &json!({"url": url, "has_secret": true})), "{made:?}");
    register(&stage, "a").await;
    until("it has fired", async || !alerts(&stage).await.is_empty()).await;
    // Within its quiet time more of it is no alert of its own.
    register(&stage, "b").await;
    until("both are counted", async || alerts(&stage).await[0]["count"] == 2).await;
    let all = alerts(&stage).await;
    assert_eq!(
        (all.len(), &all[0]["sandbox_id"], &all[0]["severity"]),
        (1, &json!("a"), &json!("critical")),
        "{all:?}"
    );
    let (first, second) = (hearing.recv().await.unwrap(), hearing.recv().await.unwrap());
    let line = |asked: &str, name: &str| {
        let start = format!("{name}: ");
        asked.lines().find_map(|line| line.strip_prefix(&start)).unwrap().to_owned()
    };
    assert_eq!(line(&first, "webhook-id"), line(&second, "webhook-id"));
    assert!(line(&second, "webhook-signature").starts_with("v1,"));
    let body: Value = serde_json::from_str(second.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!((&body["data"]["id"], &body["data"]["sandbox_id"]), (&all[0]["id"], &json!("a")));
    until("it is known to be heard", async || alerts(&stage).await[0]["delivery"]["state"] == "delivered").await;
    assert_eq!(alerts(&stage).await[0]["delivery"]["attempts"], 2);
    let place = format!("/api/v1/alerts/{}/acknowledge", all[0]["id"].as_str().unwrap());
    let seen = stage.ask("POST", &place, "").await;
    assert_eq!((seen.status, &seen.json()["state"]), (200, &json!("acknowledged")), "{seen:?}");
    assert_eq!(seen.json()["acknowledged_by"], "zoe");
    let open = stage.ask("GET", &format!("{ALERTS}&state=open"), "").await.json();
    assert!(open["alerts"].as_array().unwrap().is_empty(), "{open}");
    refused(&stage.ask("POST", "/api/v1/alerts/nothing/acknowledge", "").await, 404, "UNKNOWN_ALERT");
}

#[tokio::test]
async fn what_happens_while_no_control_plane_runs_is_looked_at_later_and_once() {
    let stage = stage().await;
    let condition = json!({"event": "message_dead_lettered", "sandbox_id": "b", "count": 2, "window_seconds": 600});
    assert_eq!(stage.ask("POST", RULES, &rule(json!({"condition": condition}))).await.status, 201);
    for id in ["a", "b"] {
        register(&stage, id).await;
    }
    let broker = stage.broker.as_ref().unwrap().grpc_address();
    let Stage { home, broker: running, control_plane, admin } = stage;
    control_plane.shutdown().await;
    let endpoint = format!("http://{broker}");
    let settings = tandem_client::Settings {
        token: Some(tandem_client::Token::from_text(&admin)),
        ..tandem_client::Settings::for_endpoint(endpoint)
    };
    let speaker = tandem_client::Client::with_settings(settings).unwrap();
    let mut inbox = speaker.subscribe("default", "b", SubscribeOptions::default()).await.unwrap();
    for _ in 0..2 {
        let message = MessageBuilder::notification("a", to_sandbox("b"), "{}").build();
        speaker.publisher("default").publish(message).await.unwrap();
        let delivery = inbox.next().await.unwrap().unwrap();
        inbox.nack(&delivery, Nack::dead_letter("no"));
    }
    let mut settings = config(&home, broker);
    (settings.secrets.key_file, settings.secrets.create_key_file) = (home.path().join("secrets.key"), true);
    let control_plane = ControlPlane::start(settings).await.unwrap();
    let stage = Stage { home, broker: running, control_plane, admin };
    until("it has fired", async || !alerts(&stage).await.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let all = alerts(&stage).await;
    assert_eq!(
        (all.len(), &all[0]["count"], &all[0]["event"]),
        (1, &json!(2), &json!("message_dead_lettered")),
        "{all:?}"
    );
}

#[tokio::test]
async fn rules_are_changed_from_what_was_seen_and_what_is_wrong_is_named() {
    let stage = stage().await;
    let made = stage.ask("POST", RULES, &rule(json!({}))).await;
    let (place, tag) = (made.header("location").unwrap().to_owned(), made.header("etag").unwrap().to_owned());
    let patch = r#"{"condition":{"count":3,"sandbox_id":"x"},"enabled":false}"#;
    let changed = stage.as_who(&stage.admin, ("PATCH", &place), &[("If-Match", &tag)], patch).await;
    let expected = json!({"event": "sandbox_registered", "sandbox_id": "x", "count": 3, "window_seconds": 60});
    assert_eq!((changed.status, &changed.json()["condition"]), (200, &expected), "{changed:?}");
    refused(
        &stage.as_who(&stage.admin, ("PATCH", &place), &[("If-Match", &tag)], patch).await,
        412,
        "REVISION_CHANGED",
    );
    refused(&stage.ask("POST", RULES, &rule(json!({}))).await, 409, "NAME_TAKEN");
    for (more, field) in [
        (json!({"condition": {"event": "nonsense"}}), "condition.event"),
        (json!({"condition": {"event": "failed", "count": 0}}), "condition.count"),
        (json!({"quiet_seconds": 86_401}), "quiet_seconds"),
        (json!({"webhook": {"url": "http://example.com/", "secret": SECRET}}), "webhook.url"),
        (json!({"webhook": {"url": "https://169.254.169.254/", "secret": SECRET}}), "webhook.url"),
        (json!({"webhook": {"url": "https://example.com/", "secret": "hidden"}}), "webhook.secret"),
        (json!({"webhook": {"url": "https://example.com/"}}), "webhook"),
    ] {
        let answer = stage.ask("POST", RULES, &rule(more)).await;
        let problem = refused(&answer, 400, "INVALID_FIELD");
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        assert!(!answer.body.contains("hidden"), "{answer:?}");
    }
    refused(&stage.ask("PATCH", &place, r#"{"webhook":{"url":"https://example.com/"}}"#).await, 400, "INVALID_FIELD");
    let auditor = stage.token(&["--role", "auditor"]).await;
    refused(&stage.as_who(&auditor, ("POST", RULES), &[], &rule(json!({}))).await, 403, "ROLE_MISSING");
    assert_eq!(stage.as_who(&auditor, ("GET", RULES), &[], "").await.json()["rules"].as_array().unwrap().len(), 1);
    assert_eq!(stage.ask("DELETE", &place, "").await.status, 204);
    refused(&stage.ask("GET", &place, "").await, 404, "UNKNOWN_ALERT_RULE");
}
