//! `tandem approval`.

use std::fs;

use serde_json::json;

use crate::desk::{Desk, column};

#[tokio::test]
async fn what_is_held_is_listed_shown_approved_and_denied() {
    let desk = Desk::with(&["alice", "bob"]).await;
    let file = desk.home().path().join("policy.json").display().to_string();
    let policy = json!({"policy": "deny_list", "rules": [{"from": "alice", "to": "bob", "approval_required": true}]});
    fs::write(&file, policy.to_string()).unwrap();
    desk.text(&["policy", "set", "--file", &file]).await;
    let test = desk.one(&["policy", "test", "--from", "alice", "--to", "bob"]).await;
    assert_eq!(test["verdict"], "hold");

    let one = desk.one(&["pub", "--from", "alice", "--to", "bob", "--id", "m1", "deploy it"]).await;
    assert_eq!((&one["approval_id"], &one["sequence"], &one["message_id"]), (&json!(1), &json!(0), &json!("m1")));
    let two = desk.text(&["pub", "--from", "alice", "--to", "bob", "drop it"]).await;
    assert!(two.starts_with("held for approval 2;"), "{two}");
    desk.publish(&["--from", "alice", "--to", "alice", "x"]).await;

    let listed = desk.json(&["approval", "list"]).await;
    assert_eq!(column(&listed, "/approval_id"), [&json!(2), &json!(1)], "the newest first");
    assert_eq!(column(&listed, "/from_sandbox_id"), [&json!("alice"), &json!("alice")]);
    let table = desk.text(&["approval", "list"]).await;
    assert!(table.contains("waiting") && table.contains("0/1"), "{table}");
    let shown = desk.one(&["approval", "show", "1"]).await;
    assert_eq!((&shown["message"]["content"], &shown["policy_rule"]), (&json!("deploy it"), &json!(1)));
    assert!(desk.text(&["approval", "show", "2"]).await.contains("drop it"));

    let approved = desk.one(&["approval", "approve", "1", "--comment", "go"]).await;
    assert_eq!((&approved["state"], &approved["votes"][0]["comment"]), (&json!("approved"), &json!("go")));
    let denied = desk.text(&["approval", "deny", "2", "--comment", "too late in the day"]).await;
    assert_eq!(denied.trim(), "approval 2 denied");
    let shown = desk.text(&["approval", "show", "2"]).await;
    assert!(shown.contains("denied by anyone: too late in the day") && shown.contains("drop it"), "{shown}");
    desk.refused(&["approval", "approve", "2"], 4, "APPROVAL_ENDED", &["denied", "tandem approval show"]).await;
    desk.refused(&["approval", "deny", "7"], 3, "UNKNOWN_APPROVAL", &["no approval 7", "tandem approval list"]).await;
    assert!(desk.json(&["approval", "list"]).await.is_empty());
    let all = desk.json(&["approval", "list", "--state", "all", "--limit", "1"]).await;
    assert_eq!(column(&all, "/state"), [&json!("denied")]);

    // What reached whom.
    let bob = desk.json(&["sub", "bob", "--count", "1"]).await;
    assert_eq!(column(&bob, "/content"), [&json!("deploy it")]);
    let alice = desk.json(&["sub", "alice", "--count", "3"]).await;
    assert_eq!(column(&alice, "/metadata/aintandem-approval"), [&json!(null), &json!("1"), &json!("2")]);
    let events = desk.json(&["events", "--type", "approval-requested", "--type", "approval-denied"]).await;
    assert_eq!(column(&events, "/approval_id"), [&json!(1), &json!(2), &json!(2)]);

    // An answer that waits for what is denied comes at once.
    let asked = desk.run(&["request", "--from", "alice", "--to", "bob", "--timeout", "300ms", "may I?"]).await;
    assert_eq!(asked.code, Some(5), "{asked:?}");
    assert!(asked.stderr.contains("approval 3"), "it says what it waits for: {asked:?}");
}
