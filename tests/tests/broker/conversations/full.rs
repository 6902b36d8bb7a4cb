//! Line 13: whoever meets a full inbox is told, and nobody else is held back.

use std::time::{Duration, UNIX_EPOCH};

use tandem_client::{
    BatchReceipt, Code, ExceptionKind, InboxLimits, Message, Sandbox, to_capability_all, to_topic, wire_time,
};
use tandem_tests::{Refused, broadcast, direct, unix_nanos};

use crate::stage::{Stage, WORKSPACE};

/// Registers a sandbox that holds little.
async fn register(stage: &Stage, sandbox: &str, max_messages: u64, max_bytes: u64) {
    let agent = tandem_client::Agent { name: "a".into(), capabilities: vec!["work".into()], ..Default::default() };
    let sandbox = Sandbox {
        sandbox_id: sandbox.into(),
        agents: vec![agent],
        inbox_limits: Some(InboxLimits { max_messages, max_bytes }),
        ..Sandbox::default()
    };
    stage.client.registry(WORKSPACE).register(sandbox).await.unwrap();
}

/// Publishes as one batch.
async fn batch(stage: &Stage, messages: &[Message]) -> BatchReceipt {
    let mut stream = stage.client.publisher(WORKSPACE).batch_stream();
    stream.send(messages.iter().collect()).unwrap();
    stream.finish();
    stream.next().await.unwrap().unwrap()
}

fn refusals(receipt: BatchReceipt) -> Vec<(u32, Refused)> {
    let refused = |kind| match kind {
        ExceptionKind::Refused(error) => Refused::from(error),
        other => panic!("not refused: {other:?}"),
    };
    receipt.exceptions.into_iter().map(|exception| (exception.index, refused(exception.kind))).collect()
}

#[track_caller]
fn expect_full(refused: &Refused, says: &[&str]) {
    refused.expect(Code::ResourceExhausted, "INBOX_FULL", says);
    let delay = refused.retry_delay.expect("a later try can help");
    assert!(!delay.is_zero() && delay.as_secs() <= 60, "{delay:?}");
}

#[tokio::test]
async fn line_13_an_inbox_is_limited_in_messages_and_the_rest_of_the_batch_goes_through() {
    let stage = Stage::with(&["alice", "carol"]).await;
    register(&stage, "bob", 3, 0).await;
    let messages: Vec<Message> =
        (0..10).map(|n| direct("alice", if n % 2 == 0 { "bob" } else { "carol" }, n.to_string())).collect();
    let receipt = batch(&stage, &messages).await;
    assert_eq!((receipt.accepted, receipt.first_sequence), (8, 1));
    let refused = refusals(receipt);
    assert_eq!(refused.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [6, 8]);
    for (_, refused) in &refused {
        expect_full(refused, &["\"bob\" holds 3 messages", "3 messages and", "try again later"]);
    }
    let stage = stage.crash_and_start().await;
    assert_eq!((stage.pending("bob").await, stage.pending("carol").await), (3, 5));
    expect_full(&stage.try_publish(direct("alice", "bob", "still full")).await.unwrap_err().into(), &[]);
    let log = stage.history(Default::default()).await;
    assert_eq!(log.iter().map(|message| message.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 8, 10]);

    // A message on loan still takes its place; an ack makes room for exactly one.
    let mut bob = stage.subscribe("bob").await;
    bob.take(3).await;
    expect_full(&stage.try_publish(direct("alice", "bob", "leased")).await.unwrap_err().into(), &[]);
    bob.ack(1, 1).await;
    stage.publish(direct("alice", "bob", "fits")).await;
    expect_full(&stage.try_publish(direct("alice", "bob", "full again")).await.unwrap_err().into(), &[]);
}

#[tokio::test]
async fn line_13_an_inbox_is_limited_in_bytes() {
    let stage = Stage::with(&["alice", "carol"]).await;
    register(&stage, "bob", 0, 10_000).await;
    let sized = |to: &str, bytes: usize| direct("alice", to, "x".repeat(bytes));
    stage.publish_all([sized("bob", 4_000), sized("bob", 4_000)]).await;
    let receipt = batch(&stage, &[sized("bob", 4_000), sized("carol", 4_000), sized("bob", 500)]).await;
    assert_eq!(receipt.accepted, 2, "what is smaller than the room fits");
    let refused = refusals(receipt);
    assert_eq!(refused[0].0, 0);
    expect_full(&refused[0].1, &["\"bob\" holds 2 messages", "10000 bytes are allowed"]);
    let bob = stage.client.registry(WORKSPACE).get("bob").await.unwrap();
    assert!((8_500..10_000).contains(&bob.pending_bytes), "{} bytes", bob.pending_bytes);
    let stage = stage.crash_and_start().await;
    expect_full(&stage.try_publish(sized("bob", 4_000)).await.unwrap_err().into(), &[]);
    let mut inbox = stage.subscribe("bob").await;
    inbox.take(3).await;
    inbox.ack(2, 2).await;
    stage.publish(sized("bob", 4_000)).await;
    inbox.take(1).await;
    inbox.ack(1, 4).await;
    assert_eq!(stage.client.registry(WORKSPACE).get("bob").await.unwrap().pending_bytes, 0);
}

/// Messages that wait for a time or a retry take their place, too.
#[tokio::test]
async fn line_13_what_is_delayed_counts() {
    let stage = Stage::with(&["alice"]).await;
    register(&stage, "bob", 2, 0).await;
    let tomorrow = UNIX_EPOCH + Duration::from_nanos(unix_nanos()) + Duration::from_secs(86_400);
    let delayed = Message { not_before: Some(wire_time(tomorrow)), ..direct("alice", "bob", "tomorrow") };
    stage.publish_all([delayed.clone(), delayed.clone()]).await;
    for message in [delayed, direct("alice", "bob", "now")] {
        expect_full(&stage.try_publish(message).await.unwrap_err().into(), &["\"bob\" holds 2 messages"]);
    }
    let stage = stage.crash_and_start().await;
    let bob = stage.client.registry(WORKSPACE).get("bob").await.unwrap();
    assert_eq!((bob.pending_messages, bob.deferred_messages), (2, 2));
    expect_full(&stage.try_publish(direct("alice", "bob", "now")).await.unwrap_err().into(), &[]);
}

/// What is written once for all takes no room in anybody's inbox, so one who does not read cannot silence the others.
#[tokio::test]
async fn line_13_a_full_inbox_does_not_hold_back_what_goes_to_many() {
    let stage = Stage::with(&["alice", "carol"]).await;
    register(&stage, "bob", 1, 0).await;
    register(&stage, "dave", 5, 0).await;
    let topics = stage.client.topics(WORKSPACE);
    topics.create("news").await.unwrap();
    topics.follow("bob", "news", Default::default()).await.unwrap();
    stage.publish(direct("alice", "bob", "fills")).await;
    let to = |destination| Message { destination: Some(destination), ..direct("alice", "", "to many") };
    stage.publish(broadcast("alice", "to many")).await;
    stage.publish(to(to_topic("news"))).await;
    // Of those that have a capability, the ones with room get it.
    stage.publish(to(to_capability_all("work"))).await;
    assert_eq!((stage.pending("bob").await, stage.pending("dave").await), (3, 2));
    let mut bob = stage.subscribe("bob").await;
    assert_eq!(bob.take(3).await.iter().map(|d| d.message.sequence).collect::<Vec<_>>(), [1, 2, 3]);
}
