//! Line 15: `tandem dlq list|show|redrive|purge`.

use serde_json::json;

use crate::desk::{Desk, column};

/// Dead letters of many kinds: rejected ones of bob and carol, and one that expired.
async fn bury(desk: &Desk) -> [u64; 4] {
    let request = ["--from", "alice", "--to", "bob", "--type", "request", "--correlation-id", "c-1", "first"];
    let sequences = [
        desk.publish(&request).await,
        desk.publish(&["--from", "dave", "--to", "bob", "second"]).await,
        desk.publish(&["--from", "alice", "--to", "carol", "third"]).await,
        desk.publish(&["--from", "alice", "--to", "dave", "--ttl", "1s", "--dead-letter-on-expiry", "fourth"]).await,
    ];
    desk.json(&["nack", "bob", "--count", "2", "--dead-letter", "--reason", "no"]).await;
    desk.json(&["nack", "carol", "--count", "1", "--dead-letter", "--reason", "never"]).await;
    let expired = ["events", "--follow", "--from-event", "1", "--type", "message-dead-lettered", "--limit", "4"];
    assert_eq!(column(&desk.json(&expired).await, "/sandbox_id")[3], "dave");
    sequences
}

#[tokio::test]
async fn line_15_dlq_lists_by_every_filter_and_shows_one() {
    let desk = Desk::with(&["alice", "bob", "carol", "dave"]).await;
    let [first, second, third, fourth] = bury(&desk).await;
    let cases: [(&[&str], &[u64]); 9] = [
        (&[], &[first, second, third, fourth]),
        (&["--sandbox", "bob"], &[first, second]),
        (&["--reason", "expired"], &[fourth]),
        (&["--reason", "rejected", "--from", "alice"], &[first, third]),
        (&["--correlation-id", "c-1"], &[first]),
        (&["--type", "request"], &[first]),
        (&["--sandbox", "bob", "--sequence", &second.to_string()], &[second]),
        (&["--since", "1h", "--until", "2000-01-01T00:00:00Z"], &[]),
        (&["--limit", "3"], &[first, second, third]),
    ];
    for (filter, expected) in cases {
        let found = desk.json(&[&["dlq", "list"], filter].concat()).await;
        assert_eq!(column(&found, "/message/sequence"), expected, "{filter:?}");
    }
    let (some, all) =
        (desk.run(&["dlq", "list", "--limit", "3"]).await, desk.run(&["dlq", "list", "--limit", "4"]).await);
    assert_eq!((some.stderr.as_str(), all.stderr.as_str()), ("more are there: --limit 0 for all\n", ""));
    let table = desk.text(&["dlq", "list"]).await;
    assert!(table.starts_with("SANDBOX  SEQUENCE  REASON") && table.lines().count() == 5, "{table}");

    let letter = desk.one(&["dlq", "show", "carol", &third.to_string()]).await;
    assert_eq!(letter["message"]["content"], "third");
    assert_eq!((&letter["reason"], &letter["reason_text"]), (&json!("rejected"), &json!("never")));
    assert_eq!((&letter["attempts"][0]["attempt"], &letter["attempts"][0]["text"]), (&json!(1), &json!("never")));
    let text = desk.text(&["dlq", "show", "carol", &third.to_string()]).await;
    assert!(text.starts_with("left the inbox of carol") && text.contains("rejected (never)"), "{text}");
    let says = ["99", "tandem dlq list"];
    desk.refused(&["dlq", "show", "carol", "99"], 3, "UNKNOWN_DEAD_LETTER", &says).await;
    desk.refused(&["dlq", "list", "--reason", "boredom"], 2, "USAGE", &["boredom", "attempts-exhausted"]).await;
}

#[tokio::test]
async fn line_15_dlq_redrives_one_some_and_elsewhere_and_purges() {
    let desk = Desk::with(&["alice", "bob", "carol", "dave"]).await;
    let [first, second, third, fourth] = bury(&desk).await;
    let last = |steps: &[serde_json::Value]| steps.last().cloned().unwrap();
    let first_text = first.to_string();
    let steps = desk.json(&["dlq", "redrive", "--sandbox", "bob", "--sequence", &first_text]).await;
    assert_eq!(last(&steps), json!({ "redriven": 1, "skipped": 0, "done": true }));
    let back = desk.one(&["sub", "bob", "--count", "1"]).await;
    assert_eq!(
        (&back["sequence"], &back["attempt"], &back["correlation_id"]),
        (&json!(first), &json!(1), &json!("c-1"))
    );
    // Done once: there is nothing left to put back.
    let steps = desk.json(&["dlq", "redrive", "--sandbox", "bob", "--sequence", &first_text]).await;
    assert_eq!(last(&steps)["redriven"], 0);
    let elsewhere = ["dlq", "redrive", "--reason", "rejected", "--to", "dave", "--rate", "1000"];
    assert_eq!(last(&desk.json(&elsewhere).await)["redriven"], 2);
    let moved = desk.json(&["sub", "dave", "--count", "2"]).await;
    assert_eq!(column(&moved, "/sequence"), [second, third]);

    let text = desk.text(&["dlq", "purge", "--sandbox", "dave", "--quiet"]).await;
    assert_eq!(text, "purged: 1\n");
    assert!(desk.json(&["dlq", "list"]).await.is_empty());
    assert_eq!(last(&desk.json(&["dlq", "purge", "--all"]).await), json!({ "purged": 0, "done": true }));
    desk.refused(&["dlq", "show", "dave", &fourth.to_string()], 3, "UNKNOWN_DEAD_LETTER", &[]).await;

    // A filter that was forgotten must not mean everything.
    desk.refused(&["dlq", "purge"], 2, "USAGE", &["say what to purge", "--sandbox ID", "--all"]).await;
    desk.refused(&["dlq", "redrive", "--all", "--sandbox", "bob"], 2, "USAGE", &["contradict"]).await;
    let to_nobody = ["dlq", "redrive", "--all", "--to", "nobody"];
    desk.refused(&to_nobody, 3, "UNKNOWN_SANDBOX", &["\"nobody\"", "tandem sandbox register"]).await;
}
