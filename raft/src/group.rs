//! One Raft group: a shard.

use std::sync::Arc;

use bytes::Bytes;
use openraft::{
    Config, Raft, ReadPolicy, SnapshotPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, InitializeError, RaftError},
    impls::{BasicNode, ProgressResponder},
    raft::ClientWriteResult,
};
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    apply::Apply,
    error::{FatalError, FatalSink, ProposeError},
    log_store::LogStore,
    network::SingleNode,
    node::NodeOptions,
    state_home::StateHome,
    state_machine::{EngineSlot, SnapshotTrigger, StateMachine},
    type_config::{Command, TypeConfig},
};

/// Who leads a shard, as this node knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// The leader of the term, once known.
    pub leader: Option<u64>,
    /// Whether this node is that leader.
    pub is_leader: bool,
}

/// Where a shard stands, for operators.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Who leads.
    pub leadership: Leadership,
    /// Index of the newest log entry; 0 when there is none.
    pub last_log_index: u64,
    /// Index of the newest applied entry.
    pub applied_index: u64,
    /// Index up to which a snapshot reaches.
    pub snapshot_index: u64,
    /// Index up to which the log is purged.
    pub purged_index: u64,
}

/// A command that was handed in; a future of its outcome.
pub struct Pending(oneshot::Receiver<ClientWriteResult<TypeConfig>>);

/// A shard on this node. Shared behind an `Arc`.
pub struct Group<A: Apply> {
    shard: u32,
    raft: Raft<TypeConfig, StateMachine<A>>,
    engine: EngineSlot,
    leadership: watch::Receiver<Leadership>,
    snapshots: tokio::task::AbortHandle,
}

impl<A: Apply> Group<A> {
    /// Opens the log and the state of a shard and starts it. A new shard becomes a group with this node as its only
    /// voter.
    pub(crate) async fn start(
        shard: u32,
        options: &NodeOptions,
        log: LogStore,
        home: StateHome,
        apply: A,
        fatal: FatalSink,
    ) -> Result<Arc<Self>, FatalError> {
        let stopped = |detail: String| FatalError::Raft { shard, detail };
        let wanted = Arc::new(Notify::new());
        let trigger = SnapshotTrigger { every_bytes: options.snapshot_every_bytes, wanted: Arc::clone(&wanted) };
        let state = StateMachine::open(shard, home, apply, trigger, fatal.clone())?;
        let (reach, purged) = (state.reach()?, log.purged_index());
        if purged > reach {
            let detail = format!("it reaches log entry {reach}, but the log begins behind entry {purged}");
            return Err(FatalError::Record { place: format!("state of shard {shard}"), detail });
        }
        let engine = state.engine();
        let config = raft_config(shard, options).map_err(|error| stopped(error.to_string()))?;
        let raft = Raft::new(options.node_id, Arc::new(config), SingleNode, log, state)
            .await
            .map_err(|error| stopped(error.to_string()))?;
        let member = (options.node_id, BasicNode::default());
        match raft.initialize(std::collections::BTreeMap::from([member])).await {
            // A new group elects by itself.
            Ok(()) => {}
            // An old one would wait for the election timeout; its only voter need not.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                raft.trigger().elect(false).await.map_err(|error| stopped(error.to_string()))?;
            }
            Err(error) => return Err(stopped(error.to_string())),
        }
        let (sender, leadership) = watch::channel(Leadership::default());
        tokio::spawn(watch_core(shard, raft.clone(), sender, fatal));
        let snapshots = tokio::spawn(take_snapshots(raft.clone(), wanted)).abort_handle();
        Ok(Arc::new(Self { shard, raft, engine, leadership, snapshots }))
    }

    /// The number of this shard.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// Hands in a command. Commands of one caller are committed in the order of these calls; the outcome comes later, so
    /// several may be under way.
    pub async fn submit(&self, command: Bytes) -> Result<Pending, ProposeError> {
        let (responder, outcome) = ProgressResponder::complete_only();
        let submitted = self.raft.client_write_ff(Command(command), Some(responder)).await;
        submitted.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        Ok(Pending(outcome))
    }

    /// Hands in a command and waits for its outcome.
    pub async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        self.submit(command).await?.outcome().await
    }

    /// Returns once the local state holds everything that was acknowledged before the call.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        match self.raft.ensure_linearizable(ReadPolicy::LeaseRead).await {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(error)) => Err(ProposeError::Stopped(error.to_string())),
            Err(RaftError::APIError(_)) => match self.leadership.borrow().leader {
                Some(leader) if leader != *self.raft.node_id() => Err(ProposeError::NotLeader(Some(leader))),
                _ => Err(ProposeError::Unsettled),
            },
        }
    }

    /// Follows who leads.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Where the shard stands.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |id: Option<crate::type_config::LogId>| id.map_or(0, |id| id.index);
        GroupStatus {
            leadership: *self.leadership.borrow(),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: index(metrics.last_applied),
            snapshot_index: index(metrics.snapshot),
            purged_index: index(metrics.purged),
        }
    }

    #[cfg(test)]
    pub(crate) fn engine_for_tests(&self) -> Arc<dyn tandem_storage::Engine> {
        Arc::clone(&self.engine.lock())
    }

    /// Takes a snapshot soon, and purges the log behind it.
    pub async fn trigger_snapshot(&self) -> Result<(), ProposeError> {
        self.raft.trigger().snapshot().await.map_err(|error| ProposeError::Stopped(error.to_string()))
    }

    /// Ends the group; then makes the state durable, so that the next start has nothing to apply again.
    pub(crate) async fn shutdown(&self) -> Result<(), FatalError> {
        self.snapshots.abort();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(shard = self.shard, %error, "replication did not end in order");
        }
        let engine = Arc::clone(&self.engine.lock());
        let flushed = tokio::task::spawn_blocking(move || engine.flush()).await;
        match flushed {
            Ok(result) => Ok(result?),
            Err(error) => Err(FatalError::Raft { shard: self.shard, detail: error.to_string() }),
        }
    }
}

impl Pending {
    /// Waits until the command has been applied.
    pub async fn outcome(self) -> Result<Bytes, ProposeError> {
        match self.0.await {
            Ok(Ok(response)) => Ok(response.data.0),
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => match forward.leader_id {
                Some(leader) => Err(ProposeError::NotLeader(Some(leader))),
                // A leader without a lease answers so, too: it passes.
                None => Err(ProposeError::Unsettled),
            },
            Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
            Err(_) => Err(ProposeError::Unsettled),
        }
    }
}

fn raft_config(shard: u32, options: &NodeOptions) -> Result<Config, openraft::ConfigError> {
    Config {
        cluster_name: format!("shard-{shard}"),
        heartbeat_interval: options.heartbeat_interval_ms,
        election_timeout_min: options.election_timeout_ms,
        election_timeout_max: options.election_timeout_ms * 2,
        // Taken by bytes, not by entries: an entry holds from one message to thousands.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: options.retained_log_entries,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        ..Config::default()
    }
    .validate()
}

async fn watch_core<A: Apply>(
    shard: u32,
    raft: Raft<TypeConfig, StateMachine<A>>,
    leadership: watch::Sender<Leadership>,
    fatal: FatalSink,
) {
    let mut metrics = raft.metrics();
    loop {
        let (now, running) = {
            let seen = metrics.borrow_and_update();
            let leader = seen.current_leader;
            let is_leader = leader == Some(seen.id) && seen.state.is_leader();
            (Leadership { term: seen.current_term, leader, is_leader }, seen.running_state.clone())
        };
        leadership.send_if_modified(|seen| std::mem::replace(seen, now) != now);
        match running {
            Err(openraft::errors::Fatal::Stopped) => return,
            Err(error) => {
                fatal.report(FatalError::Raft { shard, detail: error.to_string() });
                return;
            }
            Ok(()) => {}
        }
        if metrics.changed().await.is_err() {
            return;
        }
    }
}

async fn take_snapshots<A: Apply>(raft: Raft<TypeConfig, StateMachine<A>>, wanted: Arc<Notify>) {
    loop {
        wanted.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
