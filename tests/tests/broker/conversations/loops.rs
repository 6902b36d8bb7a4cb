//! Line 11: conversations that go round in circles.

use futures_util::TryStreamExt as _;
use tandem_client::{
    Code, DeadLetter, DeadLetterQuery, DeadLetterReason, Event, EventQuery, EventType, Message, WorkspaceSettings,
};
use tandem_tests::{Refused, broadcast, direct};

use crate::stage::{Stage, WORKSPACE};

/// The limit of a workspace that sets none.
const DEFAULT_HOPS: u32 = 16;

fn say(from: &str, to: &str, correlation_id: &str) -> Message {
    Message { correlation_id: correlation_id.into(), ..direct(from, to, "and you?") }
}

async fn dead_letters(stage: &Stage) -> Vec<DeadLetter> {
    let query = DeadLetterQuery { reason: Some(DeadLetterReason::Loop), ..Default::default() };
    stage.client.dead_letters(WORKSPACE).list(query).try_collect().await.unwrap()
}

async fn looped(stage: &Stage) -> Vec<Event> {
    let query =
        EventQuery { from_event: 1, types: vec![EventType::MessageLooped], follow: false, ..Default::default() };
    stage.client.events(WORKSPACE, query).await.unwrap().into_stream().try_collect().await.unwrap()
}

async fn hops(stage: &Stage, sequence: u64) -> u32 {
    stage.client.history(WORKSPACE).get(format!("seq-{sequence}")).await.unwrap().hop_count
}

/// Publishes without an id, so that the message is found by its sequence.
async fn publish(stage: &Stage, message: Message) -> u64 {
    stage.publish_all([message]).await[0].sequence
}

#[tokio::test]
async fn line_11_a_chain_over_the_limit_becomes_a_dead_letter_with_its_chain_and_an_event() {
    let mut stage = Stage::with(&["alice", "bob"]).await;
    let mut chain = Vec::new();
    for hop in 0..=DEFAULT_HOPS {
        // Half of the way in another life: counts are part of what is replicated.
        if hop == DEFAULT_HOPS / 2 {
            stage = stage.crash_and_start().await;
        }
        let (from, to) = if hop % 2 == 0 { ("alice", "bob") } else { ("bob", "alice") };
        let sequence = publish(&stage, say(from, to, "c")).await;
        assert_eq!(hops(&stage, sequence).await, hop);
        chain.push(sequence);
    }
    let waiting = (stage.pending("alice").await, stage.pending("bob").await);
    assert_eq!((dead_letters(&stage).await.len(), looped(&stage).await.len()), (0, 0), "the limit itself is allowed");

    let over = publish(&stage, say("bob", "alice", "c")).await;
    chain.push(over);
    assert_eq!((stage.pending("alice").await, stage.pending("bob").await), waiting, "it waits for nobody");
    let stage = stage.crash_and_start().await;
    let letters = dead_letters(&stage).await;
    assert_eq!(letters.len(), 1);
    let message = letters[0].message.as_ref().unwrap();
    assert_eq!((letters[0].sandbox_id.as_str(), message.sequence, message.hop_count), ("alice", over, 17));
    assert_eq!(letters[0].chain, chain);
    assert!(letters[0].reason_text.contains("went to and fro 17 times; the workspace allows 16"), "{letters:?}");
    let events = looped(&stage).await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].sandbox_id.as_str(), events[0].sequence, events[0].count), ("alice", over, 1));
    assert!(events[0].text.contains("17 times"), "{events:?}");

    // Other conversations, and messages without one, are not held back.
    for message in [say("bob", "alice", "d"), direct("bob", "alice", "by the way")] {
        let sequence = publish(&stage, message).await;
        assert_eq!(hops(&stage, sequence).await, 0);
    }
    assert_eq!(stage.pending("alice").await, waiting.0 + 2);
}

#[tokio::test]
async fn line_11_reports_do_not_count_and_every_way_back_does() {
    let stage = Stage::with(&["alice", "bob", "carol"]).await;
    let settings = WorkspaceSettings { max_hops: 3, ..Default::default() };
    stage.client.workspaces().update(WORKSPACE, settings).await.unwrap();
    let hops_of = async |message: Message| {
        let sequence = publish(&stage, message).await;
        hops(&stage, sequence).await
    };
    assert_eq!(hops_of(say("alice", "bob", "c")).await, 0);
    for _ in 0..20 {
        assert_eq!(hops_of(say("bob", "alice", "c")).await, 1, "twenty reports on one request");
    }
    assert_eq!(hops_of(say("alice", "carol", "c")).await, 2, "over a third");
    assert_eq!(hops_of(say("carol", "bob", "c")).await, 3);
    assert_eq!(hops_of(say("bob", "alice", "c")).await, 4, "and back");
    let letters = dead_letters(&stage).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].chain, [1, 2, 22, 23, 24], "the first message of each hop");
}

/// A message to everybody has no inbox that it could be a dead letter of: its sender is refused, and the event told.
#[tokio::test]
async fn line_11_a_broadcast_that_goes_round_is_refused() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let settings = WorkspaceSettings { max_hops: 2, ..Default::default() };
    stage.client.workspaces().update(WORKSPACE, settings).await.unwrap();
    let shout = |from: &str| Message { correlation_id: "c".into(), ..broadcast(from, "who is there?") };
    for from in ["alice", "bob", "alice"] {
        stage.publish(shout(from)).await;
    }
    let refused = Refused::from(stage.try_publish(shout("bob")).await.unwrap_err());
    refused.expect(Code::FailedPrecondition, "TOO_MANY_HOPS", &["3 times", "more than the 2"]);
    let events = looped(&stage).await;
    assert_eq!(events.iter().map(|event| event.sandbox_id.as_str()).collect::<Vec<_>>(), ["bob"]);
    assert_eq!((dead_letters(&stage).await.len(), stage.history(Default::default()).await.len()), (0, 3));
}

/// Whoever goes on talking in circles fills nobody's disk: dead letters are bounded, and then the sender is refused.
#[tokio::test]
async fn promise_8_dead_letters_of_loops_are_bounded() {
    let stage = Stage::set_up(&["alice", "bob"], |config| config.limits.max_dead_letters_per_sandbox = 2).await;
    let settings = WorkspaceSettings { max_hops: 1, ..Default::default() };
    stage.client.workspaces().update(WORKSPACE, settings).await.unwrap();
    for (from, to) in [("alice", "bob"), ("bob", "alice"), ("alice", "bob"), ("alice", "bob")] {
        stage.publish(say(from, to, "c")).await;
    }
    let refused = Refused::from(stage.try_publish(say("alice", "bob", "c")).await.unwrap_err());
    refused.expect(Code::FailedPrecondition, "TOO_MANY_HOPS", &["2 times", "more than the 1"]);
    assert_eq!((dead_letters(&stage).await.len(), looped(&stage).await.len()), (2, 3));
}

/// Redriven by somebody who has looked at it, a message over the limit is delivered.
#[tokio::test]
async fn line_11_a_looped_message_can_be_put_back() {
    let stage = Stage::with(&["alice", "bob"]).await;
    let settings = WorkspaceSettings { max_hops: 1, ..Default::default() };
    stage.client.workspaces().update(WORKSPACE, settings).await.unwrap();
    for (from, to) in [("alice", "bob"), ("bob", "alice"), ("alice", "bob")] {
        publish(&stage, say(from, to, "c")).await;
    }
    assert_eq!(stage.pending("bob").await, 1);
    let redrive = stage.client.dead_letters(WORKSPACE).redrive(Default::default(), Default::default());
    let progress: Vec<_> = redrive.try_collect().await.unwrap();
    assert_eq!(progress.last().map(|last| (last.redriven, last.done)), Some((1, true)));
    let mut bob = stage.subscribe("bob").await;
    let mut seen: Vec<(u64, u32)> =
        bob.take(2).await.iter().map(|delivery| (delivery.message.sequence, delivery.message.hop_count)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(1, 0), (3, 2)]);
    assert_eq!(bob.ack(1, 2).await.acknowledged, 2);
    assert!(dead_letters(&stage).await.is_empty());
}
