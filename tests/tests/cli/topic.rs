//! Line 15: `tandem topic`.

use serde_json::json;

use crate::desk::{Desk, column};

#[tokio::test]
async fn line_15_topics_are_created_followed_read_and_deleted() {
    let desk = Desk::with(&["alice", "bob", "late"]).await;
    let created = desk.one(&["topic", "create", "build.done"]).await;
    assert_eq!((&created["name"], &created["created"]), (&json!("build.done"), &json!(true)));
    assert_eq!(desk.one(&["topic", "create", "build.done"]).await["created"], false);
    desk.json(&["topic", "create", "chat"]).await;
    let follow = desk.one(&["topic", "follow", "bob", "build.>"]).await;
    assert_eq!(follow, json!({ "sandbox_id": "bob", "pattern": "build.>", "from_sequence": 1, "created": true }));
    assert_eq!(desk.one(&["topic", "follow", "bob", "build.>"]).await["created"], false);

    let first = desk.publish(&["--from", "alice", "--topic", "build.done", "one"]).await;
    desk.publish(&["--from", "alice", "--topic", "chat", "not for bob"]).await;
    let second = desk.publish(&["--from", "alice", "--topic", "build.done", "two"]).await;
    let heard = desk.json(&["sub", "bob", "--count", "2"]).await;
    assert_eq!(
        (column(&heard, "/sequence"), column(&heard, "/destination/topic")),
        (vec![&json!(first), &json!(second)], vec![&json!("build.done"); 2],)
    );
    // Who comes late begins where it says.
    desk.json(&["topic", "follow", "late", "build.done", "--from-sequence", &second.to_string()]).await;
    assert_eq!(desk.one(&["sub", "late", "--count", "1"]).await["sequence"], second);
    assert_eq!(column(&desk.json(&["topic", "follows", "late"]).await, "/from_sequence"), [second]);

    let listed = desk.json(&["topic", "list"]).await;
    assert_eq!(
        (column(&listed, "/name"), column(&listed, "/message_count")),
        (vec![&json!("build.done"), &json!("chat")], vec![&json!(2), &json!(1)],)
    );
    assert!(desk.text(&["topic", "list"]).await.starts_with("TOPIC       MESSAGES  LAST SEQUENCE"));
    desk.json(&["topic", "unfollow", "bob", "build.>"]).await;
    desk.publish(&["--from", "alice", "--topic", "build.done", "three"]).await;
    assert_eq!(desk.one(&["sandbox", "show", "bob"]).await["pending_messages"], 0);
    assert!(desk.json(&["topic", "follows", "bob"]).await.is_empty());
    assert_eq!(desk.one(&["topic", "delete", "chat"]).await, json!({ "name": "chat", "deleted": true }));

    let says = ["tandem topic list", "tandem topic create NAME"];
    desk.refused(&["topic", "delete", "chat"], 3, "UNKNOWN_TOPIC", &says).await;
    desk.refused(&["pub", "--from", "alice", "--topic", "chat", "x"], 3, "UNKNOWN_TOPIC", &["\"chat\""]).await;
    desk.refused(&["topic", "create", "a..b"], 4, "INVALID_FIELD", &["\"a..b\"", "divided by dots"]).await;
    desk.refused(&["topic", "unfollow", "bob", "build.>"], 3, "UNKNOWN_FOLLOW", &["tandem topic follows"]).await;
    desk.refused(&["topic", "follow", "bob"], 2, "USAGE", &["PATTERN"]).await;
}
