//! What a look for damage finds, and what it does not take for damage.

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use tandem_storage::{Durability, Engine, FaultEngine, WriteBatch};

use super::{
    hub::until,
    journal::{Journal, memory_states, rocks_log, rocks_states},
};
use crate::{
    CommitMetrics, FatalSink, LOG_SPACES, Node, NodeOptions, Part,
    damage::Note,
    log_store::{ENTRIES, entry_key},
    scrub::check_suspected_log,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_with_a_hole_is_not_forgiven() {
    let (dir, log) = (tempfile::tempdir().unwrap(), Arc::new(FaultEngine::new(LOG_SPACES)));
    let options = NodeOptions::new(1, dir.path().to_owned(), 1);
    let (apply, engine): (_, Arc<dyn Engine>) = (|_| Journal::default(), log);
    let metrics = CommitMetrics::default();
    let node = Node::start(&options, Arc::clone(&engine), memory_states(), apply, metrics, FatalSink::default());
    let node = node.await.unwrap();
    while node.groups()[0].read_barrier().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 0..10_u8 {
        node.groups()[0].propose(Bytes::from(vec![number; 10])).await.unwrap();
    }
    node.shutdown().await.unwrap();
    let note = Note::in_dir(dir.path(), Part::Log);
    drop(note.take_down("something in a memory that has been changed since"));
    check_suspected_log(engine.as_ref(), &note).unwrap();
    assert!(!note.exists(), "what is whole is forgiven");

    drop(note.take_down("log entry 5 is missing"));
    let mut writes = WriteBatch::new();
    writes.delete(ENTRIES, entry_key(0, 5));
    engine.write(writes, Durability::Synced).unwrap();
    let apply = |_| Journal::default();
    let metrics = CommitMetrics::default();
    let started = Node::start(&options, engine, memory_states(), apply, metrics, FatalSink::default()).await;
    let Err(error) = started else { panic!("it votes again, with lost entries") };
    assert_eq!(error.code(), "LOG_DAMAGED", "{error}");
    assert!(error.to_string().contains("entries before 6 are missing"), "{error}");
    assert!(note.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_cannot_be_linked_is_no_damage_and_is_looked_at_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = NodeOptions::new(1, dir.path().to_owned(), 1);
    options.scrub.interval = Duration::from_millis(24);
    options.scrub.bytes_per_second = 1 << 30;
    let mut registry = prometheus_client::registry::Registry::default();
    options.scrub.metrics.register(&mut registry);
    let counted = |name: &str| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        line.trim().parse::<u64>().unwrap()
    };
    let fatal = FatalSink::default();
    let (log, apply) = (rocks_log(&dir.path().join("log")), |_| Journal::default());
    let node =
        Node::start(&options, log, rocks_states(), apply, CommitMetrics::default(), fatal.clone()).await.unwrap();
    let group = &node.groups()[0];
    while group.read_barrier().await.is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    group.propose(Bytes::from(vec![7; 10_000])).await.unwrap();
    group.trigger_snapshot().await.unwrap();
    until("there is a snapshot", || group.home().newest_snapshot().is_some()).await;
    // Where the links go is no directory.
    let checking = dir.path().join("shard-0/checking");
    until("the place is free", || {
        // Only when it is empty: a copy that is being read would be damaged.
        fs::remove_dir(&checking).ok();
        fs::write(&checking, b"in the way").is_ok()
    })
    .await;
    let read = counted("scrub_bytes_total");
    until("some passes went on to the log and the state", || counted("scrub_bytes_total") > read + 100_000).await;
    let stuck = counted("scrub_passes_total");
    let read = counted("scrub_bytes_total");
    until("some more", || counted("scrub_bytes_total") > read + 100_000).await;
    assert_eq!(counted("scrub_passes_total"), stuck, "a pass that did not read everything does not count");
    assert_eq!((fatal.get().map(|error| error.to_string()), counted("scrub_findings_total")), (None, 0));
    fs::remove_file(&checking).unwrap();
    until("passes come to their end again", || counted("scrub_passes_total") > stuck).await;
    node.shutdown().await.unwrap();
}
