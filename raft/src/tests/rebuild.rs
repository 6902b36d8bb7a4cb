//! Shards that are made anew before any shard of their node starts, and starts that fail.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    cluster::applied,
    damage::{agrees, damage, newest, only, purged, state},
    hub::until,
    journal::{Journal, rocks_log, rocks_states},
};
use crate::{CommitMetrics, FatalError, FatalSink, Node, NodeOptions, clock};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_wait_for_a_shard_lend_each_other_what_they_have() {
    let (mut trio, expected) = purged(2).await;
    let ids: Vec<u64> = trio.nodes.keys().copied().collect();
    for id in &ids {
        trio.stop(*id).await;
    }
    // Of three, one is gone, and of the others each has lost another shard.
    for (id, shard) in [(ids[0], 0), (ids[1], 1)] {
        let dir = trio.dirs[&id].path().join(format!("shard-{shard}"));
        assert_eq!(damage(&state(&dir), "CURRENT"), 1);
        assert!(damage(&newest(&dir.join("snapshots")), ".sst") > 0);
    }
    let fatal = FatalSink::default();
    let first = trio.starting(ids[0], &format!("disk-{}", ids[0]), fatal.clone());
    let second = trio.starting(ids[1], &format!("disk-{}", ids[1]), fatal.clone());
    let both = Box::pin(async { tokio::join!(first, second) });
    let started = tokio::time::timeout(Duration::from_secs(60), both);
    let (first, second) = started.await.expect("each gets its shard from the other");
    trio.nodes.insert(ids[0], first.unwrap());
    trio.nodes.insert(ids[1], second.unwrap());
    for id in &ids[..2] {
        for shard in 0..2 {
            until("it has everything again", || applied(&trio, *id, shard) == expected).await;
        }
    }
    trio.run(ids[2]).await;
    agrees(&trio, ids[0]).await;
    assert!(fatal.get().is_none());
    trio.shutdown().await;
}

/// A node that is alone, in a directory of its own.
async fn alone(dir: &std::path::Path) -> Result<Node<Journal>, FatalError> {
    let mut options = NodeOptions::new(1, dir.to_owned(), 2);
    options.snapshot_every_bytes = 20_000;
    let (log, apply) = (rocks_log(&dir.join("log")), |_| Journal::default());
    Node::start(&options, log, rocks_states(), apply, CommitMetrics::default(), FatalSink::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_at_its_second_shard_lets_go_of_the_first_and_destroys_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let node = alone(dir.path()).await.unwrap();
    let group = Arc::clone(&node.groups()[1]);
    while group.read_barrier().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 0..20_000 {
        if group.status().purged_index > 100 {
            break;
        }
        group.propose(Bytes::from(format!("{number:01000}"))).await.unwrap();
    }
    assert!(group.status().purged_index > 100, "the log is never purged");
    drop(group);
    node.shutdown().await.unwrap();
    let shard = dir.path().join("shard-1");
    assert_eq!(damage(&state(&shard), "CURRENT"), 1);
    assert!(damage(&newest(&shard.join("snapshots")), ".sst") > 0);
    let mut swiftest = Duration::MAX;
    for round in 0..3 {
        let begun = clock::now();
        // The log is opened at once, which fails where somebody still has it.
        let Err(error) = alone(dir.path()).await else { panic!("it started without a state") };
        assert_eq!(error.code(), "LOG_CORRUPT", "round {round}: {error}");
        assert!(error.to_string().contains("shard 1"), "round {round}: {error}");
        swiftest = swiftest.min(begun.elapsed());
        assert!(only(&shard.join("damaged-state"), "CURRENT").exists(), "round {round}: the last copies are kept");
        assert!(only(&shard.join("damaged-snapshot"), "CURRENT").exists(), "round {round}: the last copies are kept");
    }
    assert!(swiftest < Duration::from_secs(5), "somebody was waited for, each time: {swiftest:?}");
}
