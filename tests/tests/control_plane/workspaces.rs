//! Workspaces: their life, their limits, and what is wrong with requests about them.

use std::{fs, process::Stdio, time::Duration};

use serde_json::json;
use tandem_client::{Client, NewKey, Settings, Token};
use tandem_tests::{BrokerProcess, Home, ask, control_plane_command, get};

use crate::stage::{JSON, Stage, broker, config, database, refused, token, until};

const ALL: &str = "/api/v1/workspaces";

fn client(stage: &Stage) -> Client {
    let endpoint = format!("http://{}", stage.broker.as_ref().unwrap().grpc_address());
    Client::with_settings(Settings { token: Some(Token::from_text(&stage.admin)), ..Settings::for_endpoint(endpoint) })
        .unwrap()
}

#[tokio::test]
async fn a_workspace_is_made_changed_and_deleted_here_and_at_the_broker() {
    let stage = Stage::start().await;
    let wanted = json!({"id": "team", "name": "The team", "settings": {"max_sandboxes": 2, "max_hops": 5,
        "quotas": {"sandbox": {"messages_per_second": 100}}}});
    let made = stage.ask("POST", ALL, &wanted.to_string()).await;
    assert_eq!((made.status, made.header("location")), (201, Some("/api/v1/workspaces/team")), "{made:?}");
    let workspace = made.json();
    assert_eq!((&workspace["state"], &workspace["settings"]["max_sandboxes"]), (&json!("active"), &json!(2)));
    assert_eq!(made.header("etag"), Some(format!("\"{}\"", workspace["revision"]).as_str()));
    let broker = client(&stage);
    let quotas = broker.workspaces().quotas("team").await.unwrap();
    assert_eq!((quotas.max_sandboxes, quotas.sandbox.unwrap().messages_per_second), (2, 100));

    let shown = stage.ask("GET", "/api/v1/workspaces/team", "").await;
    assert_eq!((shown.status, &shown.json()["usage"]["sandbox_count"]), (200, &json!(0)), "{shown:?}");
    let tag = shown.header("etag").unwrap().to_owned();
    let known = stage.as_who(&stage.admin, ("GET", "/api/v1/workspaces/team"), &[("If-None-Match", &tag)], "").await;
    assert_eq!((known.status, known.body.as_str()), (304, ""));

    let patch = json!({"description": "four of them", "settings": {"max_hops": null, "max_sandboxes": 3}}).to_string();
    let lines = [("If-Match", tag.as_str())];
    let what = ("PATCH", "/api/v1/workspaces/team");
    let changed = stage.as_who(&stage.admin, what, &lines, &patch).await;
    assert_eq!((changed.status, &changed.json()["description"]), (200, &json!("four of them")), "{changed:?}");
    assert_eq!(broker.workspaces().quotas("team").await.unwrap().max_sandboxes, 3);
    assert_eq!(broker.workspaces().get("team").await.unwrap().settings.unwrap_or_default().max_hops, 16, "the default");
    refused(&stage.as_who(&stage.admin, what, &lines, &patch).await, 412, "REVISION_CHANGED");
    let replaced = stage.ask("PUT", "/api/v1/workspaces/team", r#"{"name":"Team"}"#).await.json();
    assert_eq!((&replaced["name"], &replaced["description"]), (&json!("Team"), &json!("")));
    assert_eq!(broker.workspaces().quotas("team").await.unwrap().max_sandboxes, 0, "all defaults");

    let key = NewKey {
        subject: "k".into(),
        roles: vec!["developer".into()],
        workspace_id: Some("team".to_owned()),
        ..NewKey::default()
    };
    let (_, secret) = broker.keys().create(key).await.unwrap();
    let waits = stage.ask("DELETE", "/api/v1/workspaces/team", "").await;
    assert_eq!((waits.status, &waits.json()["state"]), (202, &json!("deleting")));
    assert!(waits.json()["delete_time"].is_string());
    refused(&stage.ask("PATCH", "/api/v1/workspaces/team", "{}").await, 409, "BEING_DELETED");
    let back = stage.ask("POST", "/api/v1/workspaces/team/restore", "").await;
    assert_eq!((back.status, &back.json()["state"]), (200, &json!("active")), "{back:?}");
    assert_eq!(stage.as_who(&secret, ("GET", "/api/v1/workspaces/team"), &[], "").await.status, 200);
    let gone = stage.ask("DELETE", "/api/v1/workspaces/team?force=true", "").await;
    assert_eq!((gone.status, gone.body.as_str()), (204, ""), "{gone:?}");
    refused(&stage.ask("GET", "/api/v1/workspaces/team", "").await, 404, "UNKNOWN_WORKSPACE");
    assert_eq!(broker.workspaces().get("team").await.unwrap_err().reason(), "UNKNOWN_WORKSPACE");
    until("the key ends with its workspace", async || stage.as_who(&secret, ("GET", ALL), &[], "").await.status == 401)
        .await;
}

#[tokio::test]
async fn lists_are_paged_sorted_and_narrowed() {
    let stage = Stage::start().await;
    until("the workspace of the broker is taken in", async || stage.ids(&stage.admin, "").await == ["default"]).await;
    for number in 0..7 {
        let wanted = json!({"id": format!("w{number}"), "name": format!("name {}", 9 - number)}).to_string();
        assert_eq!(stage.ask("POST", ALL, &wanted).await.status, 201);
    }
    assert_eq!(stage.ids(&stage.admin, "?name_prefix=name&sort=name&limit=3").await, ["w6", "w5", "w4"]);
    assert_eq!(stage.ids(&stage.admin, "?sort=-create_time&limit=2").await, ["w6", "w5"]);
    assert!(stage.ids(&stage.admin, "?state=failed").await.is_empty());
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = stage.ask("GET", &format!("{ALL}?limit=3&sort=name{cursor}"), "").await.json();
        seen.extend(page["workspaces"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert!(seen.is_sorted() && seen.len() == 8, "{seen:?}");
    refused(&stage.ask("GET", &format!("{ALL}?limit=3&sort=-name{cursor}"), "").await, 400, "INVALID_CURSOR");
    for wrong in ["?limit=0", "?limit=x", "?sort=size", "?nonsense=1"] {
        refused(&stage.ask("GET", &format!("{ALL}{wrong}"), "").await, 400, "INVALID_FIELD");
    }
    // Who is bound to one sees that one.
    let bound = stage.token(&["--role", "developer", "--bind-workspace", "w3"]).await;
    assert_eq!(stage.ids(&bound, "").await, ["w3"]);
    refused(&stage.as_who(&bound, ("GET", "/api/v1/workspaces/w4"), &[], "").await, 403, "OTHER_WORKSPACE");
}

#[tokio::test]
async fn who_may_not_is_told_so() {
    let stage = Stage::start().await;
    let address = stage.control_plane.address();
    refused(&ask(address, ("GET", ALL), &[], "").await, 401, "TOKEN_MISSING");
    assert!(ask(address, ("GET", ALL), &[], "").await.header("www-authenticate").is_some());
    refused(&stage.as_who("nonsense", ("GET", ALL), &[], "").await, 401, "TOKEN_INVALID");
    refused(&ask(address, ("GET", ALL), &[("Authorization", "Basic eA==")], "").await, 400, "INVALID_FIELD");
    for role in ["operator", "developer", "approver", "auditor", "sandbox"] {
        let other = match role {
            "sandbox" => stage.token(&["--role", role, "--bind-workspace", "default", "--bind-sandbox", "a"]).await,
            _ => stage.token(&["--role", role]).await,
        };
        assert_eq!(stage.as_who(&other, ("GET", ALL), &[], "").await.status, 200, "{role}");
        let refusal = stage.as_who(&other, ("POST", ALL), &[], r#"{"name":"x"}"#).await;
        refused(&refusal, 403, "ROLE_MISSING");
    }
    let bound = stage.token(&["--role", "admin", "--bind-workspace", "default"]).await;
    refused(&stage.as_who(&bound, ("POST", ALL), &[], r#"{"name":"x"}"#).await, 403, "OTHER_WORKSPACE");
    // What the broker lets only those change who are bound to none is not done for him later, either.
    until("it is taken in", async || stage.ids(&stage.admin, "").await == ["default"]).await;
    for what in [("PATCH", "/api/v1/workspaces/default"), ("DELETE", "/api/v1/workspaces/default?force=true")] {
        let patch = r#"{"settings":{"quotas":{"max_streams":1}}}"#;
        refused(&stage.as_who(&bound, what, &[], patch).await, 403, "OTHER_WORKSPACE");
    }
    assert_eq!(stage.ask("GET", "/api/v1/workspaces/default", "").await.json()["state"], "active");
    assert_eq!(get(address, "/health").await.status, 200);
    assert_eq!(get(address, "/ready").await.status, 200);
    let metrics = get(address, "/metrics").await.body;
    assert!(
        metrics.contains(r#"http_requests_total{method="POST",path="/api/v1/workspaces",status="403"} "#),
        "{metrics}"
    );
    assert_eq!(get(address, "/docs/").await.status, 200);
    let description = get(address, "/api/v1/openapi.json").await.json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"), "{description}");
    refused(&get(address, "/api/v1/nothing").await, 404, "UNKNOWN_PATH");
    let wrong = stage.ask("TRACE", ALL, "").await;
    refused(&wrong, 405, "METHOD_NOT_ALLOWED");
    assert!(wrong.header("allow").is_some());
}

#[tokio::test]
async fn what_is_wrong_is_said_and_leaves_nothing() {
    let stage = Stage::with(|config| config.limits.max_body_bytes = 100_000).await;
    let field = |answer: &tandem_tests::Answer, status, name: &str| {
        let problem = refused(answer, status, "INVALID_FIELD");
        assert_eq!(problem["errors"][0]["field"], name, "{problem}");
    };
    for (body, name) in [
        (r#"{"name":""}"#, "name"),
        (r#"{"name":7}"#, "name"),
        (r#"{"name":"a","id":"../b"}"#, "id"),
        (r#"{"name":"a","nonsense":1}"#, "nonsense"),
        (r#"{"name":"a","settings":{"max_sandboxes":0}}"#, "settings.max_sandboxes"),
        (
            r#"{"name":"a","settings":{"network":{"allowed_hosts":["169.254.169.254:80"]}}}"#,
            "settings.network.allowed_hosts",
        ),
        (
            r#"{"name":"a","settings":{"quotas":{"caller":{"bytes_per_second":-1}}}}"#,
            "settings.quotas.caller.bytes_per_second",
        ),
    ] {
        field(&stage.ask("POST", ALL, body).await, 400, name);
    }
    for body in ["", "{", r#"{"name":"a"}}"#, "\u{1}", r#"{"name":"a"} x"#] {
        refused(&stage.ask("POST", ALL, body).await, 400, "MALFORMED_REQUEST");
    }
    let text = [("Content-Type", "text/plain")];
    let address = stage.control_plane.address();
    let bearer = format!("Bearer {}", stage.admin);
    let plain = ask(address, ("POST", ALL), &[text[0], ("Authorization", &bearer)], r#"{"name":"a"}"#).await;
    refused(&plain, 415, "UNSUPPORTED_MEDIA_TYPE");
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(200_000));
    refused(&stage.ask("POST", ALL, &large).await, 413, "BODY_TOO_LARGE");
    // Said to be 100 MB, and never sent.
    let lie = [JSON, ("Authorization", bearer.as_str()), ("Content-Length", "100000000")];
    refused(&ask(address, ("POST", ALL), &lie, "").await, 413, "BODY_TOO_LARGE");
    for id in ["%00", "..%2F..", "no%20such", "%F0%9F%98%80"] {
        refused(&stage.ask("GET", &format!("{ALL}/{id}"), "").await, 404, "UNKNOWN_WORKSPACE");
    }
    assert_eq!(stage.ask("POST", ALL, r#"{"id":"a","name":"A"}"#).await.status, 201);
    refused(&stage.ask("POST", ALL, r#"{"id":"a","name":"B"}"#).await, 409, "WORKSPACE_EXISTS");
    refused(&stage.ask("POST", ALL, r#"{"id":"b","name":"A"}"#).await, 409, "NAME_TAKEN");
    let other = stage.ask("POST", ALL, r#"{"id":"b","name":"B"}"#).await;
    assert_eq!(other.status, 201, "a name that was taken keeps no id: {other:?}");
    refused(&stage.ask("PATCH", &format!("{ALL}/b"), r#"{"name":"A"}"#).await, 409, "NAME_TAKEN");
    let what = ("PUT", "/api/v1/workspaces/b");
    field(&stage.as_who(&stage.admin, what, &[("If-Match", "7")], r#"{"name":"B"}"#).await, 400, "If-Match");
    // The broker has it already, and this control plane did not know.
    let own = tandem_client::WorkspaceSettings { max_hops: 3, ..Default::default() };
    client(&stage).workspaces().create_with("there", own).await.unwrap();
    let there = stage.ask("POST", ALL, r#"{"id":"there","name":"There","settings":{"max_hops":9}}"#).await;
    refused(&there, 409, "WORKSPACE_EXISTS");
    let kept = client(&stage).workspaces().get("there").await.unwrap();
    assert_eq!(kept.settings.unwrap().max_hops, 3, "nobody overwrites what is there");
    until("it is taken in", async || stage.ids(&stage.admin, "").await.contains(&"there".to_owned())).await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_does_nothing() {
    let stage = Stage::start().await;
    let key = [("Idempotency-Key", "k1")];
    let body = r#"{"name":"once"}"#;
    let first = stage.as_who(&stage.admin, ("POST", ALL), &key, body).await;
    let again = stage.as_who(&stage.admin, ("POST", ALL), &key, body).await;
    assert_eq!((first.status, again.status, &first.body), (201, 201, &again.body));
    assert_eq!(
        (again.header("idempotent-replayed"), again.header("location")),
        (Some("true"), first.header("location"))
    );
    refused(
        &stage.as_who(&stage.admin, ("POST", ALL), &key, r#"{"name":"twice"}"#).await,
        422,
        "IDEMPOTENCY_KEY_REUSED",
    );
    let long = "k".repeat(129);
    refused(
        &stage.as_who(&stage.admin, ("POST", ALL), &[("Idempotency-Key", &long)], body).await,
        400,
        "INVALID_FIELD",
    );
    // Who is called the same and is bound elsewhere is somebody else.
    let namesake = stage.token(&["--role", "admin", "--bind-workspace", "default"]).await;
    refused(&stage.as_who(&namesake, ("POST", ALL), &key, body).await, 403, "OTHER_WORKSPACE");
    assert_eq!(stage.as_who(&stage.admin, ("POST", ALL), &key, body).await.body, first.body);
    // Many at once: one makes it, and all others hear the same or that it is under way.
    let key = [("Idempotency-Key", "k2")];
    let many = (0..20).map(|_| stage.as_who(&stage.admin, ("POST", ALL), &key, r#"{"name":"race"}"#));
    for answer in futures_util::future::join_all(many).await {
        if answer.status == 201 {
            assert_eq!(answer.json()["name"], "race");
        } else {
            refused(&answer, 409, "IDEMPOTENCY_KEY_IN_USE");
        }
    }
    let made = stage.ids(&stage.admin, "?name_prefix=race").await;
    assert_eq!(made.len(), 1);
}

#[tokio::test]
async fn no_change_is_lost_among_many() {
    let stage = Stage::start().await;
    assert_eq!(stage.ask("POST", ALL, r#"{"id":"a","name":"A","settings":{"max_hops":1}}"#).await.status, 201);
    let add = async || {
        loop {
            let seen = stage.ask("GET", "/api/v1/workspaces/a", "").await;
            let next = seen.json()["settings"]["max_hops"].as_u64().unwrap() + 1;
            let patch = json!({"settings": {"max_hops": next}}).to_string();
            let tag = [("If-Match", seen.header("etag").unwrap())];
            let changed = stage.as_who(&stage.admin, ("PATCH", "/api/v1/workspaces/a"), &tag, &patch).await;
            match changed.status {
                200 => return,
                409 | 412 => tokio::time::sleep(Duration::from_millis(5)).await,
                _ => panic!("{changed:?}"),
            }
        }
    };
    futures_util::future::join_all((0..10).map(|_| add())).await;
    let last = stage.ask("GET", "/api/v1/workspaces/a", "").await.json();
    assert_eq!((&last["settings"]["max_hops"], &last["state"]), (&json!(11), &json!("active")));
    let at_broker = client(&stage).workspaces().get("a").await.unwrap();
    assert_eq!(at_broker.settings.unwrap().max_hops, 11);
}

#[tokio::test]
async fn a_broker_that_is_down_is_said_and_what_was_begun_is_ended_later() {
    let mut stage = Stage::start().await;
    assert_eq!(stage.ask("POST", ALL, r#"{"id":"a","name":"A"}"#).await.status, 201);
    let settings = stage.home.config();
    let broker = stage.broker.take().unwrap();
    let address = broker.grpc_address();
    broker.kill_nine();
    let down = stage.ask("POST", ALL, r#"{"id":"b","name":"B"}"#).await;
    refused(&down, 503, "BROKER_UNAVAILABLE");
    assert!(down.header("retry-after").is_some());
    let ready = get(stage.control_plane.address(), "/ready").await;
    assert_eq!((ready.status, ready.body.contains("broker")), (503, true));
    assert_eq!(get(stage.control_plane.address(), "/health").await.status, 200);
    let mut config = settings;
    config.auth.open = false;
    config.auth.keys = vec![format!("k1=HS256:{}", stage.home.path().join("key").display())];
    config.listen = address;
    stage.broker = Some(BrokerProcess::start(&stage.home, &config).await);
    until("it is there again", async || stage.ask("GET", ALL, "").await.status == 200).await;
    assert!(!stage.ids(&stage.admin, "").await.contains(&"b".to_owned()), "nothing half-made stays behind");
    let made = stage.ask("POST", ALL, r#"{"id":"b","name":"B"}"#).await;
    assert_eq!(made.status, 201, "{made:?}");
}

#[tokio::test]
async fn a_deletion_is_ended_by_whoever_comes_next() {
    let home = Home::new();
    let broker = broker(&home).await;
    let admin = token(&home, &["--role", "admin"]).await;
    fs::write(home.path().join("token"), &admin).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    fs::write(home.path().join("settings"), "deletion_grace_s = 10").unwrap();
    let mut command = control_plane_command();
    command.args(["--listen", &port.to_string(), "--database-url", &database(home.path())]);
    command.args(["--broker", &format!("http://{}", broker.grpc_address()), "--token-file"]);
    command.arg(home.path().join("token")).arg("--config").arg(home.path().join("settings"));
    let mut running = command.stderr(Stdio::null()).spawn().unwrap();
    let bearer = format!("Bearer {admin}");
    let lines = [JSON, ("Authorization", bearer.as_str())];
    until("it listens", async || tokio::net::TcpStream::connect(port).await.is_ok()).await;
    for number in 0..5 {
        let wanted = json!({"id": format!("w{number}"), "name": format!("w{number}")}).to_string();
        assert_eq!(ask(port, ("POST", ALL), &lines, wanted).await.status, 201);
    }
    for number in 0..5 {
        assert_eq!(ask(port, ("DELETE", &format!("{ALL}/w{number}")), &lines, "").await.status, 202);
    }
    running.kill().unwrap();
    running.wait().unwrap();
    // What waits is overdue in a while, and one of two that share the database does it.
    let config = config(&home, broker.grpc_address());
    let stage = Stage {
        control_plane: tandem_control_plane::ControlPlane::start(config.clone()).await.unwrap(),
        home,
        broker: Some(broker),
        admin,
    };
    let other = tandem_control_plane::ControlPlane::start(config).await.unwrap();
    let too_late = async || stage.ask("POST", "/api/v1/workspaces/w0/restore", "").await.status != 200;
    assert!(!too_late().await, "its grace is not over");
    assert_eq!(stage.ask("DELETE", "/api/v1/workspaces/w0?force=true", "").await.status, 204);
    until("all are gone", async || stage.ids(&stage.admin, "").await == ["default"]).await;
    let at_broker =
        futures_util::TryStreamExt::try_collect::<Vec<_>>(client(&stage).workspaces().list()).await.unwrap();
    assert_eq!(at_broker.len(), 1, "{at_broker:?}");
    other.shutdown().await;
}

#[tokio::test]
async fn who_says_nothing_makes_room_for_others() {
    let stage = Stage::with(|config| {
        (config.limits.max_connections, config.limits.idle_timeout_ms) = (2, 500);
    })
    .await;
    let address = stage.control_plane.address();
    let mut silent = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut half = tokio::net::TcpStream::connect(address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut half, b"GET /health HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    // As many are open as there may be: this one waits until one of them has been silent for too long.
    let answer = tokio::time::timeout(Duration::from_secs(5), get(address, "/health")).await.unwrap();
    assert_eq!(answer.status, 200);
    for stream in [&mut silent, &mut half] {
        let mut said = Vec::new();
        let ended = tokio::io::AsyncReadExt::read_to_end(stream, &mut said);
        tokio::time::timeout(Duration::from_secs(5), ended).await.unwrap().ok();
    }
}
