//! The command as a user runs it, where no broker is needed.

use std::{
    io::Write as _,
    net::TcpListener,
    process::{Command, Output},
};

fn tandem(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.env_remove("TANDEM_SERVER").env_remove("TANDEM_WORKSPACE").args(arguments);
    command.output().expect("the command runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A port of this machine on which nobody listens.
fn closed_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("http://{}", listener.local_addr().expect("an address"))
}

#[test]
fn help_lists_the_exit_codes() {
    let output = tandem(&["--help"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0));
    for line in ["1  the operation or a check failed", "5  the broker is unavailable", "6  a limit is reached"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn without_a_broker_every_command_says_so() {
    let server = closed_port();
    let commands: [&[&str]; 28] = [
        &["cluster", "status"],
        &["cluster", "add", "4", "--peer", "10.0.0.4:7001"],
        &["cluster", "transfer", "--shard", "0", "--to", "2"],
        &["cluster", "drain", "2"],
        &["info"],
        &["workspace", "list"],
        &["sandbox", "register", "alice", "--agent", "planner:lead:plan"],
        &["agents", "--role", "lead"],
        &["pub", "--from", "alice", "--to", "bob", "hello"],
        &["sub", "bob", "--count", "1"],
        &["get", "seq-1"],
        &["history", "--since", "10m"],
        &["history", "--follow", "--type", "request"],
        &["replay-range", "bob", "--from-sequence", "1", "--to-sequence", "9", "--sandbox", "alice"],
        &["pub", "--from", "a", "--topic", "build.done", "--ttl", "1h", "--delay", "5s", "--key", "k", "hello"],
        &["pub", "--from", "a", "--capability", "review", "--all-capable", "--dead-letter-on-expiry", "hello"],
        &["sub", "bob", "--ack-wait", "10m", "--lenient", "--low-priority-percent", "20"],
        &["nack", "bob", "--delay", "5s", "--reason", "busy"],
        &["nack", "bob", "--count", "3", "--dead-letter"],
        &["request", "--from", "a", "--to", "b", "--timeout", "1s", "hello"],
        &["topic", "follow", "bob", "build.>", "--since", "10m"],
        &["topic", "list"],
        &["dlq", "list", "--reason", "rejected", "--since", "1h"],
        &["dlq", "show", "bob", "7"],
        &["dlq", "redrive", "--sandbox", "bob", "--sequence", "7", "--to", "carol", "--rate", "100"],
        &["dlq", "purge", "--all"],
        &["events", "--from-event", "3", "--type", "inbox-full"],
        &["bench", "publish", "--messages", "1"],
    ];
    for command in commands {
        let output = tandem(&[&["--server", &server], command].concat());
        assert_eq!(output.status.code(), Some(5), "{command:?}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.starts_with(&format!("error: cannot connect to {server}: ")), "{command:?}: {text}");
        assert!(text.contains("\ncode: UNREACHABLE\n"), "{text}");
        assert!(text.ends_with("next: is the broker running? try: tandem dev\n"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn errors_are_json_when_asked() {
    let output = tandem(&["--server", &closed_port(), "info", "--json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!((error["code"].as_str(), error["exit_code"].as_u64()), (Some("UNREACHABLE"), Some(5)));
    assert_eq!(error["next"].as_str(), Some("is the broker running? try: tandem dev"));

    let output = tandem(&["history", "--limit", "many", "--json"]);
    let error: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!((error["code"].as_str(), output.status.code()), (Some("USAGE"), Some(2)));
}

#[test]
fn wrong_use_has_its_exit_code() {
    let wrong: [&[&str]; 28] = [
        &[],
        &["dance"],
        &["pub", "--from", "a", "hello"],
        &["pub", "--from", "a", "--to", "b"],
        &["pub", "--from", "a", "--to", "b", "--broadcast", "hello"],
        &["pub", "--from", "a", "--to", "b", "--metadata", "novalue", "hello"],
        &["pub", "--from", "a", "--to", "b", "--type", "gossip", "hello"],
        &["history", "--since", "yesterday"],
        &["history", "--follow", "--reverse"],
        &["pub", "--from", "a", "--to", "b", "--all-capable", "hello"],
        &["pub", "--from", "a", "--capability", "x", "--all-capable", "--wait-for-capable", "hello"],
        &["pub", "--from", "a", "--to", "b", "--delay", "5s", "--not-before", "2026-01-31T12:00:00Z", "hello"],
        &["pub", "--from", "a", "--to", "b", "--not-before", "10m", "hello"],
        &["sub", "bob", "--low-priority-percent", "51"],
        &["nack", "bob", "--dead-letter", "--delay", "5s"],
        &["request", "--from", "a", "hello"],
        &["replay-range", "bob", "--from-sequence", "1"],
        &["replay-range", "bob", "--from-sequence", "9", "--to-sequence", "1"],
        &["topic", "follow", "bob"],
        &["dlq", "purge"],
        &["dlq", "redrive", "--sandbox", "bob", "--all"],
        &["dlq", "list", "--sequence", "7"],
        &["events", "--from-event", "0"],
        &["bench", "inbox", "--size", "8"],
        &["bench", "publish", "--subscribers", "3"],
        &["bench", "publish", "--backlog-ttl", "3"],
        &["bench", "broadcast", "--keys", "5"],
        &["--server", "127.0.0.1:8001", "info"],
    ];
    for command in wrong {
        let output = tandem(command);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {}", stderr(&output));
    }
}

#[test]
fn a_bad_conversation_file_is_refused_with_its_line() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let good = r#"{"session":"s","turn":0,"from_agent":"a","to_agent":"*","message_type":"request","content":"x"}"#;
    writeln!(file, "{good}\nnot json").expect("it is written");
    let path = file.path().to_str().expect("a path").to_owned();
    let output = tandem(&["replay", &path]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: line 2: expected ident"), "{}", stderr(&output));

    let output = tandem(&["replay", "/no/such/file"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("code: FILE_UNREADABLE"), "{}", stderr(&output));
}

#[test]
fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = tandem(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(script.contains("replay") && script.contains("workspace"), "{shell}");
    }
}
