//! How soon a broker is back, with a million messages in its log.

use std::{collections::VecDeque, time::Duration};

use tandem_client::{Batch, HistoryQuery};
use tandem_tests::{BrokerProcess, Home, direct, now};

use crate::stage::{Stage, WORKSPACE};

const MESSAGES: u64 = 1_000_000;
/// The figure that is promised, for a build with optimisations.
const READY_WITHIN: Duration = Duration::from_secs(3);

/// Publishes messages of 256 bytes content, a thousand at a time, to a handful of inboxes.
async fn fill(stage: &Stage) {
    let batch = || -> Batch {
        let messages = (0..1_000).map(|number| direct("alice", ["b0", "b1", "b2", "b3"][number % 4], "x".repeat(256)));
        let mut batch = Batch::with_capacity(400_000);
        messages.for_each(|message| batch.push(&message));
        batch
    };
    let mut stream = stage.client.publisher(WORKSPACE).batch_stream();
    let mut sent = VecDeque::new();
    for number in 0..MESSAGES / 1_000 {
        sent.push_back(stream.send(batch()).unwrap());
        if number >= 16 {
            sent.pop_front();
            assert_eq!(stream.next().await.unwrap().unwrap().accepted, 1_000);
        }
    }
    stream.finish();
    while let Some(receipt) = stream.next().await.unwrap() {
        assert_eq!(receipt.accepted, 1_000);
    }
}

/// Snapshots are taken beside the load, so the first may be there a moment after the last message.
async fn expect_a_snapshot(stage: &Stage) {
    let started = now();
    while stage.broker.metric("tandem_shard_snapshot_index").await == 0.0 {
        assert!(started.elapsed() < Duration::from_secs(10), "no snapshot was taken, so the log is never purged");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The last message can be read, and a new one gets the next sequence.
async fn expect_all_there(stage: &Stage, last_sequence: u64) {
    let last = stage.history(HistoryQuery { from_sequence: last_sequence, ..HistoryQuery::default() }).await;
    assert_eq!(last.iter().map(|message| message.sequence).collect::<Vec<_>>(), [last_sequence]);
    let mut waiting = 0;
    for sandbox in ["b0", "b1", "b2", "b3"] {
        waiting += stage.pending(sandbox).await;
    }
    assert_eq!(waiting, last_sequence);
    let next = stage.publish(direct("alice", "b0", "next")).await;
    assert_eq!(next.sequence, last_sequence + 1);
}

#[tokio::test]
async fn promise_1_a_million_messages_are_back_within_three_seconds() {
    let stage =
        Stage::set_up(&["alice", "b0", "b1", "b2", "b3"], |config| config.limits.max_inbox_messages = MESSAGES).await;
    let started = now();
    fill(&stage).await;
    println!("{MESSAGES} messages of 256 bytes published in {:?}", started.elapsed());
    expect_a_snapshot(&stage).await;

    let stage = stage.crash_and_start().await;
    let after_kill = stage.broker.ready_after();
    println!("ready {after_kill:?} after kill -9");
    expect_all_there(&stage, MESSAGES).await;

    let stage = stage.stop_and_start().await;
    let after_stop = stage.broker.ready_after();
    println!("ready {after_stop:?} after a graceful stop");
    expect_all_there(&stage, MESSAGES + 1).await;
    assert_eq!(stage.broker.get("/ready").await.status, 200);
    assert!(after_kill < READY_WITHIN && after_stop < READY_WITHIN, "{after_kill:?} and {after_stop:?}");
}

/// The whole log, not only its end, is there after kill -9 with small snapshots and write buffers.
#[tokio::test]
async fn promise_1_a_log_over_many_snapshots_is_whole_after_kill_9() {
    let home = Home::new();
    let mut config = home.config();
    config.storage.snapshot_every_bytes = 1 << 20;
    config.storage.state_memtable_bytes = 1 << 20;
    let broker = BrokerProcess::start(&home, &config).await;
    let mut stage = Stage { client: broker.client(), home, config, broker };
    stage.register("alice").await;
    stage.register("bob").await;
    for round in 1..=3_u64 {
        let contents =
            (0..20_000).map(|number| direct("alice", "bob", format!("{round}-{number}-{}", "x".repeat(200))));
        stage.publish_all(contents).await;
        expect_a_snapshot(&stage).await;
        stage = stage.crash_and_start().await;
        assert_eq!(stage.pending("bob").await, round * 20_000);
    }
    let log = stage.history(HistoryQuery { page_size: 1_000, ..HistoryQuery::default() }).await;
    let expected = (1..=3).flat_map(|round| (0..20_000).map(move |number| format!("{round}-{number}-")));
    assert_eq!(log.len(), 60_000);
    for (message, start) in log.iter().zip(expected) {
        assert!(message.content.starts_with(start.as_bytes()), "{} is not {start}", message.sequence);
    }
}
