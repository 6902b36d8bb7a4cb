//! `tandem workspace quotas`.

use serde_json::json;

use crate::desk::Desk;

#[tokio::test]
async fn quotas_are_shown_and_changed_one_by_one() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let none = desk.one(&["workspace", "quotas", "default"]).await;
    assert_eq!((&none["messages_per_second"], &none["max_streams"]), (&json!(0), &json!(0)));
    let set = desk.one(&["workspace", "quotas", "default", "--sandbox-messages-per-second", "1"]).await;
    assert_eq!(set["sandbox_messages_per_second"], 1);
    let both = desk.one(&["workspace", "quotas", "default", "--max-message-bytes", "100"]).await;
    assert_eq!((&both["sandbox_messages_per_second"], &both["max_message_bytes"]), (&json!(1), &json!(100)));
    let text = desk.text(&["workspace", "quotas", "default"]).await;
    assert!(text.contains("max_message_bytes            100") && text.contains("no limit of its own"), "{text}");
    let large = "x".repeat(200);
    let says = ["quota of the workspace is 100", "tandem workspace quotas"];
    desk.refused(&["pub", "--from", "alice", "--to", "bob", &large], 6, "QUOTA_EXCEEDED", &says).await;
    desk.refused(&["workspace", "quotas", "nowhere"], 3, "UNKNOWN_WORKSPACE", &["nowhere"]).await;
}
