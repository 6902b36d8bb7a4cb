//! Figures of the control plane on this machine: each prints what it measured, and fails where that is more than it may be. They are
//! run by hand or by `tools/bench_cluster.sh`, on a machine that does nothing else.

#![allow(clippy::print_stdout, reason = "figures are for who runs them")]

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use serde_json::{Value, json};
use tandem_client::{MessageBuilder, Sandbox, to_sandbox};
use tandem_tests::now;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::{
    collaboration::client,
    docker::Dock,
    stage::{Stage, until},
    warm::{waiting, without_a_pool},
};

/// A connection that stays open.
struct Connection {
    stream: BufReader<TcpStream>,
    head: String,
}

impl Connection {
    async fn to(stage: &Stage) -> Self {
        let address = stage.control_plane.address();
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let head =
            format!("Host: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n", stage.admin);
        Self { stream: BufReader::new(stream), head }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (head, length) = (&self.head, body.len());
        let request = format!("{method} {path} HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            self.stream.read_line(&mut line).await.unwrap();
            if let Some(code) = line.strip_prefix("HTTP/1.1 ") {
                status = code[..3].parse().unwrap();
            } else if let Some(bytes) = line.to_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            } else if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// The same, with how long it took.
    async fn timed(&mut self, method: &str, path: &str, body: &str) -> (Duration, Value) {
        let began = now();
        let (status, answer) = self.ask(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        (began.elapsed(), answer)
    }
}

/// Prints what was measured; returns the median and what 99 of 100 took at most.
fn told(what: &str, mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!("{what}: {} times, p50 {:?}, p90 {:?}, p99 {:?}, most {:?}", times.len(), at(50), at(90), at(99), at(100));
    [at(50), at(99)]
}

const CALL: Duration = Duration::from_millis(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figure: on a machine that does nothing else"]
async fn calls_about_workspaces_are_answered_in_time() {
    let stage = Stage::start().await;
    let mut connection = Connection::to(&stage).await;
    let mut times: [Vec<Duration>; 5] = Default::default();
    for number in 0..300 {
        let path = format!("/api/v1/workspaces/w{number}");
        let body = json!({"id": format!("w{number}"), "name": "a workspace"}).to_string();
        let forced = format!("{path}?force=true");
        let calls = [
            ("POST", "/api/v1/workspaces", body.as_str()),
            ("GET", &path, ""),
            ("PATCH", &path, r#"{"description": "another"}"#),
            ("GET", "/api/v1/workspaces?limit=20", ""),
            ("DELETE", &forced, ""),
        ];
        for (times, (method, path, body)) in times.iter_mut().zip(calls) {
            times.push(connection.timed(method, path, body).await.0);
        }
    }
    for (what, times) in ["create", "get", "change", "list", "delete"].into_iter().zip(times) {
        let [_, p99] = told(&format!("workspaces, {what}"), times);
        assert!(p99 <= CALL, "{what}: {p99:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figure: on a machine that does nothing else"]
async fn a_hundred_sandboxes_start_in_time_beside_each_other() {
    let dock = Dock::start().await;
    let mut connection = Connection::to(&dock.stage).await;
    let (mut times, mut ids) = (Vec::new(), Vec::new());
    for number in 0..100 {
        let body = dock.body(&format!("s{number}"), &json!({}));
        let (time, made) = connection.timed("POST", "/api/v1/sandboxes", &body).await;
        assert_eq!(made["state"], "running", "{made}");
        times.push(time);
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    let [p50, _] = told("from create to registered", times);
    let mut times = Vec::new();
    for id in ids.iter().cycle().take(500) {
        let (time, status) = connection.timed("GET", &format!("/api/v1/sandboxes/{id}/status"), "").await;
        assert_eq!(status["online"], true, "{status}");
        times.push(time);
    }
    let [_, p99] = told("status, of 100 that run", times);
    assert!(p50 <= Duration::from_millis(700) && p99 <= CALL, "{p50:?} {p99:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figure: on a machine that does nothing else"]
async fn sandboxes_from_the_pool_start_at_once() {
    const POOL: u32 = 4;
    let image = "aintandem/sandbox:latest";
    let mut dock = Dock::with(json!({}), |config| config.sandboxes.warm_pool = [(image.to_owned(), POOL)].into()).await;
    // It puts up the walls.
    let first = dock.sandbox("first", json!({})).await;
    let installation = crate::warm::installation(&first);
    let mut connection = Connection::to(&dock.stage).await;
    let mut times: [Vec<Duration>; 2] = Default::default();
    for number in 0..60 {
        until("the pool is full", async || waiting(&installation).len() == POOL as usize).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        // Every other one has limits of its own, which have to be set.
        let resources = if number % 2 == 0 { json!({}) } else { json!({"memory_mb": 64, "cpu_cores": 0.5}) };
        let body = dock.body(&format!("s{number}"), &json!({ "resources": resources }));
        let (time, made) = connection.timed("POST", "/api/v1/sandboxes", &body).await;
        assert_eq!(made["state"], "running", "{made}");
        times[number % 2].push(time);
        connection.timed("DELETE", &format!("/api/v1/sandboxes/{}", made["id"].as_str().unwrap()), "").await;
    }
    without_a_pool(&mut dock, &installation).await;
    let [usual, limited] = times;
    let [p50, _] = told("from create to registered, from the pool", usual);
    told("the same, with limits of its own", limited);
    assert!(p50 <= Duration::from_millis(100), "{p50:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figure: on a machine that does nothing else"]
async fn messages_are_published_over_rest() {
    const CALLERS: usize = 32;
    const EACH: usize = 1_000;
    let stage = Stage::start().await;
    let registry = client(&stage, &stage.admin).registry("default");
    for id in ["a", "b"] {
        registry.register(Sandbox { sandbox_id: id.into(), ..Sandbox::default() }).await.unwrap();
    }
    let body =
        json!({"workspace_id": "default", "from_sandbox_id": "a", "to": {"sandbox_id": "b"}, "type": "notification",
        "content": {"text": "x".repeat(200)}})
        .to_string();
    let began = now();
    let all = join_all((0..CALLERS).map(async |_| {
        let mut connection = Connection::to(&stage).await;
        let mut times = Vec::with_capacity(EACH);
        for _ in 0..EACH {
            times.push(connection.timed("POST", "/api/v1/messages", &body).await.0);
        }
        times
    }))
    .await;
    let rate = (CALLERS * EACH) as f64 / began.elapsed().as_secs_f64();
    told(&format!("{rate:.0} publishes a second over REST, {CALLERS} callers"), all.concat());
    assert!(rate >= 3_000.0, "{rate:.0}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figure: on a machine that does nothing else"]
async fn a_websocket_adds_little_to_a_delivery() {
    const MESSAGES: usize = 4_000;
    let stage = Stage::start().await;
    let client = client(&stage, &stage.admin);
    for id in ["a", "grpc", "websocket"] {
        client.registry("default").register(Sandbox { sandbox_id: id.into(), ..Sandbox::default() }).await.unwrap();
    }
    let mut inbox = client.subscribe("default", "grpc", Default::default()).await.unwrap();
    let address = stage.control_plane.address();
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let path = format!("ws://{address}/ws/sandboxes/websocket");
    let (mut socket, _) = tokio_tungstenite::client_async(path, stream).await.unwrap();
    let hello = json!({"workspace_id": "default", "token": stage.admin, "window": 1_000});
    socket.send(Frame::text(hello.to_string())).await.unwrap();

    let by_grpc = tokio::spawn(async move {
        let mut came = HashMap::new();
        while came.len() < MESSAGES / 2 {
            let delivery = inbox.next().await.unwrap().unwrap();
            came.insert(delivery.message.message_id.clone(), now());
            inbox.ack(&delivery);
        }
        inbox.close().await.unwrap();
        came
    });
    let by_socket = tokio::spawn(async move {
        let mut came: HashMap<String, Instant> = HashMap::new();
        while came.len() < MESSAGES / 2 {
            let Some(Ok(Frame::Text(text))) = socket.next().await else { continue };
            let at = now();
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["op"] == "message" {
                came.insert(frame["message"]["message_id"].as_str().unwrap().to_owned(), at);
                let ack = json!({"op": "ack", "delivery_id": frame["delivery_id"]});
                socket.send(Frame::text(ack.to_string())).await.unwrap();
            }
        }
        came
    });
    let publisher = client.publisher("default");
    let mut sent = Vec::new();
    let mut beat = tokio::time::interval(Duration::from_millis(4));
    for number in 0..MESSAGES {
        beat.tick().await;
        let to = ["grpc", "websocket"][number % 2];
        let id = format!("m{number}");
        sent.push((id.clone(), now()));
        let message = MessageBuilder::notification("a", to_sandbox(to), "x".repeat(256)).message_id(id).build();
        publisher.publish(message).await.unwrap();
    }
    let (by_grpc, by_socket) = (by_grpc.await.unwrap(), by_socket.await.unwrap());
    let of = |came: &HashMap<String, Instant>| {
        sent.iter().filter_map(|(id, at)| came.get(id).map(|came| came.saturating_duration_since(*at))).collect()
    };
    let [_, grpc] = told("from publish to delivery, by gRPC", of(&by_grpc));
    let [_, websocket] = told("from publish to delivery, by WebSocket", of(&by_socket));
    println!("a WebSocket adds {:?} at p99", websocket.saturating_sub(grpc));
    assert!(websocket <= grpc + Duration::from_millis(2), "{websocket:?} {grpc:?}");
}
