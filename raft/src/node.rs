//! All shards of this node, over one log.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, thread, time::Duration};

use tandem_storage::Engine;
use tokio::{sync::watch, task::AbortHandle};

use crate::{
    apply::{Apply, OpenState},
    balance, commit_thread,
    error::{FatalError, FatalSink},
    group::{self, Group, Parts},
    log_store::LogStore,
    metrics::{CommitMetrics, PeerMetrics},
    peers::{ClusterOptions, Gate, Links, PeerStatus, Roster, network::PeerNetwork, server::PeerServer},
    state_home::StateHome,
    succession,
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
    links: Option<Arc<Links>>,
    tasks: Vec<AbortHandle>,
}

/// The cluster that a node is a member of. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Links>);

impl Cluster {
    /// The members with their peer addresses, this node too.
    pub fn members(&self) -> &BTreeMap<u64, String> {
        self.0.gate.roster.members()
    }

    /// This node.
    pub fn own_id(&self) -> u64 {
        self.0.gate.own.node_id
    }

    /// Where a member serves clients; None until it was connected once.
    pub fn service_address(&self, node_id: u64) -> Option<String> {
        if node_id == self.own_id() {
            return Some(self.0.gate.own.service_address.clone());
        }
        self.0.service_address(node_id)
    }

    /// Whether a member is connected right now.
    pub fn is_connected(&self, node_id: u64) -> bool {
        self.0.connection(node_id).is_some()
    }

    /// How things stand with every other member.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.0.status()
    }

    /// Changes whenever a connection to a member comes about or ends.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes()
    }

    /// Who should lead a shard, so that leaders are spread over the members.
    pub fn preferred_leader(&self, shard: u32) -> Option<u64> {
        group::preferred_leader(shard, self.members().keys().copied())
    }
}

impl<A: Apply> Node<A> {
    /// Starts every shard. `log` is the engine of the shared log, with [`crate::LOG_SPACES`] spaces; `opener` opens state
    /// engines; `apply` makes the applier of each shard. What must stop the node later is reported to `fatal`.
    pub async fn start(
        options: &NodeOptions,
        log: Arc<dyn Engine>,
        opener: Arc<dyn OpenState>,
        apply: impl FnMut(u32) -> A,
        metrics: CommitMetrics,
        fatal: FatalSink,
    ) -> Result<Self, FatalError> {
        let started = Self::launch(options, None, log, opener, apply, metrics, fatal.clone()).await;
        started.map_err(|error| fatal.first(error))
    }

    /// The same as a member of a cluster. A new data directory becomes one of the voters; one that was a member goes on
    /// where it was.
    pub async fn start_member(
        options: &NodeOptions,
        cluster: ClusterOptions,
        log: Arc<dyn Engine>,
        opener: Arc<dyn OpenState>,
        apply: impl FnMut(u32) -> A,
        metrics: CommitMetrics,
        fatal: FatalSink,
    ) -> Result<Self, FatalError> {
        let started = Self::launch(options, Some(cluster), log, opener, apply, metrics, fatal.clone()).await;
        started.map_err(|error| fatal.first(error))
    }

    async fn launch(
        options: &NodeOptions,
        cluster: Option<ClusterOptions>,
        log: Arc<dyn Engine>,
        opener: Arc<dyn OpenState>,
        mut apply: impl FnMut(u32) -> A,
        metrics: CommitMetrics,
        fatal: FatalSink,
    ) -> Result<Self, FatalError> {
        let (commits, thread) = commit_thread::spawn(Arc::clone(&log), metrics, fatal.clone())
            .map_err(|error| FatalError::Raft { shard: 0, detail: format!("no commit thread: {error}") })?;
        let mut accept = None;
        let mut peer_metrics = PeerMetrics::default();
        let links = match cluster {
            None => None,
            Some(cluster) => {
                let roster = Roster::open(&options.data_dir, cluster.members)?;
                let gate = Arc::new(Gate { own: cluster.own, secret: cluster.secret, roster });
                accept = Some(cluster.accept);
                peer_metrics = cluster.metrics;
                Some(Links::start(gate, &cluster.dial, &fatal))
            }
        };
        let mut groups = Vec::new();
        for shard in 0..options.shards {
            let log = LogStore::open(shard, Arc::clone(&log), commits.clone(), options.log_cache_bytes)?;
            let home = StateHome::prepare(options.data_dir.join(format!("shard-{shard}")), Arc::clone(&opener))?;
            let (links, metrics) = (links.clone(), peer_metrics.clone());
            let network = PeerNetwork { shard, links, metrics, sending: watch::Sender::new(0) };
            let parts = Parts { log, home, apply: apply(shard), network };
            groups.push(Group::start(shard, options, parts, fatal.clone()).await?);
        }
        let mut tasks = Vec::new();
        if let (Some(links), Some(accept)) = (&links, accept) {
            let server = PeerServer::new(Arc::clone(&links.gate), groups.clone());
            tasks.push(tokio::spawn(server.run(accept)).abort_handle());
            tasks.push(tokio::spawn(balance::run(groups.clone(), Arc::clone(links))).abort_handle());
            // As openraft has it: the lease of a leader is the longest election timeout.
            let lease = Duration::from_millis(options.election_timeout_ms * 2);
            for group in &groups {
                let following = succession::run(Arc::clone(group), Arc::clone(links), lease);
                tasks.push(tokio::spawn(following).abort_handle());
            }
            tasks.push(tokio::spawn(retry_connected(groups.clone(), Arc::clone(links))).abort_handle());
        }
        Ok(Self { groups, log, commit_thread: Some(thread), links, tasks })
    }

    /// The cluster; None on a node that is alone.
    pub fn cluster(&self) -> Option<Cluster> {
        self.links.clone().map(Cluster)
    }

    /// The shards, by number.
    pub fn groups(&self) -> &[Arc<Group<A>>] {
        &self.groups
    }

    /// Hands the leadership of every shard that this node leads to the follower that is furthest, before it stops: an election
    /// that nobody waits for. Returns once that is done, or after [`HAND_OVER_TIMEOUT`].
    pub async fn hand_over(&self) {
        let Some(links) = &self.links else { return };
        let handing_over = async {
            for group in &self.groups {
                let followers = group.matched().into_iter();
                let connected = followers.filter(|(node, _)| links.connection(*node).is_some());
                let Some((to, _)) = connected.max_by_key(|(_, matched)| *matched) else { continue };
                if group.leadership().borrow().is_leader && group.transfer_leader(to).await.is_ok() {
                    group.leadership().wait_for(|leadership| !leadership.is_leader).await.ok();
                }
            }
        };
        if tokio::time::timeout(HAND_OVER_TIMEOUT, handing_over).await.is_err() {
            tracing::warn!("leadership was not handed over in time; the others will elect");
        }
    }

    /// Ends every shard and makes log and state durable. Waits for the commit thread, so that no thread of ours works on an
    /// engine while the process ends; a group that is still held elsewhere keeps it from ending, and is not waited for
    /// longer than [`END_TIMEOUT`].
    pub async fn shutdown(mut self) -> Result<(), FatalError> {
        let mut result = Ok(());
        self.tasks.iter().for_each(AbortHandle::abort);
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

/// How long the handing over of all leaderships may take.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Tells the groups of peers that can be asked again.
async fn retry_connected<A: Apply>(groups: Vec<Arc<Group<A>>>, links: Arc<Links>) {
    let mut changes = links.changes();
    while changes.changed().await.is_ok() {
        let members = links.gate.roster.members().keys();
        let connected: Vec<u64> = members.copied().filter(|id| links.connection(*id).is_some()).collect();
        for group in &groups {
            group.retry_now(connected.clone()).await;
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
