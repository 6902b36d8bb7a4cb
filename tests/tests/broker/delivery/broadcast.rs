//! A broadcast reaches every sandbox that was there when it committed, but the sender.

use tandem_tests::{broadcast, direct};

use crate::stage::{Stage, WORKSPACE, text};

#[tokio::test]
async fn a_broadcast_reaches_all_but_its_sender() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    let mut live = stage.subscribe("bob").await;
    let mut sender = stage.subscribe("alice").await;
    stage.publish_all([broadcast("alice", "to all"), direct("bob", "carol", "to one"), broadcast("bob", "back")]).await;
    assert_eq!(text(&live.take(1).await[0].message), "to all");
    assert_eq!(text(&sender.take(1).await[0].message), "back");
    let mut late = stage.subscribe("carol").await;
    let texts: Vec<_> = late.take(3).await.iter().map(|delivery| text(&delivery.message).to_owned()).collect();
    assert_eq!(texts, ["to all", "to one", "back"], "direct messages and broadcasts share commit order");
    live.expect_silence().await;
    sender.expect_silence().await;
    late.expect_silence().await;
    let mut pending = Vec::new();
    for sandbox in ["alice", "bob", "carol"] {
        pending.push(stage.pending(sandbox).await);
    }
    assert_eq!(pending, [1, 1, 3]);
    assert_eq!(late.ack(1, 3).await.acknowledged, 3);
    assert_eq!(
        (stage.pending("carol").await, stage.pending("bob").await),
        (0, 1),
        "each has its own place in the topic"
    );
}

#[tokio::test]
async fn who_comes_later_gets_only_what_is_sent_later() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.publish(broadcast("alice", "before")).await;
    stage.register("dave").await;
    assert_eq!(stage.pending("dave").await, 0);
    stage.publish(broadcast("alice", "after")).await;
    let mut dave = stage.subscribe("dave").await;
    assert_eq!(text(&dave.take(1).await[0].message), "after");
    dave.expect_silence().await;
    // Registered anew, it begins anew.
    stage.client.registry(WORKSPACE).unregister("dave").await.unwrap();
    stage.register("dave").await;
    assert_eq!(stage.pending("dave").await, 0);
}

#[tokio::test]
async fn promise_3_broadcasts_that_are_acknowledged_stay_so_after_kill_9() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    stage
        .publish_all(
            (0..500).map(|number| broadcast(if number % 5 == 0 { "bob" } else { "alice" }, number.to_string())),
        )
        .await;
    let mut bob = stage.subscribe("bob").await;
    bob.take(400).await;
    assert_eq!(bob.ack(1, 150).await.acknowledged, 150);
    assert_eq!(bob.ack(201, 300).await.acknowledged, 100);
    let stage = stage.crash_and_start().await;
    assert_eq!(
        (stage.pending("bob").await, stage.pending("carol").await, stage.pending("alice").await),
        (150, 500, 100)
    );
    let mut bob = stage.subscribe("bob").await;
    let numbers: Vec<u32> =
        bob.take(150).await.iter().map(|delivery| text(&delivery.message).parse().unwrap()).collect();
    let for_bob: Vec<u32> = (0..500).filter(|number| number % 5 != 0).collect();
    assert_eq!(numbers, [&for_bob[150..200], &for_bob[300..]].concat());
    bob.expect_silence().await;
}

#[tokio::test]
async fn workspaces_do_not_hear_each_other() {
    let stage = Stage::with(&["alice", "bob"]).await;
    stage.client.workspaces().create("elsewhere").await.unwrap();
    let elsewhere = stage.client.registry("elsewhere");
    for sandbox in ["alice", "bob"] {
        elsewhere.register_with_agents(sandbox, Vec::new()).await.unwrap();
    }
    stage.publish_all([broadcast("alice", "here"), direct("alice", "bob", "here")]).await;
    assert_eq!(elsewhere.get("bob").await.unwrap().pending_messages, 0);
    assert_eq!(stage.client.workspaces().get("elsewhere").await.unwrap().last_sequence, 0);
    let receipt = stage.client.publisher("elsewhere").publish(direct("alice", "bob", "there")).await.unwrap();
    assert_eq!(receipt.sequence, 1, "sequences are the workspace's own");
    stage.client.workspaces().delete("elsewhere").await.unwrap();
    assert_eq!(stage.pending("bob").await, 2);
}
