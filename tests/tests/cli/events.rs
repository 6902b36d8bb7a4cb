//! Line 15: `tandem events`.

use serde_json::json;

use crate::desk::{Desk, column};

#[tokio::test]
async fn line_15_events_are_listed_filtered_and_followed_from_a_cursor() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let sequence = desk.publish(&["--from", "alice", "--to", "bob", "x"]).await;
    desk.json(&["nack", "bob", "--dead-letter", "--reason", "no"]).await;
    desk.json(&["sandbox", "unregister", "alice"]).await;
    let all = desk.json(&["events"]).await;
    assert_eq!(column(&all, "/event_id"), [1, 2, 3, 4]);
    assert_eq!(
        column(&all, "/type"),
        ["sandbox-registered", "sandbox-registered", "message-dead-lettered", "sandbox-gone"]
    );
    assert_eq!(
        (&all[2]["sandbox_id"], &all[2]["sequence"], &all[2]["count"]),
        (&json!("bob"), &json!(sequence), &json!(1))
    );
    let cases: [(&[&str], &[u64]); 5] = [
        (&["--from-event", "3"], &[3, 4]),
        (&["--type", "sandbox-gone", "--type", "message-dead-lettered"], &[3, 4]),
        (&["--sandbox", "alice"], &[1, 4]),
        (&["--limit", "1"], &[1]),
        (&["--from-event", "9"], &[]),
    ];
    for (filter, expected) in cases {
        assert_eq!(column(&desk.json(&[&["events"], filter].concat()).await, "/event_id"), expected, "{filter:?}");
    }
    let (some, all) = (desk.run(&["events", "--limit", "3"]).await, desk.run(&["events", "--limit", "4"]).await);
    assert_eq!((some.stderr.as_str(), all.stderr.as_str()), ("more are there: --limit 0 for all\n", ""));
    let text = desk.text(&["events", "--from-event", "3", "--limit", "1"]).await;
    assert!(
        text.starts_with("3 ") && text.contains(&format!("message-dead-lettered bob #{sequence}: REJECTED")),
        "{text}"
    );
    // On from where an earlier command stood, into the future.
    let (live, _) = tokio::join!(
        desk.json(&["events", "--follow", "--from-event", "4", "--limit", "2"]),
        desk.json(&["sandbox", "register", "carol"]),
    );
    assert_eq!(column(&live, "/sandbox_id"), ["alice", "carol"]);
    desk.refused(&["events", "--from-event", "0"], 2, "USAGE", &["--from-event"]).await;
    desk.refused(&["events", "--type", "rain"], 2, "USAGE", &["rain", "inbox-full"]).await;
    desk.refused(&["events", "--workspace", "nowhere"], 3, "UNKNOWN_WORKSPACE", &["tandem workspace create"]).await;
}
