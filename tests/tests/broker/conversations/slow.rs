//! Line 13: a subscriber that does not keep up costs the broker bounded memory.

use tandem_client::{Batch, EventQuery, EventType, Message, StreamQuery, WorkspaceSettings};
use tandem_tests::direct;

use crate::stage::{Stage, WORKSPACE};

/// A batch, and how many of them one round publishes: 64 MiB.
const BATCH: (usize, usize) = (64, 16 << 10);
const BATCHES: usize = 64;
const ROUND_BYTES: usize = BATCH.0 * BATCH.1 * BATCHES;

/// With each batch so many messages of a conversation that goes round in circles, each of them an event.
const LOOPED: usize = 50;

/// Publishes one round to an inbox, a batch after the other.
async fn publish_round(stage: &Stage, to: &str) {
    let looped = vec![in_circles("carol", "dave"); LOOPED];
    let mut stream = stage.client.publisher(WORKSPACE).batch_stream();
    for _ in 0..BATCHES {
        let messages = vec![direct("alice", to, "x".repeat(BATCH.1)); BATCH.0];
        stream.send(messages.iter().collect::<Batch>()).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().accepted as usize, BATCH.0);
        stream.send(looped.iter().collect::<Batch>()).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().accepted as usize, LOOPED);
    }
}

/// The stores keep buffers and caches of a fixed size; small ones, so that what a reader costs shows beside them.
async fn stage() -> Stage {
    let stage = Stage::set_up(&["alice", "bob", "nobody", "carol", "dave"], |config| {
        config.storage.state_memtable_bytes = 4 << 20;
        config.storage.block_cache_bytes = 8 << 20;
        config.storage.log_cache_bytes = 1 << 20;
        config.storage.snapshot_every_bytes = 16 << 20;
        config.storage.shards = 1;
    })
    .await;
    let settings = WorkspaceSettings { max_hops: 1, ..Default::default() };
    stage.client.workspaces().update(WORKSPACE, settings).await.unwrap();
    stage.publish_all([in_circles("carol", "dave"), in_circles("dave", "carol")]).await;
    stage
}

fn in_circles(from: &str, to: &str) -> Message {
    Message { correlation_id: "circles".into(), ..direct(from, to, "and you?") }
}

/// Many streams are open and take nothing, while far more is published than memory may hold. The same is published to an
/// inbox that nobody reads first: what that costs is the stores' own.
#[tokio::test]
async fn line_13_readers_that_take_nothing_cost_bounded_memory() {
    let stage = stage().await;
    publish_round(&stage, "nobody").await;
    publish_round(&stage, "nobody").await;
    let unread = stage.broker.resident_bytes();

    let mut inboxes = Vec::new();
    for _ in 0..4 {
        // All the credit there is, and never a look at what comes.
        inboxes.push(stage.subscribe("bob").await);
    }
    let mut logs = Vec::new();
    for _ in 0..4 {
        let client = stage.broker.client();
        let mut log = client.history(WORKSPACE).stream_messages(StreamQuery { follow: true, ..Default::default() });
        log.next().await.unwrap().unwrap();
        logs.push(log);
    }
    let mut events = stage.broker.client().events(WORKSPACE, EventQuery::default()).await.unwrap();
    publish_round(&stage, "bob").await;
    publish_round(&stage, "bob").await;
    let slow = stage.broker.resident_bytes();
    let grown = slow.saturating_sub(unread);
    println!(
        "{} MiB published to slow readers; resident {} -> {} MiB",
        (2 * ROUND_BYTES) >> 20,
        unread >> 20,
        slow >> 20
    );
    assert!(grown < 64 << 20, "9 readers that take nothing cost {} MiB of {}", grown >> 20, (2 * ROUND_BYTES) >> 20);

    // Slow is not lost: whoever begins to read gets all of it.
    let waiting = stage.pending("bob").await;
    assert_eq!(waiting as usize, 2 * BATCHES * BATCH.0);
    drop(inboxes);
    let mut bob = stage.subscribe("bob").await;
    let mut seen = 0;
    while seen < waiting {
        let mut deliveries = bob.take(1).await;
        deliveries.extend(bob.take_up_to(255).await);
        let (first, last) = (deliveries[0].delivery_id, deliveries[deliveries.len() - 1].delivery_id);
        assert_eq!(bob.ack(first, last).await.acknowledged as usize, deliveries.len());
        let bytes: usize = deliveries.iter().map(|delivery| prost::Message::encoded_len(&delivery.message)).sum();
        bob.credit(deliveries.len() as u32, bytes as u64);
        seen += deliveries.len() as u64;
    }
    assert_eq!((seen, stage.pending("bob").await), (waiting, 0));
    for _ in 0..2 * BATCHES * LOOPED {
        let cursor = events.cursor();
        let event = events.next().await.unwrap().unwrap();
        assert_eq!((event.event_id, event.r#type()), (cursor, EventType::MessageLooped));
    }
    for mut log in logs {
        let mut sequence = 1;
        while sequence < 2_000 {
            let message = log.next().await.unwrap().unwrap();
            assert_eq!(message.sequence, sequence + 1);
            sequence = message.sequence;
        }
    }
}
