//! Power losses: what had an outcome is there afterwards, in order, once.

use std::sync::Arc;

use bytes::Bytes;
use tandem_storage::{Disk, FaultEngine, Tear};

use super::journal::{Journal, commands, memory_states};
use crate::{CommitMetrics, FatalSink, LOG_SPACES, Node, NodeOptions};

async fn start(log: Arc<FaultEngine>, shards: u32) -> (tempfile::TempDir, Node<Journal>) {
    // A new directory each time: the states are lost with the power, only the log's disk remains.
    let dir = tempfile::tempdir().unwrap();
    let options = NodeOptions::new(1, dir.path().to_owned(), shards);
    let apply = |_| Journal::default();
    let node = Node::start(&options, log, memory_states(), apply, CommitMetrics::default(), FatalSink::default());
    (dir, node.await.unwrap())
}

async fn ready(node: &Node<Journal>) {
    for group in node.groups() {
        while group.read_barrier().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
}

fn command(round: u32, shard: u32, number: u32) -> Bytes {
    Bytes::from(format!("{round}/{shard}/{number}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_what_has_an_outcome_survives_a_power_loss() {
    let mut disk: Option<Disk> = None;
    let mut acknowledged: Vec<Vec<Bytes>> = vec![Vec::new(); 3];
    for round in 0..12 {
        let engine = Arc::new(match disk.take() {
            Some(disk) => FaultEngine::recover(disk).unwrap(),
            None => FaultEngine::new(LOG_SPACES),
        });
        let power = engine.handle();
        let (_dir, node) = start(engine, 3).await;
        ready(&node).await;
        for (shard, group) in node.groups().iter().enumerate() {
            let applied = commands(group.engine_for_tests().as_ref());
            let missing: Vec<_> = acknowledged[shard].iter().filter(|command| !applied.contains(command)).collect();
            assert!(missing.is_empty(), "round {round}, shard {shard}: lost {missing:?}");
            let unique: std::collections::BTreeSet<_> = applied.iter().collect();
            assert_eq!(unique.len(), applied.len(), "round {round}, shard {shard}: something is there twice");
        }
        let mut tasks = Vec::new();
        for (shard, group) in node.groups().iter().enumerate() {
            let group = Arc::clone(group);
            tasks.push(tokio::spawn(async move {
                let mut done = Vec::new();
                for number in 0..40 {
                    let command = command(round, shard as u32, number);
                    if group.propose(command.clone()).await.is_ok() {
                        done.push(command);
                    }
                }
                done
            }));
        }
        // Somewhere in the middle of it, at another place each round.
        tokio::time::sleep(std::time::Duration::from_micros(u64::from(round) * 700)).await;
        let unsynced = power.journal_bytes() - power.synced_bytes();
        disk = Some(power.crash(Tear::Keep(unsynced / 2)));
        for (shard, task) in tasks.into_iter().enumerate() {
            acknowledged[shard].extend(task.await.unwrap());
        }
    }
    assert!(acknowledged.iter().map(Vec::len).sum::<usize>() > 10, "the test acknowledged next to nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_below_the_durable_mark_refuses_to_open() {
    let engine = Arc::new(FaultEngine::new(LOG_SPACES));
    let power = engine.handle();
    let (_dir, node) = start(engine, 1).await;
    ready(&node).await;
    for number in 0..10 {
        node.groups()[0].propose(command(0, 0, number)).await.unwrap();
    }
    let mut disk = power.crash(Tear::All);
    assert!(disk.flip_byte(disk.synced_bytes() / 2));
    assert!(matches!(FaultEngine::recover(disk), Err(tandem_storage::Error::Corrupt { .. })));
}
