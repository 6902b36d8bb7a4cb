//! `tandem audit`.

use std::fs;

use serde_json::{Value, json};

use crate::desk::{Desk, column};

#[tokio::test]
async fn promise_10_a_chain_is_listed_exported_and_checked() {
    let desk = Desk::with(&["alice", "bob"]).await;
    desk.text(&["topic", "create", "news"]).await;
    desk.publish(&["--from", "alice", "--to", "bob", "one"]).await;
    desk.publish(&["--from", "bob", "--to", "alice", "two"]).await;
    desk.text(&["topic", "delete", "news"]).await;

    let all = desk.json(&["audit", "list"]).await;
    let kinds = ["sandbox_registered", "sandbox_registered", "topic_created", "batches_committed", "topic_deleted"];
    assert_eq!(column(&all, "/kind"), kinds.map(|kind| json!(kind)).iter().collect::<Vec<_>>());
    assert_eq!((&all[0]["about"], &all[0]["by"]), (&json!("alice"), &json!("anyone")));
    assert!(all[0]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", all[0]);
    assert!(!all[0]["request_id"].as_str().unwrap().is_empty());
    assert_eq!((&all[3]["first"], &all[3]["last"], &all[3]["count"]), (&json!(1), &json!(2), &json!(2)));
    let topics = desk.json(&["audit", "list", "--about", "news", "--kind", "topic_deleted"]).await;
    assert_eq!(column(&topics, "/number"), [&json!(5)]);
    let plain = desk.text(&["audit", "list", "--limit", "1", "--from-record", "4"]).await;
    assert!(plain.starts_with("4 ") && plain.contains("batches_committed #1-2 (2 times): 2 batches"), "{plain}");
    desk.refused(&["audit", "list", "--kind", "nonsense"], 2, "USAGE", &["batches_committed"]).await;
    desk.refused(&["audit", "list", "--shard", "99"], 3, "UNKNOWN_SHARD", &["99"]).await;

    let head = desk.one(&["audit", "head"]).await;
    let (hash, number) = (head["hash"].as_str().unwrap(), &head["number"]);
    assert_eq!((number, &head["batches_since"]), (&json!(5), &json!(0)));
    let export = desk.text(&["audit", "export"]).await;
    let file = desk.home().path().join("audit.jsonl");
    let path = file.display().to_string();
    let write = |lines: &[String]| fs::write(&file, lines.join("\n")).unwrap();
    let lines: Vec<String> = export.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 6);
    write(&lines);
    let sound = desk.one(&["audit", "verify", &path, "--head", hash]).await;
    assert_eq!((&sound["records"], &sound["beyond_head"], &sound["chain"]), (&json!(5), &json!(0), &json!("default")));
    let told = desk.text(&["audit", "verify", &path]).await;
    assert!(told.contains("5 records of default are sound") && told.contains(hash), "{told}");

    let verify = ["audit", "verify", &path, "--head", hash];
    let broken = async |lines: &[String], says: &str| {
        write(lines);
        desk.refused(&verify, 1, "AUDIT_BROKEN", &[says]).await;
    };
    for line in 1..lines.len() {
        let mut record: Value = serde_json::from_str(&lines[line]).unwrap();
        record["by"] = json!("mallory");
        let mut edited = lines.clone();
        edited[line] = record.to_string();
        broken(&edited, "it was changed").await;
        let mut dropped = lines.clone();
        dropped.remove(line);
        broken(&dropped, if line == 5 { "missing at the end" } else { "must be here" }).await;
        let mut moved = lines.clone();
        moved.swap(line, if line == 5 { 1 } else { line + 1 });
        broken(&moved, "must be here").await;
    }
    broken(&[], "empty").await;
    desk.refused(&["audit", "verify", &path, "--head", "abc"], 2, "USAGE", &["64 hexadecimal"]).await;
    desk.refused(&["audit", "verify", "/nowhere"], 1, "FILE_UNREADABLE", &["/nowhere"]).await;
}
