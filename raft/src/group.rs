//! One Raft group: a shard.

mod digests;
mod membership;
mod purge;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes};
use openraft::{
    Config, LinearizerOption, Raft, RaftLogReader, SnapshotPolicy,
    async_runtime::WatchReceiver,
    errors::{ClientWriteError, InitializeError, RaftError},
    impls::{BasicNode, ProgressResponder},
    raft::ClientWriteResult,
};
use tokio::sync::{Notify, oneshot, watch};

use crate::{
    apply::Apply,
    digest::Digests,
    error::{FatalError, FatalSink, ProposeError},
    lease::Lease,
    log_store::LogStore,
    node::NodeOptions,
    pace::Pace,
    peers::{Links, network::PeerNetwork, question},
    roll::Roll,
    scrub::Scrubbed,
    snapshot::SnapshotDir,
    state_home::StateHome,
    state_machine::{EngineSlot, SnapshotTrigger, StateMachine},
    transfers::Transfers,
    type_config::{Command, TypeConfig, Vote},
};

pub use self::membership::Standing;
use self::purge::Purging;

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
    /// Index of the newest entry known to be on a majority of disks.
    pub committed_index: u64,
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
    lease: Lease,
    tasks: Vec<tokio::task::AbortHandle>,
    transfers: Transfers,
    links: Option<Arc<Links>>,
    home: StateHome,
    /// See [`Self::may_vote`].
    quiet: Arc<AtomicBool>,
    digests: Digests,
}

/// What a shard is made of.
pub(crate) struct Parts<A> {
    pub(crate) log: LogStore,
    pub(crate) home: StateHome,
    pub(crate) apply: A,
    pub(crate) network: PeerNetwork,
    /// Where rolls go that this shard holds.
    pub(crate) rolls: watch::Sender<Roll>,
    /// The newest level that this node can apply.
    pub(crate) newest_level: u32,
    /// Whether a new shard becomes a group by itself. Otherwise it waits for a leader that takes it in.
    pub(crate) bootstraps: bool,
}

/// How long a follower waits for what its leader has applied already.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(5);

impl<A: Apply> Group<A> {
    /// Opens the log and the state of a shard and starts it. A new shard becomes a group with the members of the cluster as
    /// its voters, or with this node alone.
    pub(crate) async fn start(
        shard: u32,
        options: &NodeOptions,
        parts: Parts<A>,
        fatal: FatalSink,
    ) -> Result<Arc<Self>, FatalError> {
        let Parts { log, home, apply, network, rolls, newest_level, bootstraps } = parts;
        let (links, transfers) = (network.links.clone(), network.transfers.clone());
        let (metrics, contacts) = (network.metrics.clone(), Arc::clone(&network.contacts));
        let stopped = |detail: String| FatalError::Raft { shard, detail };
        let wanted = Arc::new(Notify::new());
        let every_bytes = options.snapshot_every_bytes;
        let trigger = SnapshotTrigger { every_bytes, wanted: Arc::clone(&wanted), transfers: transfers.clone() };
        let state = StateMachine::open(shard, home.clone(), apply, trigger, rolls, newest_level, fatal.clone())?;
        let (reach, purged) = (state.reach(), log.purged_index());
        if purged > reach {
            let detail = format!("it reaches log entry {reach}, but the log begins behind entry {purged}");
            return Err(FatalError::Record { place: format!("state of shard {shard}"), detail });
        }
        let (engine, digests) = (state.engine(), state.digests());
        let voted =
            links.is_some() && log.clone().read_vote().await.map_err(|error| stopped(error.to_string()))?.is_some();
        let config = raft_config(shard, options, links.is_some()).map_err(|error| stopped(error.to_string()))?;
        let raft = Raft::new(options.node_id, Arc::new(config), network, log, state)
            .await
            .map_err(|error| stopped(error.to_string()))?;
        let quiet = Arc::new(AtomicBool::new(voted));
        let promised = Duration::from_millis(options.election_timeout_ms * 2);
        let lease = Lease::new(contacts, raft.metrics(), links.is_some().then_some(promised));
        let mut tasks = Vec::new();
        if voted {
            // Nor does it ask for votes: its own would count.
            raft.runtime_config().elect(false);
            tasks.push(tokio::spawn(keep_quiet(raft.clone(), Arc::clone(&quiet), promised)).abort_handle());
        }
        if bootstraps && let Err(error) = begin(&raft, shard, links.as_deref()).await {
            tasks.iter().for_each(tokio::task::AbortHandle::abort);
            raft.shutdown().await.ok();
            return Err(stopped(error));
        }
        let (sender, leadership) = watch::channel(Leadership::default());
        tokio::spawn(watch_core(shard, raft.clone(), sender, fatal));
        tasks.push(tokio::spawn(take_snapshots(raft.clone(), wanted)).abort_handle());
        let purging =
            Purging { shard, raft: raft.clone(), transfers: transfers.clone(), metrics, limits: options.into() };
        tasks.push(tokio::spawn(purging.run()).abort_handle());
        Ok(Arc::new(Self { shard, raft, engine, leadership, lease, tasks, transfers, links, home, quiet, digests }))
    }

    /// Whether this node may help another one to lead. A leader answers reads for as long as a majority has promised it not to
    /// vote, and who has just started does not know any more whether it had: for that long it gives no vote.
    pub(crate) fn may_vote(&self) -> bool {
        !self.quiet.load(Ordering::Acquire)
    }

    /// The number of this shard.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// Hands in a command. Commands of one caller are committed in the order of these calls; the outcome comes later, so
    /// several may be under way.
    pub async fn submit(&self, command: Bytes) -> Result<Pending, ProposeError> {
        let (responder, outcome) = ProgressResponder::complete_only();
        let submitted = self.raft.client_write_ff(Command::Apply(command), Some(responder)).await;
        submitted.map_err(|error| ProposeError::Stopped(error.to_string()))?;
        Ok(Pending(outcome))
    }

    /// Whether commands of a level may be handed in: every member can apply them. A node that is alone asks only itself.
    ///
    /// # Errors
    /// [`ProposeError::LevelTooLow`] with the nodes that an upgrade waits for.
    pub fn allows(&self, needed: u32) -> Result<(), ProposeError> {
        let Some(links) = &self.links else { return Ok(()) };
        let level = links.gate.roster.roll().level();
        if needed <= level {
            return Ok(());
        }
        Err(ProposeError::LevelTooLow { needed, level, who: links.below(needed) })
    }

    /// Hands in a command and waits for its outcome.
    pub async fn propose(&self, command: Bytes) -> Result<Bytes, ProposeError> {
        self.submit(command).await?.outcome().await
    }

    /// Returns once the local state holds everything that was acknowledged before the call. A node that does not lead asks
    /// the leader how far that is, and waits until it has applied it.
    pub async fn read_barrier(&self) -> Result<(), ProposeError> {
        let leadership = *self.leadership.borrow();
        match (&self.links, leadership.leader) {
            (Some(links), Some(leader)) if !leadership.is_leader => {
                let connection = links.connection(leader).ok_or(ProposeError::Unsettled)?;
                let answer = question::read_index(&connection, self.shard).await;
                let mut body = answer.map_err(|_| ProposeError::Unsettled)?;
                let index = body.try_get_u64().map_err(|_| ProposeError::Unsettled)?;
                let wait = self.raft.wait(Some(CATCH_UP_TIMEOUT));
                let caught_up = wait.applied_index_at_least(Some(index), "a read").await;
                caught_up.map(drop).map_err(|_| ProposeError::Unsettled)
            }
            _ => self.leader_barrier().await,
        }
    }

    /// The same, on the leader only. Where its lease has ended, it asks the others, for as long as a lease.
    pub async fn leader_barrier(&self) -> Result<(), ProposeError> {
        // The lease as openraft has it is a condition, and not enough (`lease.rs`).
        let read = match self.raft.ensure_linearizable(LinearizerOption::new(None, true)).await {
            Ok(read) => read,
            Err(RaftError::Fatal(error)) => return Err(ProposeError::Stopped(error.to_string())),
            Err(RaftError::APIError(_)) => return Err(self.not_leading()),
        };
        let ask = async { drop(self.raft.trigger().heartbeat().await) };
        match self.lease.holds_soon(read.committed_leader_id().term, ask).await {
            true => Ok(()),
            false => Err(self.not_leading()),
        }
    }

    fn not_leading(&self) -> ProposeError {
        match self.leadership.borrow().leader {
            Some(leader) if leader != *self.raft.node_id() => ProposeError::NotLeader(Some(leader)),
            _ => ProposeError::Unsettled,
        }
    }

    /// What tells whether this node may act as the leader.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Hands leadership to another voter; without effect where this node does not lead. Watch [`Self::leadership`] for what
    /// comes of it.
    pub async fn transfer_leader(&self, to: u64) -> Result<(), ProposeError> {
        // openraft proposes nothing more in this term, whatever comes of it.
        self.lease.hand_over();
        self.raft.trigger().transfer_leader(to).await.map_err(|error| ProposeError::Stopped(error.to_string()))
    }

    /// Calls an election now, if the others let it.
    pub async fn elect(&self) -> Result<(), ProposeError> {
        if !self.may_vote() {
            return Ok(());
        }
        self.raft.trigger().elect(true).await.map_err(|error| ProposeError::Stopped(error.to_string()))
    }

    /// How far each voter's log is, by node; empty where this node does not lead.
    pub fn matched(&self) -> BTreeMap<u64, u64> {
        let standing = self.standing();
        let voters = |node: &u64| standing.voters.last().is_some_and(|voters| voters.contains(node));
        standing.matched.iter().filter(|(node, _)| voters(node)).map(|(node, index)| (*node, *index)).collect()
    }

    /// Peers that have just been connected need not wait out a backoff.
    pub(crate) async fn retry_now(&self, nodes: Vec<u64>) {
        if self.leadership.borrow().is_leader {
            self.raft.trigger().reset_backoff(nodes).await.ok();
        }
    }

    pub(crate) fn raft(&self) -> &Raft<TypeConfig, StateMachine<A>> {
        &self.raft
    }

    /// Where its states and snapshots lie.
    pub(crate) fn home(&self) -> &StateHome {
        &self.home
    }

    /// The newest vote of this node.
    pub(crate) fn vote(&self) -> Vote {
        self.raft.metrics().borrow_watched().vote
    }

    /// Reads a snapshot that came from another node as a whole: what is damaged there must not come here. As fast as `pace`
    /// allows, because other shards serve meanwhile, and no longer than somebody waits for it.
    pub(crate) async fn check_received(&self, received: &SnapshotDir, pace: Option<Pace>) -> Result<(), FatalError> {
        let (home, received) = (self.home.clone(), received.clone());
        let (waits, waited_for) = oneshot::channel::<()>();
        let mut pace = pace;
        let checked = crate::blocking::run(move || {
            let wanted = || !waits.is_closed();
            home.check_received(&received, &mut |bytes| {
                pace.as_mut().map_or_else(wanted, |pace| pace.spend(bytes, wanted))
            })
        });
        let _waited_for = waited_for;
        checked.await.map_err(|error| FatalError::Raft { shard: self.shard, detail: error.to_string() })?
    }

    /// What the scrub looks at.
    pub(crate) fn scrubbed(&self) -> Scrubbed {
        Scrubbed { shard: self.shard, state: Arc::clone(&self.engine), home: self.home.clone() }
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
            committed_index: index(metrics.local_committed).max(index(metrics.last_applied)),
            applied_index: index(metrics.last_applied),
            snapshot_index: index(metrics.snapshot),
            purged_index: index(metrics.purged),
        }
    }

    #[cfg(test)]
    pub(crate) fn engine_for_tests(&self) -> Arc<dyn tandem_storage::Engine> {
        Arc::clone(&self.engine.lock())
    }

    #[cfg(test)]
    pub(crate) fn transfers_for_tests(&self) -> &Transfers {
        &self.transfers
    }

    /// Takes a snapshot soon, and purges the log behind it.
    pub async fn trigger_snapshot(&self) -> Result<(), ProposeError> {
        self.raft.trigger().snapshot().await.map_err(|error| ProposeError::Stopped(error.to_string()))
    }

    /// Ends the group; then makes the state durable, so that the next start has nothing to apply again.
    pub(crate) async fn shutdown(&self) -> Result<(), FatalError> {
        self.tasks.iter().for_each(tokio::task::AbortHandle::abort);
        self.digests.end();
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(shard = self.shard, %error, "replication did not end in order");
        }
        let (home, engine) = (self.home.clone(), Arc::clone(&self.engine.lock()));
        let ended = crate::blocking::run(move || {
            home.end();
            engine.flush()
        });
        let flushed = ended.await;
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
            // Refused before it was appended. A leader without a lease answers so, too, and names nobody: it passes.
            Ok(Err(ClientWriteError::ForwardToLeader(forward))) => Err(ProposeError::NotLeader(forward.leader_id)),
            // Another leader's log took its place here; that one may have it all the same.
            Ok(Err(ClientWriteError::LogEntryDiscarded(_))) => Err(ProposeError::Unsettled),
            Ok(Err(error)) => Err(ProposeError::Stopped(error.to_string())),
            Err(_) => Err(ProposeError::Unsettled),
        }
    }
}

/// Makes a new shard a group, and lets an old one find its leader soon.
async fn begin<A: Apply>(
    raft: &Raft<TypeConfig, StateMachine<A>>,
    shard: u32,
    links: Option<&Links>,
) -> Result<(), String> {
    let own = *raft.node_id();
    let members: BTreeMap<u64, BasicNode> = match links {
        None => BTreeMap::from([(own, BasicNode::default())]),
        Some(links) => {
            let members = links.gate.roster.members();
            members.into_iter().map(|(id, addr)| (id, BasicNode { addr })).collect()
        }
    };
    let preferred = preferred_leader(shard, members.keys().copied());
    match raft.initialize(members).await {
        // A group of one elects by itself; of several, the one that shall lead need not wait for the others' timeouts.
        Ok(()) if links.is_some() && preferred == Some(own) => {
            raft.trigger().elect(false).await.map_err(|error| error.to_string())
        }
        Ok(()) => Ok(()),
        // Its only voter need not wait for the election timeout.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) if links.is_none() => {
            raft.trigger().elect(false).await.map_err(|error| error.to_string())
        }
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Who should lead a shard, so that leaders are spread over the members.
pub(crate) fn preferred_leader(shard: u32, members: impl Iterator<Item = u64>) -> Option<u64> {
    let members: Vec<u64> = members.collect();
    members.get(shard as usize % members.len().max(1)).copied()
}

fn raft_config(shard: u32, options: &NodeOptions, clustered: bool) -> Result<Config, openraft::ConfigError> {
    Config {
        cluster_name: format!("shard-{shard}"),
        heartbeat_interval: options.heartbeat_interval_ms,
        election_timeout_min: options.election_timeout_ms,
        election_timeout_max: options.election_timeout_ms * 2,
        // Taken by bytes, not by entries: an entry holds from one message to thousands.
        snapshot_policy: SnapshotPolicy::Never,
        // A follower gets the log for as long as there is a log.
        replication_lag_threshold: u64::MAX,
        // Never by itself: who gets a snapshot needs the log behind it (`group/purge.rs`).
        max_in_snapshot_log_to_keep: u64::MAX,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        // The state lags behind the log after a start, and a leader without an election would not know by how much.
        enable_leader_restore: if clustered { Some(false) } else { None },
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

/// Ends the time in which a node that has just started takes no part in elections.
async fn keep_quiet<A: Apply>(raft: Raft<TypeConfig, StateMachine<A>>, quiet: Arc<AtomicBool>, lease: Duration) {
    tokio::time::sleep(lease).await;
    quiet.store(false, Ordering::Release);
    raft.runtime_config().elect(true);
}

async fn take_snapshots<A: Apply>(raft: Raft<TypeConfig, StateMachine<A>>, wanted: Arc<Notify>) {
    loop {
        wanted.notified().await;
        if raft.trigger().snapshot().await.is_err() {
            return;
        }
    }
}
