//! Line 15: `tandem sub` and `tandem nack`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tandem_tests::now;

use crate::desk::{Desk, column};

/// A reader in the background, stopped as a whole process: it lives, and does nothing. Its output stays open, or it would
/// end before it is stopped.
struct Frozen {
    child: Child,
    _output: BufReader<ChildStdout>,
}

impl Frozen {
    /// Freezes the reader once it has printed its first message.
    fn after_first_line(mut command: Command) -> (Self, Value) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let stopped = Command::new("sh").args(["-c", "kill -STOP \"$0\"", &child.id().to_string()]).status();
        assert!(stopped.unwrap().success());
        (Self { child, _output: output }, serde_json::from_str(&line).unwrap())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[tokio::test]
async fn line_15_sub_prints_and_acknowledges_or_leaves() {
    let desk = Desk::with(&["alice", "bob"]).await;
    for content in ["one", "two", "three"] {
        desk.publish(&["--from", "alice", "--to", "bob", content]).await;
    }
    let kept = desk.json(&["sub", "bob", "--count", "2", "--no-ack"]).await;
    assert_eq!(column(&kept, "/content"), ["one", "two"]);
    let taken = desk.json(&["sub", "bob", "--count", "2"]).await;
    assert_eq!(
        (column(&taken, "/content"), column(&taken, "/attempt")),
        (vec![&json!("one"), &json!("two")], vec![&json!(1); 2])
    );
    let text = desk.text(&["sub", "bob", "--count", "1", "--quiet"]).await;
    assert!(text.contains("notification alice -> bob") && text.contains("\n    three\n"), "{text}");
    assert_eq!(desk.one(&["sandbox", "show", "bob"]).await["pending_messages"], 0);
    // Nothing more comes: not reached is told by the exit code.
    let says = ["0 of 1 messages came", "200ms"];
    desk.refused(&["sub", "bob", "--count", "1", "--timeout", "200ms"], 5, "TIMEOUT", &says).await;
    desk.refused(&["sub", "nobody"], 3, "UNKNOWN_SANDBOX", &["\"nobody\"", "tandem sandbox register"]).await;
}

/// The wait is a promise to the broker: a reader that hangs for longer loses the message, one within it does not.
#[tokio::test]
async fn line_15_sub_ack_wait_is_how_long_a_hanging_reader_holds_a_message() {
    let desk = Desk::with(&["alice", "quick", "slow"]).await;
    for sandbox in ["quick", "slow"] {
        desk.publish(&["--from", "alice", "--to", sandbox, "work"]).await;
    }
    let freeze = |sandbox: &str, wait: &str| {
        Frozen::after_first_line(desk.command(&["sub", sandbox, "--no-ack", "--json", "--ack-wait", wait]))
    };
    let began = now();
    let (frozen, quick) = freeze("quick", "1s");
    let (_slow, slow) = freeze("slow", "10m");
    assert_eq!((&quick["attempt"], &slow["attempt"]), (&json!(1), &json!(1)));
    // Its lease has lapsed when the message waits for its next attempt.
    while desk.one(&["sandbox", "show", "quick"]).await["deferred_messages"] == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "the broker waits for a reader that hangs");
    }
    drop(frozen);
    let refuse = ["nack", "quick", "--timeout", "20s", "--dead-letter"];
    let again = desk.one(&refuse).await;
    assert_eq!(again["sequence"], quick["sequence"]);
    let letter = desk.one(&["dlq", "show", "quick", &quick["sequence"].to_string()]).await;
    assert_eq!((&letter["attempts"][0]["attempt"], &letter["attempts"][0]["error"]), (&json!(1), &json!("lapsed")));
    let says = ["0 of 1 messages came"];
    desk.refused(&["sub", "slow", "--count", "1", "--timeout", "100ms"], 5, "TIMEOUT", &says).await;
    let says = ["ack_deadline is 100 ms", "1 s to 24 h"];
    desk.refused(&["sub", "slow", "--ack-wait", "100ms"], 4, "INVALID_FIELD", &says).await;
    desk.refused(&["sub", "slow", "--ack-wait", "soon"], 2, "USAGE", &["soon", "--ack-wait"]).await;
}

#[tokio::test]
async fn line_15_nack_refuses_with_a_reason_for_later_or_for_good() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let sequence = desk.publish(&["--from", "alice", "--to", "bob", "work"]).await;
    let refused = desk.one(&["nack", "bob", "--delay", "300ms", "--reason", "busy"]).await;
    assert_eq!((refused["sequence"].as_u64(), refused["attempt"].as_u64()), (Some(sequence), Some(1)));
    let again = desk.run(&["nack", "bob", "--dead-letter", "--reason", "not mine", "--timeout", "10s"]).await;
    assert_eq!(again.code, Some(0), "{again:#?}");
    assert!(again.stderr.contains("to be tried again: 0; dead letters: 1"), "{again:#?}");
    let letter = desk.one(&["dlq", "show", "bob", &sequence.to_string()]).await;
    assert_eq!((&letter["reason"], &letter["reason_text"]), (&json!("rejected"), &json!("not mine")));
    let attempts = letter["attempts"].as_array().unwrap();
    assert_eq!(column(attempts, "/text"), ["busy", "not mine"]);
    assert_eq!(column(attempts, "/error"), ["nacked", "nacked"]);

    desk.refused(&["nack", "bob", "--dead-letter", "--delay", "1s"], 2, "USAGE", &["--dead-letter", "--delay"]).await;
    desk.publish(&["--from", "alice", "--to", "bob", "more"]).await;
    let exit = desk.run(&["nack", "bob", "--delay", "25h", "--json"]).await;
    assert_eq!(exit.code, Some(4), "{exit:#?}");
    assert!(exit.stderr.contains("nack.delay is 25 h") && exit.stderr.contains("24 h"), "{exit:#?}");
}
