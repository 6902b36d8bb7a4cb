//! openraft's own suite for log stores and state machines, on every engine.

use std::{sync::Arc, thread::JoinHandle};

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use tandem_storage::{Engine, FaultEngine, MemoryEngine};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::journal::{Journal, memory_states, rocks_log, rocks_states};
use crate::{
    CommitMetrics, FatalSink, LOG_SPACES, OpenState, commit_thread,
    log_store::LogStore,
    state_home::StateHome,
    state_machine::{SnapshotTrigger, StateMachine},
    transfers::Transfers,
    type_config::TypeConfig,
};

struct Builder {
    log: fn(&TempDir) -> Arc<dyn Engine>,
    states: fn() -> Arc<dyn OpenState>,
    cache_bytes: usize,
}

/// What lasts as long as a test of the suite, and ends with it: a thread that still closes its engine when the process ends
/// would use what the engine's library has already torn down.
struct Held {
    _dir: TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.thread.take().expect("it is held until now").join().expect("the commit thread ends well");
    }
}

impl StoreBuilder<TypeConfig, LogStore, StateMachine<Journal>, Held> for Builder {
    async fn build(&self) -> Result<(Held, LogStore, StateMachine<Journal>), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let fatal = FatalSink::default();
        let engine = (self.log)(&dir);
        let (commits, thread) =
            commit_thread::spawn(Arc::clone(&engine), CommitMetrics::default(), fatal.clone()).unwrap();
        let log = LogStore::open(0, engine, commits, self.cache_bytes).unwrap();
        let home = StateHome::prepare(0, dir.path().join("shard-0"), (self.states)(), FatalSink::default()).unwrap();
        let trigger =
            SnapshotTrigger { every_bytes: u64::MAX, wanted: Arc::new(Notify::new()), transfers: Transfers::default() };
        let state =
            StateMachine::open(0, home, Journal::default(), trigger, tokio::sync::watch::Sender::default(), 1, fatal)
                .unwrap();
        Ok((Held { _dir: dir, thread: Some(thread) }, log, state))
    }
}

async fn run(log: fn(&TempDir) -> Arc<dyn Engine>, states: fn() -> Arc<dyn OpenState>) {
    // With a cache, and without one: then every read goes to the engine.
    for cache_bytes in [1 << 20, 0] {
        Suite::test_all(Builder { log, states, cache_bytes }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_passes() {
    run(|_| Arc::new(MemoryEngine::new(LOG_SPACES)), memory_states).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_passes() {
    run(|_| Arc::new(FaultEngine::new(LOG_SPACES)), memory_states).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_passes() {
    run(|dir| rocks_log(&dir.path().join("log")), rocks_states).await;
}
