//! Line 15: `tandem history` and `tandem replay-range`.

use serde_json::json;

use crate::desk::{Desk, column};

async fn write_log(desk: &Desk) {
    let log: [&[&str]; 5] = [
        &[
            "--from",
            "alice",
            "--to",
            "bob",
            "--type",
            "request",
            "--correlation-id",
            "t-1",
            "--from-agent",
            "planner",
            "1",
        ],
        &[
            "--from",
            "bob",
            "--to",
            "alice",
            "--type",
            "response",
            "--correlation-id",
            "t-1",
            "--to-agent",
            "planner",
            "2",
        ],
        &["--from", "alice", "--broadcast", "3"],
        &["--from", "carol", "--to", "bob", "--type", "command", "--correlation-id", "t-2", "4"],
        &["--from", "carol", "--to", "alice", "5"],
    ];
    for message in log {
        desk.publish(message).await;
    }
}

#[tokio::test]
async fn line_15_history_filters_and_follows() {
    let desk = Desk::with(&["alice", "bob", "carol"]).await;
    write_log(&desk).await;
    let log = desk.json(&["history"]).await;
    let times: Vec<&str> = log.iter().map(|message| message["server_time"].as_str().unwrap()).collect();
    let cases: [(&[&str], &[u64]); 11] = [
        (&[], &[1, 2, 3, 4, 5]),
        (&["--reverse", "--limit", "2"], &[5, 4]),
        (&["--from-sequence", "2", "--to-sequence", "4"], &[2, 3, 4]),
        (&["--since", times[1], "--until", times[4]], &[2, 3, 4]),
        (&["--since", "1h"], &[1, 2, 3, 4, 5]),
        (&["--until", "1h"], &[]),
        (&["--sandbox", "carol"], &[4, 5]),
        (&["--agent", "planner"], &[1, 2]),
        (&["--correlation-id", "t-1"], &[1, 2]),
        (&["--type", "command"], &[4]),
        (&["--follow", "--type", "notification", "--limit", "2"], &[3, 5]),
    ];
    for (filter, expected) in cases {
        let found = desk.json(&[&["history"], filter].concat()).await;
        assert_eq!(column(&found, "/sequence"), expected, "{filter:?}");
    }
    let (some, all) = (desk.run(&["history", "--limit", "4"]).await, desk.run(&["history", "--limit", "5"]).await);
    assert_eq!((some.stderr.as_str(), all.stderr.as_str()), ("more are there: --limit 0 for all\n", ""));
    // What is committed while somebody follows.
    let (live, _) = tokio::join!(
        desk.json(&["history", "--follow", "--from-sequence", "5", "--limit", "2"]),
        desk.publish(&["--from", "alice", "--to", "bob", "6"]),
    );
    assert_eq!(column(&live, "/content"), ["5", "6"]);
    assert_eq!(desk.one(&["sandbox", "show", "carol"]).await["pending_messages"], 1, "reading takes nothing away");
    desk.refused(&["history", "--since", "yesterday"], 2, "USAGE", &["yesterday", "10m for ten minutes ago"]).await;
    desk.refused(&["history", "--follow", "--to-sequence", "3"], 2, "USAGE", &["--to-sequence"]).await;
    desk.refused(&["history", "--workspace", "nowhere"], 3, "UNKNOWN_WORKSPACE", &["tandem workspace create"]).await;
}

#[tokio::test]
async fn line_15_replay_range_puts_messages_into_an_inbox_once_more() {
    let desk = Desk::with(&["alice", "bob", "carol", "reader"]).await;
    write_log(&desk).await;
    let replayed = desk.one(&["replay-range", "reader", "--from-sequence", "1", "--to-sequence", "2"]).await;
    assert_eq!(replayed, json!({ "sandbox_id": "reader", "from_sequence": 1, "to_sequence": 2, "replayed": 2 }));
    assert_eq!(
        desk.one(&["replay-range", "reader", "--from-sequence", "1", "--to-sequence", "2"]).await["replayed"],
        0
    );
    // The broadcast waits for the reader anyhow.
    let filtered = [
        "replay-range",
        "reader",
        "--from-sequence",
        "1",
        "--to-sequence",
        "5",
        "--sandbox",
        "carol",
        "--type",
        "command",
    ];
    assert_eq!(desk.one(&filtered).await["replayed"], 1);
    let mut seen: Vec<u64> = desk
        .json(&["sub", "reader", "--count", "4"])
        .await
        .iter()
        .map(|message| message["sequence"].as_u64().unwrap())
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4]);
    let text = desk.text(&["replay-range", "reader", "--from-sequence", "3", "--to-sequence", "5"]).await;
    assert_eq!(text, "3 messages of #3 to #5 put into the inbox of reader\n");
    assert_eq!(desk.one(&["sandbox", "show", "bob"]).await["pending_messages"], 3);

    let backwards = ["replay-range", "reader", "--from-sequence", "5", "--to-sequence", "1"];
    desk.refused(&backwards, 2, "USAGE", &["--from-sequence 5 is behind --to-sequence 1"]).await;
    let nobody = ["replay-range", "nobody", "--from-sequence", "1", "--to-sequence", "5"];
    desk.refused(&nobody, 3, "UNKNOWN_SANDBOX", &["\"nobody\"", "tandem sandbox register"]).await;
}
