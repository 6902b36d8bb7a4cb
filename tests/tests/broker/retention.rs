//! Line 12: the history goes by bytes and age, what is waited for stays, and whoever asks for what is gone is told.

use std::time::Duration;

use futures_util::TryStreamExt as _;
use tandem_client::{Code, HistoryQuery, WorkspaceSettings};
use tandem_tests::{Refused, broadcast, direct, named};

use crate::stage::{Stage, WORKSPACE, text};

const MIB: u64 = 1 << 20;

impl Stage {
    async fn keep(&self, retention_bytes: u64) {
        let settings = WorkspaceSettings { retention_bytes, ..WorkspaceSettings::default() };
        let workspace = self.client.workspaces().update(WORKSPACE, settings).await.unwrap();
        assert_eq!(workspace.settings.unwrap().retention_bytes, retention_bytes);
    }

    /// The oldest sequence of the history, once it is no longer than this, in bytes.
    async fn trimmed_to(&self, bytes: u64) -> u64 {
        let wait = async {
            loop {
                let workspace = self.client.workspaces().get(WORKSPACE).await.unwrap();
                if workspace.stored_bytes <= bytes {
                    return workspace.first_sequence;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("retention runs every second")
    }
}

#[tokio::test]
async fn line_12_a_trimmed_range_is_an_error_that_names_it_and_what_waits_is_kept() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    stage.keep(2 * MIB).await;
    let body = "x".repeat(200 << 10);
    stage.publish(named("first", direct("alice", "bob", "the first"))).await;
    stage.publish(broadcast("alice", "to all")).await;
    for _ in 0..20 {
        stage.publish(direct("alice", "carol", body.clone())).await;
    }
    let mut carol = stage.subscribe("carol").await;
    let taken = carol.take(21).await;
    carol.ack(taken[0].delivery_id, taken[20].delivery_id).await;
    let first = stage.trimmed_to(2 * MIB).await;
    assert!((10..=20).contains(&first), "{first}");

    let query = |from_sequence| HistoryQuery { from_sequence, ..HistoryQuery::default() };
    let listed = stage.history(query(0)).await;
    assert_eq!((listed[0].sequence, listed.len() as u64), (first, 22 - first + 1));
    let error = stage.client.history(WORKSPACE).list(query(2)).try_collect::<Vec<_>>().await.unwrap_err();
    let says = format!("messages 2 to {} were trimmed; the history begins with {first}", first - 1);
    Refused::from(error).expect(Code::OutOfRange, "HISTORY_GAP", &[&says]);
    let error = stage.client.history(WORKSPACE).get("first").await.unwrap_err();
    Refused::from(error).expect(Code::OutOfRange, "HISTORY_GAP", &["message 1 was trimmed"]);
    let receipt = stage.publish(named("first", direct("alice", "bob", "the first"))).await;
    assert!(receipt.duplicate && receipt.sequence == 1, "its id is remembered: {receipt:?}");

    // What waits outlives its history, a crash, and what the next rounds remove.
    let stage = stage.crash_and_start().await;
    assert_eq!(stage.pending("bob").await, 2);
    let mut bob = stage.subscribe("bob").await;
    let kept = bob.take(2).await;
    assert_eq!(kept.iter().map(|delivery| text(&delivery.message)).collect::<Vec<_>>(), ["the first", "to all"]);
    bob.ack(kept[0].delivery_id, kept[1].delivery_id).await;
    assert_eq!(stage.pending("bob").await, 0);
}

#[tokio::test]
async fn line_12_retention_settings_are_checked_and_read_back() {
    let stage = Stage::with(&[]).await;
    let workspaces = stage.client.workspaces();
    let settings = workspaces.get(WORKSPACE).await.unwrap().settings.unwrap();
    assert_eq!(settings.retention_age.unwrap().seconds, 30 * 24 * 3_600, "unless set otherwise");
    let short = WorkspaceSettings { retention_age: Some(Duration::from_secs(59).try_into().unwrap()), ..settings };
    let error = workspaces.update(WORKSPACE, short).await.unwrap_err();
    Refused::from(error).expect(Code::InvalidArgument, "INVALID_FIELD", &["59 s", "60 s"]).at("settings.retention_age");
    let small = WorkspaceSettings { retention_bytes: MIB - 1, ..WorkspaceSettings::default() };
    let error = workspaces.update(WORKSPACE, small).await.unwrap_err();
    Refused::from(error)
        .expect(Code::InvalidArgument, "INVALID_FIELD", &["1048575", "at least 1048576"])
        .at("settings.retention_bytes");
}
