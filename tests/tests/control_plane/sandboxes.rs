//! Sandboxes in real containers: their lives, and what becomes of them when others die.

use std::time::Duration;

use serde_json::json;
use tandem_client::{Client, MessageBuilder, Settings, SubscribeOptions, Token, to_sandbox};
use tandem_control_plane::ControlPlane;

use crate::{
    docker::{Dock, docker},
    stage::{self, refused, until},
};

/// Answers a request with what it was asked, and its own name.
const ECHO: &str = r#"import json,os,sys; m=json.load(sys.stdin); print(json.dumps({"by": os.environ["TANDEM_SANDBOX"], "asked": m["content"]}))"#;

fn client(dock: &Dock) -> Client {
    let endpoint = format!("http://{}", dock.stage.broker.as_ref().unwrap().grpc_address());
    let token = Some(Token::from_text(&dock.stage.admin));
    Client::with_settings(Settings { token, ..Settings::for_endpoint(endpoint) }).unwrap()
}

#[tokio::test]
async fn a_sandbox_lives_its_life() {
    let dock = Dock::start().await;
    let made = dock
        .create(
            "frontend-team",
            json!({"agent_config": {"primary_agent": {"name": "ada", "role": "frontend", "capabilities": ["css"]}},
            "handler": {"command": ["python3", "-c", ECHO]}, "environment": {"COLOUR": "green"}}),
        )
        .await;
    assert_eq!((made.status, &made.json()["state"]), (201, &json!("running")), "{made:?}");
    assert_eq!(made.json()["connection"]["sandbox_id"], "frontend-team");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let status = dock.status(&id).await;
    assert_eq!((&status["online"], &status["restarts"]), (&json!(true), &json!(0)), "{status}");

    // It is asked something, and answers.
    let client = client(&dock);
    client.registry(dock.workspace.as_str()).register_with_agents("asker", Vec::new()).await.unwrap();
    let question = MessageBuilder::request("asker", to_sandbox("frontend-team"), r#"{"q":1}"#).build();
    let answer = client.publisher(dock.workspace.as_str()).request(question, Duration::from_secs(15)).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer.message.content).unwrap();
    assert_eq!(answer, json!({"by": "frontend-team", "asked": {"q": 1}}));

    let (code, said) = dock.shell(&id, "echo $COLOUR; echo $TANDEM_SANDBOX; exit 3").await;
    assert_eq!((code, said.as_str()), (3, "green\nfrontend-team\n"));
    let missing = refused(&dock.post(&id, "exec", r#"{"command":["no-such-program"]}"#).await, 400, "INVALID_FIELD");
    assert_eq!(missing["errors"][0]["field"], "command", "{missing}");
    let stats = dock.stage.ask("GET", &format!("/api/v1/sandboxes/{id}/stats"), "").await.json();
    assert_eq!(stats["memory_limit_bytes"], 64 << 20, "{stats}");
    assert!(stats["pids"].as_u64().unwrap() >= 2, "{stats}");

    let stopped = dock.post(&id, "stop", "").await;
    assert_eq!((stopped.status, &stopped.json()["state"]), (200, &json!("stopped")), "{stopped:?}");
    refused(&dock.post(&id, "exec", r#"{"command":["true"]}"#).await, 409, "SANDBOX_NOT_RUNNING");
    let started = dock.post(&id, "start", "").await;
    assert_eq!((started.status, &started.json()["state"]), (200, &json!("running")), "{started:?}");
    let changed =
        dock.stage.ask("PATCH", &format!("/api/v1/sandboxes/{id}"), r#"{"resources":{"memory_mb":96}}"#).await;
    assert_eq!((changed.status, &changed.json()["resources"]["pids"]), (200, &json!(256)), "{changed:?}");
    assert_eq!(dock.post(&id, "restart", "").await.json()["state"], "running");
    let stats = dock.stage.ask("GET", &format!("/api/v1/sandboxes/{id}/stats"), "").await.json();
    assert_eq!(stats["memory_limit_bytes"], 96 << 20, "{stats}");

    let gone = dock.stage.ask("DELETE", &format!("/api/v1/sandboxes/{id}"), "").await;
    assert_eq!(gone.status, 204, "{gone:?}");
    assert!(dock.containers().is_empty() && dock.volumes().is_empty());
    let unknown = client.registry(dock.workspace.as_str()).get("frontend-team").await.unwrap_err();
    assert_eq!(unknown.reason(), "UNKNOWN_SANDBOX");
    refused(&dock.stage.ask("GET", &format!("/api/v1/sandboxes/{id}"), "").await, 404, "UNKNOWN_SANDBOX");
}

#[tokio::test]
async fn what_is_printed_can_be_read_and_followed() {
    let dock = Dock::start().await;
    let script = "for i in 1 2 3; do echo line $i; echo error $i >&2; done; sleep 1000";
    let id = dock.sandbox("talker", json!({"command": ["sh", "-c", script]})).await;
    let path = format!("/api/v1/sandboxes/{id}/logs");
    until("all is printed", async || {
        let lines = dock.stage.ask("GET", &path, "").await.json();
        lines["lines"].as_array().unwrap().len() == 6
    })
    .await;
    let lines = dock.stage.ask("GET", &format!("{path}?tail=2"), "").await.json();
    let last: Vec<_> = lines["lines"].as_array().unwrap().iter().map(|line| line["text"].clone()).collect();
    assert_eq!(last.len(), 2, "{lines}");
    assert!(lines["lines"][0]["time"].as_str().unwrap().ends_with('Z'), "{lines}");
    let later = dock.stage.ask("GET", &format!("{path}?since=2999-01-01T00:00:00Z"), "").await.json();
    assert_eq!(later["lines"], json!([]));
    refused(&dock.stage.ask("GET", &format!("{path}?since=yesterday"), "").await, 400, "INVALID_FIELD");
    refused(&dock.stage.ask("GET", &format!("{path}?tail=0"), "").await, 400, "INVALID_FIELD");
    // A stream ends with the sandbox.
    let followed = format!("{path}?follow=true");
    let following = dock.stage.ask("GET", &followed, "");
    let (told, stopped) = tokio::join!(following, async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        dock.post(&id, "stop", "").await
    });
    assert_eq!(stopped.status, 200, "{stopped:?}");
    assert_eq!(told.header("content-type"), Some("text/event-stream"));
    assert_eq!(told.body.matches("event: line").count(), 6, "{}", told.body);
}

#[tokio::test]
async fn who_is_killed_comes_back_and_nothing_is_lost() {
    let dock = Dock::start().await;
    let id = dock.sandbox("worker", json!({"handler": {"command": ["python3", "-c", ECHO]}})).await;
    let client = client(&dock);
    client.registry(dock.workspace.as_str()).register_with_agents("asker", Vec::new()).await.unwrap();
    let publisher = client.publisher(dock.workspace.as_str());
    let mut inbox = client.subscribe(dock.workspace.as_str(), "asker", SubscribeOptions::default()).await.unwrap();
    for number in 0..30 {
        let ask = MessageBuilder::request("asker", to_sandbox("worker"), number.to_string());
        let ask = ask.correlation_id(format!("c{number}")).requires_response().build();
        publisher.publish(ask).await.unwrap();
        if number == 10 {
            docker(&["kill", &format!("tandem-{id}")]);
        }
    }
    let mut answered = std::collections::BTreeSet::new();
    while answered.len() < 30 {
        let next = tokio::time::timeout(Duration::from_secs(30), inbox.next()).await.expect("all are answered");
        let delivery = next.unwrap().unwrap();
        assert!(
            answered.insert(delivery.message.correlation_id.clone()),
            "{:?} twice",
            delivery.message.correlation_id
        );
        inbox.ack(&delivery);
    }
    let status = dock.until_state(&id, "running").await;
    assert_eq!((&status["restarts"], &status["exit_code"]), (&json!(1), &json!(null)), "{status}");
}

#[tokio::test]
async fn a_new_control_plane_adopts_what_runs_and_removes_what_is_nobody_s() {
    let mut dock = Dock::start().await;
    let id = dock.sandbox("stays", json!({"handler": {"command": ["python3", "-c", ECHO]}})).await;
    let inspect = |what: &str| docker(&["inspect", "--format", what, &format!("tandem-{id}")]);
    let (started, installation) =
        (inspect("{{.State.StartedAt}}"), inspect("{{index .Config.Labels \"aintandem.installation\"}}"));
    let mut config = stage::config(&dock.stage.home, dock.stage.broker.as_ref().unwrap().grpc_address());
    config.sandboxes.subnets = format!("10.{}.0.0/16", 64 + std::process::id() % 140);
    let next = ControlPlane::start(config).await.unwrap();
    std::mem::replace(&mut dock.stage.control_plane, next).shutdown().await;
    // Somebody's who is gone.
    let labels = [
        format!("aintandem.installation={installation}"),
        "aintandem.sandbox=sb-lost".to_owned(),
        format!("aintandem.workspace={}", dock.workspace),
    ];
    docker(&[
        "create",
        "--name",
        "tandem-sb-lost",
        "--label",
        &labels[0],
        "--label",
        &labels[1],
        "--label",
        &labels[2],
        "aintandem/sandbox:latest",
    ]);
    until("the stray is gone", async || docker(&["ps", "-aq", "--filter", "name=tandem-sb-lost"]).is_empty()).await;
    let status = dock.until_state(&id, "running").await;
    assert_eq!((status["restarts"].as_u64(), inspect("{{.State.StartedAt}}")), (Some(0), started), "{status}");
    // Its way to the broker went through the one that is gone: nobody has asked for another, and there is one.
    let client = client(&dock);
    client.registry(dock.workspace.as_str()).register_with_agents("asker", Vec::new()).await.unwrap();
    let question = MessageBuilder::request("asker", to_sandbox("stays"), "1").build();
    let answer = client.publisher(dock.workspace.as_str()).request(question, Duration::from_secs(20)).await.unwrap();
    assert!(String::from_utf8_lossy(&answer.message.content).contains("stays"));
}

#[tokio::test]
async fn two_control_planes_on_one_database_do_not_fight() {
    let dock = Dock::start().await;
    let mut config = stage::config(&dock.stage.home, dock.stage.broker.as_ref().unwrap().grpc_address());
    config.sandboxes.subnets = format!("10.{}.0.0/16", 64 + std::process::id() % 140);
    let other = ControlPlane::start(config).await.unwrap();
    let bearer = format!("Bearer {}", dock.stage.admin);
    let lines = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    let bodies = ["a", "b", "c", "d"].map(|name| dock.body(name, &json!({})));
    // Half of them here, half there, and one name at both.
    let [a, b, c, d] = &bodies;
    let address = other.address();
    let there = |body: &String| {
        let body = body.clone();
        async move { tandem_tests::ask(address, ("POST", "/api/v1/sandboxes"), &lines, body).await }
    };
    let (first, second, third, fourth, fifth) = tokio::join!(
        dock.stage.ask("POST", "/api/v1/sandboxes", a),
        there(b),
        dock.stage.ask("POST", "/api/v1/sandboxes", c),
        there(d),
        there(a),
    );
    let mut statuses = [&first, &second, &third, &fourth, &fifth].map(|answer| answer.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 201, 201, 201, 409], "{first:?} {fifth:?}");
    // A while later all is as it was.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(dock.containers().len(), 4);
    let list = dock.stage.ask("GET", &format!("/api/v1/sandboxes?workspace_id={}", dock.workspace), "").await.json();
    for sandbox in list["sandboxes"].as_array().unwrap() {
        let status = dock.status(sandbox["id"].as_str().unwrap()).await;
        assert_eq!((&status["state"], &status["restarts"]), (&json!("running"), &json!(0)), "{status}");
    }
}

#[tokio::test]
async fn time_ends_a_sandbox_and_a_message_wakes_it() {
    let dock = Dock::start().await;
    let resources = json!({"memory_mb": 64, "cpu_cores": 0.5, "timeout_seconds": 6});
    let wanted =
        json!({"resources": resources, "wake_on_message": true, "handler": {"command": ["python3", "-c", ECHO]}});
    let id = dock.sandbox("sleeper", wanted).await;
    let status = dock.until_state(&id, "stopped").await;
    assert_eq!(status["stopped_because"], "timed_out", "{status}");
    let client = client(&dock);
    client.registry(dock.workspace.as_str()).register_with_agents("asker", Vec::new()).await.unwrap();
    let question = MessageBuilder::request("asker", to_sandbox("sleeper"), "1").build();
    let answer = client.publisher(dock.workspace.as_str()).request(question, Duration::from_secs(20)).await.unwrap();
    assert!(String::from_utf8_lossy(&answer.message.content).contains("sleeper"));
}

#[tokio::test]
async fn who_does_nothing_is_stopped() {
    let dock = Dock::start().await;
    let id = dock.sandbox("idler", json!({"idle_timeout_seconds": 5})).await;
    until("it is stopped", async || dock.status(&id).await["state"] == "stopped").await;
    assert_eq!(dock.status(&id).await["stopped_because"], "idle");
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_leaves_nothing_behind() {
    let dock = Dock::with(json!({"max_sandboxes": 1}), |_| {}).await;
    let wrong = |more| dock.create("one", more);
    let unknown = json!({"workspace_id": "nowhere", "name": "one"}).to_string();
    refused(&dock.stage.ask("POST", "/api/v1/sandboxes", &unknown).await, 404, "UNKNOWN_WORKSPACE");
    for (over, what) in [("memory_mb", 1_000_000), ("cpu_cores", 200), ("disk_mb", 1 << 20)] {
        let huge = refused(&wrong(json!({"resources": {over: what}})).await, 400, "INVALID_FIELD");
        assert_eq!(huge["errors"][0]["field"], format!("resources.{over}"), "{huge}");
        assert!(huge["errors"][0].to_string().contains("more than the host's"), "{huge}");
    }
    let odd = refused(&wrong(json!({"resources": {"memory_mb": "much"}})).await, 400, "INVALID_FIELD");
    assert_eq!(odd["errors"][0]["field"], "resources.memory_mb", "{odd}");
    refused(&wrong(json!({"privileged": true})).await, 400, "INVALID_FIELD");
    refused(&wrong(json!({"image": "nobody/has:this"})).await, 422, "UNKNOWN_IMAGE");
    for name in ["", "Übung", "a b", "../up", "x\u{0}"] {
        refused(&dock.create(name, json!({})).await, 400, "INVALID_FIELD");
    }
    // Swift enough to end before it counts as begun.
    let swift = |command| json!({"command": command, "resources": {"memory_mb": 64, "cpu_cores": 2}});
    let command = json!(["sh", "-c", "echo no luck >&2; exit 9"]);
    let ended = refused(&wrong(swift(command)).await, 422, "SANDBOX_ENDED");
    let text = ended["detail"].as_str().unwrap();
    assert!(text.contains("exit code 9") && text.contains("no luck"), "{text}");
    let missing = refused(&wrong(swift(json!(["/no/such/program"]))).await, 422, "SANDBOX_ENDED");
    assert!(missing["detail"].as_str().unwrap().contains("/no/such/program"), "{missing}");
    assert!(dock.containers().is_empty() && dock.volumes().is_empty(), "nothing is left behind");
    dock.sandbox("one", json!({})).await;
    refused(&dock.create("one", json!({})).await, 409, "NAME_TAKEN");
    refused(&dock.create("two", json!({})).await, 429, "TOO_MANY_SANDBOXES");
    assert_eq!(dock.containers().len(), 1);
    let reader = dock.stage.token(&["--role", "auditor"]).await;
    let refusal = dock.stage.as_who(&reader, ("POST", "/api/v1/sandboxes"), &[], &dock.body("x", &json!({}))).await;
    refused(&refusal, 403, "ROLE_MISSING");
}

#[tokio::test]
async fn without_docker_it_is_said_and_nothing_is_begun() {
    let dock = Dock::with(json!({}), |config| config.sandboxes.docker_host = "unix:///nowhere.sock".to_owned()).await;
    let down = dock.create("one", json!({})).await;
    refused(&down, 503, "DOCKER_UNAVAILABLE");
    assert_eq!(down.header("retry-after"), Some("2"));
    let list = dock.stage.ask("GET", "/api/v1/sandboxes", "").await.json();
    assert_eq!(list["sandboxes"], json!([]));
    let nowhere = "/api/v1/sandboxes?workspace_id=nowhere";
    refused(&dock.stage.ask("GET", nowhere, "").await, 404, "UNKNOWN_WORKSPACE");
    // Who is bound to another one does not learn which there are.
    let bound = dock.stage.token(&["--role", "developer", "--bind-workspace", "default"]).await;
    for path in [nowhere, &format!("/api/v1/sandboxes?workspace_id={}", dock.workspace)] {
        refused(&dock.stage.as_who(&bound, ("GET", path), &[], "").await, 403, "OTHER_WORKSPACE");
    }
}

#[tokio::test]
async fn a_workspace_takes_its_sandboxes_with_it() {
    let dock = Dock::start().await;
    dock.sandbox("one", json!({})).await;
    dock.sandbox("two", json!({})).await;
    assert!(!dock.networks().is_empty());
    let path = format!("/api/v1/workspaces/{}", dock.workspace);
    let gone = dock.stage.ask("DELETE", &format!("{path}?force=true"), "").await;
    assert_eq!(gone.status, 204, "{gone:?}");
    assert!(dock.containers().is_empty() && dock.volumes().is_empty() && dock.networks().is_empty());
    refused(&dock.stage.ask("GET", &path, "").await, 404, "UNKNOWN_WORKSPACE");
}
