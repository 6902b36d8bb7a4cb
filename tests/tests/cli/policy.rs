//! `tandem policy`.

use std::fs;

use serde_json::json;

use crate::desk::{Desk, column};

#[tokio::test]
async fn a_policy_is_tried_set_shown_and_removed() {
    let desk = Desk::with(&["alice", "bob", "carol"]).await;
    for (to, text) in [("bob", "one"), ("carol", "two"), ("bob", "three")] {
        desk.publish(&["--from", "alice", "--to", to, text]).await;
    }
    let write = |name: &str, policy: serde_json::Value| {
        let file = desk.home().path().join(name);
        fs::write(&file, policy.to_string()).unwrap();
        file.display().to_string()
    };
    let policy = json!({"policy": "deny_list", "rules": [{"from": "alice", "to": ["bob"]}]});
    let file = write("policy.json", policy.clone());

    let simulated = desk.json(&["policy", "simulate", "--file", &file]).await;
    assert_eq!(column(&simulated, "/sequence"), [&json!(1), &json!(3), &json!(null)]);
    assert_eq!(column(&simulated, "/rule"), [&json!(1), &json!(1), &json!(null)]);
    assert_eq!(simulated[2], json!({"judged": 3, "verdicts": {"deny": 2}}));
    let plain = desk.run(&["policy", "simulate", "--file", &file, "--from-sequence", "2"]).await;
    assert!(plain.stdout.starts_with("3 alice -> bob deny: rule 1 of the deny list fits"), "{plain:?}");
    assert!(plain.stderr.contains("1 of 2 messages"), "{plain:?}");

    let test = ["policy", "test", "--from", "alice", "--to", "bob"];
    assert_eq!(desk.one(&test).await["verdict"], "allow", "there is no policy yet");
    assert!(desk.text(&["policy", "show"]).await.starts_with("no policy"));
    let set = desk.one(&["policy", "set", "--file", &file, "--if-revision", "0"]).await;
    assert_eq!((&set["revision"], &set["updated_by"], &set["policy"]), (&json!(1), &json!("anyone"), &policy));
    assert_eq!(desk.text(&["policy", "show"]).await.trim(), policy.to_string());
    desk.refused(&test, 1, "DENIED", &["rule 1 of the deny list fits"]).await;
    desk.refused(
        &["pub", "--from", "alice", "--to", "bob", "x"],
        4,
        "POLICY_DENIED",
        &["revision 1", "rule 1 of", "tandem policy test"],
    )
    .await;
    desk.publish(&["--from", "alice", "--to", "carol", "x"]).await;

    let says = ["revision 1", "tandem policy show"];
    desk.refused(&["policy", "set", "--file", &file, "--if-revision", "7"], 4, "POLICY_CHANGED", &says).await;
    desk.refused(&["policy", "remove", "--if-revision", "7"], 4, "POLICY_CHANGED", &says).await;
    assert_eq!(desk.one(&["policy", "remove", "--if-revision", "1"]).await["revision"], 2);
    desk.publish(&["--from", "alice", "--to", "bob", "x"]).await;
    assert!(desk.text(&["policy", "show"]).await.starts_with("no policy since revision 2, removed by anyone"));
}

#[tokio::test]
async fn what_is_no_policy_is_refused_with_its_place() {
    let desk = Desk::with(&[]).await;
    let refused = async |policy: &str, code: &str, exit: i32, says: &[&str]| {
        let file = desk.home().path().join("policy.json");
        fs::write(&file, policy).unwrap();
        desk.refused(&["policy", "set", "--file", &file.display().to_string()], exit, code, says).await;
    };
    refused("{", "INVALID_POLICY", 1, &["policy: EOF"]).await;
    refused(
        r#"{"policy":"allow_list","rules":[{"from":"*","to":[]}]}"#,
        "INVALID_POLICY",
        1,
        &["rules[0].to", "empty"],
    )
    .await;
    let needless = r#"{"policy":"allow_list","rules":[{"from":"*","to":"*","approvals":2}]}"#;
    refused(needless, "INVALID_POLICY", 1, &["rules[0].approvals", "approval_required"]).await;
    desk.refused(&["policy", "set", "--file", "/nowhere"], 1, "FILE_UNREADABLE", &["/nowhere"]).await;
    desk.refused(&["--workspace", "none", "policy", "show"], 3, "UNKNOWN_WORKSPACE", &["none"]).await;
}
