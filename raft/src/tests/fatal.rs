//! What must stop a node does stop it, with a plain reason.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tandem_storage::{Durability, Engine, FaultEngine, WriteBatch};

use super::journal::{Journal, memory_states};
use crate::{CommitMetrics, FatalError, FatalSink, LOG_SPACES, Node, NodeOptions, log_store};

struct Fixture {
    _dir: tempfile::TempDir,
    engine: Arc<FaultEngine>,
    node: Node<Journal>,
    fatal: FatalSink,
}

async fn start(poison: Option<Bytes>) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(FaultEngine::new(LOG_SPACES));
    let fatal = FatalSink::default();
    let options = NodeOptions::new(1, dir.path().to_owned(), 2);
    let apply = |_| Journal { poison: poison.clone() };
    let node =
        Node::start(&options, engine.clone(), memory_states(), apply, CommitMetrics::default(), fatal.clone()).await;
    let node = node.unwrap();
    while node.groups()[0].read_barrier().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Fixture { _dir: dir, engine, node, fatal }
}

async fn reason(fatal: &FatalSink) -> FatalError {
    tokio::time::timeout(Duration::from_secs(10), fatal.wait()).await.expect("the node was told to stop")
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_1_a_failed_fsync_acknowledges_nothing_and_stops_the_node() {
    let fixture = start(None).await;
    fixture.engine.handle().fail_next_sync();
    let outcome = fixture.node.groups()[0].propose(Bytes::from_static(b"lost")).await;
    assert!(outcome.is_err(), "{outcome:?}");
    let error = reason(&fixture.fatal).await;
    assert_eq!(error.code(), "STORAGE_FAILED");
    assert!(error.to_string().contains("must stop"), "{error}");
    assert!(fixture.node.groups()[1].propose(Bytes::from_static(b"later")).await.is_err(), "no second try");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_stops_the_node_and_says_so() {
    let fixture = start(None).await;
    fixture.engine.handle().fill_disk(10);
    assert!(fixture.node.groups()[0].propose(Bytes::from(vec![0; 1000])).await.is_err());
    let error = reason(&fixture.fatal).await;
    assert_eq!(error.code(), "STORAGE_FULL");
    assert!(error.to_string().contains("free space"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_be_applied_stops_the_node() {
    let poison = Bytes::from_static(b"poison");
    let fixture = start(Some(poison.clone())).await;
    fixture.node.groups()[0].propose(Bytes::from_static(b"fine")).await.unwrap();
    assert!(fixture.node.groups()[0].propose(poison).await.is_err());
    assert_eq!(reason(&fixture.fatal).await.code(), "APPLY_FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_and_a_flipped_bit_in_the_log_are_found_when_read() {
    use openraft::RaftLogReader;

    let fixture = start(None).await;
    for number in 0..10_u8 {
        fixture.node.groups()[0].propose(Bytes::from(vec![number; 10])).await.unwrap();
    }
    let engine: Arc<dyn Engine> = fixture.engine.clone();
    let (commits, _thread) =
        crate::commit_thread::spawn(Arc::clone(&engine), CommitMetrics::default(), FatalSink::default()).unwrap();
    let mut log = log_store::LogStore::open(0, Arc::clone(&engine), commits, 0).unwrap();
    assert_eq!(log.try_get_log_entries(1..8).await.unwrap().len(), 7);

    let key = log_store::entry_key(0, 5);
    let mut record = engine.get(log_store::ENTRIES, &key).unwrap().unwrap().to_vec();
    record[20] ^= 1;
    let mut writes = WriteBatch::new();
    writes.put(log_store::ENTRIES, key.clone(), record);
    engine.write(writes, Durability::Synced).unwrap();
    let text = log.try_get_log_entries(1..8).await.unwrap_err().to_string();
    assert!(text.contains("log entry 5") && text.contains("checksum mismatch"), "{text}");

    let mut writes = WriteBatch::new();
    writes.delete(log_store::ENTRIES, key);
    engine.write(writes, Durability::Synced).unwrap();
    let text = log.try_get_log_entries(1..8).await.unwrap_err().to_string();
    assert!(text.contains("log entry 5 is missing"), "{text}");
}
