//! All shards of this node, over one log.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use tandem_storage::Engine;

use crate::{
    apply::{Apply, OpenState},
    commit_thread,
    error::{FatalError, FatalSink},
    group::Group,
    log_store::LogStore,
    metrics::CommitMetrics,
    state_home::StateHome,
};

/// How a node replicates.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// This node's id, from 1.
    pub node_id: u64,
    /// Directory under which each shard has its own, `shard-<n>`.
    pub data_dir: PathBuf,
    /// How many shards there are. Fixed when the cluster is created.
    pub shards: u32,
    /// A snapshot is taken, and the log purged behind it, after this many bytes of commands. Default 128 MiB: about what
    /// a restart applies again at the most.
    pub snapshot_every_bytes: u64,
    /// How much of the end of each shard's log stays in memory, in bytes. Default 16 MiB.
    pub log_cache_bytes: usize,
    /// How many entries the log keeps behind a snapshot, for followers that are a little late. Default 0.
    pub retained_log_entries: u64,
    /// Time between two heartbeats of a leader, in milliseconds. Default 100.
    pub heartbeat_interval_ms: u64,
    /// Without a heartbeat for one to two times this many milliseconds a follower calls an election. Default 500.
    pub election_timeout_ms: u64,
}

impl NodeOptions {
    /// Options with their defaults.
    pub fn new(node_id: u64, data_dir: PathBuf, shards: u32) -> Self {
        Self {
            node_id,
            data_dir,
            shards,
            snapshot_every_bytes: 128 << 20,
            log_cache_bytes: 16 << 20,
            retained_log_entries: 0,
            heartbeat_interval_ms: 100,
            election_timeout_ms: 500,
        }
    }
}

/// All shards of this node.
pub struct Node<A: Apply> {
    groups: Vec<Arc<Group<A>>>,
    log: Arc<dyn Engine>,
    commit_thread: Option<thread::JoinHandle<()>>,
}

impl<A: Apply> Node<A> {
    /// Starts every shard. `log` is the engine of the shared log, with [`crate::LOG_SPACES`] spaces; `opener` opens state
    /// engines; `apply` makes the applier of each shard. What must stop the node later is reported to `fatal`.
    pub async fn start(
        options: &NodeOptions,
        log: Arc<dyn Engine>,
        opener: Arc<dyn OpenState>,
        mut apply: impl FnMut(u32) -> A,
        metrics: CommitMetrics,
        fatal: FatalSink,
    ) -> Result<Self, FatalError> {
        let (commits, thread) = commit_thread::spawn(Arc::clone(&log), metrics, fatal.clone())
            .map_err(|error| FatalError::Raft { shard: 0, detail: format!("no commit thread: {error}") })?;
        let mut groups = Vec::new();
        for shard in 0..options.shards {
            let store = LogStore::open(shard, Arc::clone(&log), commits.clone(), options.log_cache_bytes)?;
            let home = StateHome::prepare(options.data_dir.join(format!("shard-{shard}")), Arc::clone(&opener))?;
            groups.push(Group::start(shard, options, store, home, apply(shard), fatal.clone()).await?);
        }
        Ok(Self { groups, log, commit_thread: Some(thread) })
    }

    /// The shards, by number.
    pub fn groups(&self) -> &[Arc<Group<A>>] {
        &self.groups
    }

    /// Ends every shard and makes log and state durable. Waits for the commit thread, so that no thread of ours works on an
    /// engine while the process ends; a group that is still held elsewhere keeps it from ending, and is not waited for
    /// longer than [`END_TIMEOUT`].
    pub async fn shutdown(mut self) -> Result<(), FatalError> {
        let mut result = Ok(());
        for group in self.groups.drain(..) {
            let ended = group.shutdown().await;
            result = result.and(ended);
        }
        let (log, thread) = (Arc::clone(&self.log), self.commit_thread.take());
        let ended = tokio::task::spawn_blocking(move || {
            if let Some(thread) = thread
                && !ends_in_time(&thread)
            {
                tracing::warn!("the commit thread is still held by somebody");
            }
            log.flush()
        });
        match ended.await {
            Ok(flushed) => result.and(flushed.map_err(FatalError::from)),
            Err(error) => Err(FatalError::Raft { shard: 0, detail: error.to_string() }),
        }
    }
}

/// How long the end of a node waits for the commit thread.
const END_TIMEOUT: Duration = Duration::from_secs(5);

fn ends_in_time(thread: &thread::JoinHandle<()>) -> bool {
    let steps = END_TIMEOUT.as_millis() / 5;
    for _ in 0..steps {
        if thread.is_finished() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    false
}
