//! Snapshots, purges, and restarts from them, on the engines of production.

use std::{path::Path, time::Duration};

use bytes::Bytes;

use super::journal::{Journal, commands, rocks_log, rocks_states};
use crate::{CommitMetrics, FatalSink, Node, NodeOptions};

async fn start(dir: &Path, snapshot_every_bytes: u64) -> Node<Journal> {
    let options = NodeOptions { snapshot_every_bytes, ..NodeOptions::new(1, dir.to_owned(), 2) };
    let log = rocks_log(&dir.join("log"));
    let apply = |_| Journal::default();
    let node = Node::start(&options, log, rocks_states(), apply, CommitMetrics::default(), FatalSink::default())
        .await
        .unwrap();
    for group in node.groups() {
        while group.read_barrier().await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    node
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

fn command(number: u32) -> Bytes {
    Bytes::from([number.to_be_bytes().as_slice(), &[7; 1_000]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_purged_behind_snapshots_and_restarts_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    for round in 0..3 {
        let node = start(dir.path(), 200_000).await;
        let group = &node.groups()[1];
        assert_eq!(commands(group.engine_for_tests().as_ref()), expected, "round {round}");
        for number in 0..500 {
            let command = command(round * 1_000 + number);
            group.propose(command.clone()).await.unwrap();
            expected.push(command);
        }
        until("a snapshot and a purge", || group.status().purged_index > u64::from(round) * 500).await;
        let status = group.status();
        assert!(status.purged_index <= status.snapshot_index && status.snapshot_index <= status.applied_index);
        let kept = std::fs::read_dir(dir.path().join("shard-1/snapshots")).unwrap().count();
        assert!(kept <= 2, "old snapshots go: {kept}");
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_behind_is_caught_up_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), u64::MAX).await;
    let expected: Vec<_> = (0..300).map(command).collect();
    for command in &expected {
        node.groups()[0].propose(command.clone()).await.unwrap();
    }
    node.shutdown().await.unwrap();
    // The state as it would be when nothing of it had reached the disk.
    for entry in std::fs::read_dir(dir.path().join("shard-0")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    let node = start(dir.path(), u64::MAX).await;
    assert_eq!(commands(node.groups()[0].engine_for_tests().as_ref()), expected);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_entries_are_no_more_than_what_came_between_two_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions {
        snapshot_every_bytes: 50_000,
        retained_log_entries: 1_000_000,
        ..NodeOptions::new(1, dir.path().to_owned(), 1)
    };
    let log = rocks_log(&dir.path().join("log"));
    let (commits, fatal) = (CommitMetrics::default(), FatalSink::default());
    let node = Node::start(&options, log, rocks_states(), |_| Journal::default(), commits, fatal).await.unwrap();
    let group = &node.groups()[0];
    while group.read_barrier().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut number = 0;
    while group.status().purged_index < 100 {
        group.propose(command(number)).await.unwrap();
        number += 1;
        assert!(number < 100_000, "a million entries may have a million times any size");
    }
    let status = group.status();
    assert!(status.purged_index < status.snapshot_index, "what came since the snapshot before the newest is kept");
    node.shutdown().await.unwrap();
}
