//! Contexts, and what looks at all of a broker: `tandem context`, `doctor`, `top`, `man`, `--output`, `--watch`.

use std::{fs, process::Output, time::Duration};

use serde_json::{Value, json};
use tandem_tests::tandem_command;

use crate::desk::Desk;

/// A user with a folder for settings.
struct User(tempfile::TempDir);

impl User {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
        let mut command = tandem_command();
        command.env("TANDEM_CONTEXTS", self.0.path().join("contexts.toml")).args(arguments);
        command.envs(environment.iter().copied()).output().unwrap()
    }

    fn rows(&self, environment: &[(&str, &str)], arguments: &[&str]) -> Vec<Value> {
        let done = self.run(environment, &[&["--json"], arguments].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let done = self.run(&[], &[&["--json"], arguments].concat());
        let error: Value = serde_json::from_slice(&done.stderr).unwrap();
        error["code"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_context_says_where_and_who_unless_somebody_says_otherwise() {
    let desk = Desk::with(&["alice"]).await;
    let user = User::new();
    let server = desk.server();
    assert_eq!(user.refused(&["context", "use", "here"]), "UNKNOWN_CONTEXT");
    assert_eq!(user.refused(&["context", "add", "here"]), "USAGE");
    for format in [&["--output", "json"][..], &["--output=json"]] {
        let done = user.run(&[], &[format, &["context", "add"]].concat());
        let error: Value = serde_json::from_slice(&done.stderr).unwrap();
        assert_eq!(error["code"], "USAGE");
    }
    user.rows(&[], &["context", "add", "here", "--server", &server]);
    user.rows(&[], &["context", "add", "away", "--server", "http://127.0.0.1:9", "--workspace", "shop"]);
    assert_eq!(user.refused(&["context", "add", "away", "--server", &server]), "CONTEXT_EXISTS");
    // The first one is used, and no address is given.
    let names: Vec<_> =
        user.rows(&[], &["context", "list"]).iter().map(|row| (row["name"].clone(), row["current"].clone())).collect();
    assert_eq!(names, [(json!("away"), json!(false)), (json!("here"), json!(true))]);
    assert_eq!(user.rows(&[], &["sandbox", "list"])[0]["sandbox_id"], "alice");
    assert!(!user.run(&[], &["--context", "away", "info"]).status.success());
    assert!(user.run(&[("TANDEM_SERVER", &server)], &["--context", "away", "info"]).status.success());
    user.rows(&[], &["context", "use", "away"]);
    let shown = user.rows(&[("TANDEM_WORKSPACE", "lab")], &["context", "show", "--server", "http://b:1"]);
    let of = |setting: &str| {
        let row = shown.iter().find(|row| row["setting"] == setting).unwrap();
        (row["value"].as_str().unwrap().to_owned(), row["from"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("server"), ("http://b:1".to_owned(), "command or environment".to_owned()));
    assert_eq!(of("workspace"), ("lab".to_owned(), "command or environment".to_owned()));
    assert_eq!(of("control_plane"), ("http://127.0.0.1:8000".to_owned(), "built in".to_owned()));
    assert_eq!(of("token_file"), (String::new(), "built in".to_owned()));
    user.rows(&[], &["context", "remove", "away"]);
    assert_eq!(user.refused(&["--context", "away", "info"]), "UNKNOWN_CONTEXT");
    // What cannot be read is in nobody's way who names no context.
    fs::write(user.0.path().join("contexts.toml"), "[[[").unwrap();
    assert_eq!(user.refused(&["--context", "here", "info"]), "CONTEXTS_UNREADABLE");
    assert!(user.run(&[], &["--server", &server, "info"]).status.success());
}

#[tokio::test]
async fn a_doctor_finds_what_is_wrong_and_says_what_to_do() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let user = User::new();
    let server = desk.server();
    let verdicts = |rows: &[Value]| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rows.iter().map(|row| (text(&row["check"]), text(&row["verdict"]))).collect()
    };
    let here = ["--server", &server, "--control-plane", "http://127.0.0.1:9"];
    let well = user.rows(&[], &[&here[..], &["doctor"]].concat());
    let expected = ["settings", "broker", "nodes", "shards", "caller", "workspace"]
        .map(|check| (check.to_owned(), "ok".to_owned()));
    assert_eq!(verdicts(&well)[..6], expected, "{well:?}");
    // Not everybody has one.
    assert_eq!(verdicts(&well)[6], ("control plane".to_owned(), "look".to_owned()));
    desk.publish(&["--from", "alice", "--to", "bob", "x"]).await;
    desk.json(&["nack", "bob", "--dead-letter", "--reason", "no"]).await;
    let dead = user.rows(&[], &[&here[..], &["doctor"]].concat());
    assert_eq!((&dead[5]["verdict"], &dead[5]["next"]), (&json!("look"), &json!("tandem dlq list")), "{dead:?}");

    for (arguments, check) in [
        (["--server", "http://127.0.0.1:9"], "broker"),
        (["--workspace", "nowhere"], "workspace"),
        (["--token-file", "/nonexistent/token"], "settings"),
    ] {
        let done = user.run(&[("TANDEM_SERVER", &server)], &[&["--json"][..], &arguments, &["doctor"]].concat());
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        let told = String::from_utf8(done.stdout).unwrap();
        let rows: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found = rows.iter().find(|row| row["check"] == check).unwrap();
        assert!(found["verdict"] == "wrong" && found["next"] != "", "{found}");
    }
}

#[tokio::test]
async fn top_shows_rates_and_where_most_waits() {
    let desk = Desk::with(&["alice", "bob", "carol"]).await;
    let user = User::new();
    let server = desk.server();
    for _ in 0..3 {
        desk.publish(&["--from", "alice", "--to", "carol", "x"]).await;
    }
    let looks = user.rows(&[], &["--server", &server, "top", "--count", "2", "--interval", "300ms", "--rows", "2"]);
    assert_eq!(looks.len(), 2);
    assert!(
        looks[0]["shards"][0]["commands_per_second"].is_null()
            && looks[1]["shards"][0]["commands_per_second"].is_number()
    );
    let sandboxes = looks[1]["sandboxes"].as_array().unwrap();
    assert_eq!(
        (sandboxes.len(), &sandboxes[0]["sandbox_id"], &sandboxes[0]["pending_messages"]),
        (2, &json!("carol"), &json!(3))
    );
    let text = user.run(&[], &["--server", &server, "top"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("COMMANDS/S") && text.contains("3 messages wait") && !text.contains('\u{1b}'), "{text}");
}

#[tokio::test]
async fn what_only_looks_can_be_watched_and_printed_as_one_likes() {
    let desk = Desk::with(&["alice"]).await;
    let user = User::new();
    let server = desk.server();
    let as_json = user.run(&[], &["--server", &server, "--output", "json", "sandbox", "list"]);
    let row: Value = serde_json::from_slice(&as_json.stdout).unwrap();
    assert_eq!(row["sandbox_id"], "alice");
    assert_eq!(user.refused(&["--server", &server, "--watch", "sandbox", "unregister", "alice"]), "USAGE");
    assert_eq!(user.refused(&["--server", &server, "--watch=1ms", "sandbox", "list"]), "USAGE");
    let mut command = tandem_command();
    command.args(["--server", &server, "--json", "--watch=200ms", "sandbox", "list"]);
    let mut watching = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    watching.kill().unwrap();
    let said = String::from_utf8(watching.wait_with_output().unwrap().stdout).unwrap();
    assert!(said.lines().count() >= 3, "{said}");

    let dir = user.0.path().join("man");
    assert!(user.run(&[], &["man", "--dir", dir.to_str().unwrap()]).status.success());
    let page = fs::read_to_string(dir.join("tandem-dlq-redrive.1")).unwrap();
    assert!(page.starts_with(".ie") && page.contains("redrive"), "{page}");
    assert!(String::from_utf8(user.run(&[], &["man"]).stdout).unwrap().contains(".TH tandem"));
}
