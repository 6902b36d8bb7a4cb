//! All shards of this node, over one log.

use std::{path::PathBuf, sync::Arc, thread, time::Duration};

use tandem_storage::Engine;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    apply::{Apply, OpenState},
    balance,
    change::Change,
    cluster::Cluster,
    commit_thread::{self, CommitHandle},
    conform,
    council::{Council, Decide as _},
    damage::{Guarded, Note, Part},
    error::{FatalError, FatalSink},
    group::{Group, Parts},
    level::NEWEST_LEVEL,
    metrics::{CommitMetrics, PeerMetrics},
    peers::{Accept, ClusterOptions, Gate, Links, Roster, lender::Lender, network::PeerNetwork, server::PeerServer},
    rebuild,
    roll::{Roll, RollFile},
    scrub::{self, ScrubOptions},
    shards::{self, Opened},
    simulation::Simulation,
    state_home::Sound,
    state_machine::check_level,
    succession,
    throttle::Throttle,
    transfers::Transfers,
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
    /// How many entries the log keeps behind a snapshot, for followers that are a little late; none of before the snapshot
    /// before that. Default 0.
    pub retained_log_entries: u64,
    /// How many bytes of the log behind a snapshot are kept at the most while that is being sent; never less than the
    /// snapshot itself has. A node that the log has overtaken gets a newer snapshot. Default 1 GiB.
    pub held_log_bytes: u64,
    /// How many bytes of snapshots leave this node in a second, all shards and receivers together; 0 for no limit.
    /// Default 64 MiB.
    pub snapshot_bytes_per_second: u64,
    /// Time between two heartbeats of a leader, in milliseconds. Default 100.
    pub heartbeat_interval_ms: u64,
    /// Without a heartbeat for one to two times this many milliseconds a follower calls an election. Default 500.
    pub election_timeout_ms: u64,
    /// Only in a simulation. Default none.
    pub simulation: Option<Simulation>,
    /// How the node looks for damage on its disk.
    pub scrub: ScrubOptions,
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
            held_log_bytes: 1 << 30,
            snapshot_bytes_per_second: 64 << 20,
            heartbeat_interval_ms: 100,
            election_timeout_ms: 500,
            simulation: None,
            scrub: ScrubOptions::default(),
        }
    }
}

/// All shards of this node.
pub struct Node<A: Apply> {
    groups: Vec<Arc<Group<A>>>,
    log: Arc<dyn Engine>,
    commit_thread: Option<thread::JoinHandle<()>>,
    cluster: Option<(Arc<Links>, Arc<Council<A>>)>,
    tasks: Vec<AbortHandle>,
    scrub: Option<scrub::Running>,
}

/// What a member serves others with.
struct Serving {
    accept: Box<dyn Accept>,
    throttle: Arc<Throttle>,
    metrics: PeerMetrics,
    file: RollFile,
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
        apply: impl FnMut(u32) -> A,
        metrics: CommitMetrics,
        fatal: FatalSink,
    ) -> Result<Self, FatalError> {
        let log_note = Note::in_dir(&options.data_dir, Part::Log);
        scrub::check_suspected_log(log.as_ref(), &log_note)?;
        let log: Arc<dyn Engine> = Arc::new(Guarded::new(log, log_note.clone(), fatal.clone()));
        let (commits, commit_thread) = match options.simulation {
            Some(Simulation { disk, .. }) => {
                let (commits, _task) = commit_thread::spawn_task(Arc::clone(&log), fatal.clone(), disk);
                (commits, None)
            }
            None => {
                let spawned = commit_thread::spawn(Arc::clone(&log), metrics, fatal.clone());
                let no_thread = |error| FatalError::Raft { shard: 0, detail: format!("no commit thread: {error}") };
                let (commits, thread) = spawned.map_err(no_thread)?;
                (commits, Some(thread))
            }
        };
        match Self::launch_on(options, cluster, (log, commits, log_note), opener, apply, fatal).await {
            Ok(node) => Ok(Self { commit_thread, ..node }),
            Err(error) => {
                // It closes the log: a process that ended meanwhile would take the ground from under it.
                let ended = move || commit_thread.is_none_or(|thread| ends_in_time(&thread));
                drop(crate::blocking::run(ended).await);
                Err(error)
            }
        }
    }

    async fn launch_on(
        options: &NodeOptions,
        cluster: Option<ClusterOptions>,
        (log, commits, log_note): (Arc<dyn Engine>, CommitHandle, Note),
        opener: Arc<dyn OpenState>,
        mut apply: impl FnMut(u32) -> A,
        fatal: FatalSink,
    ) -> Result<Self, FatalError> {
        let newest_level = cluster.as_ref().map_or(NEWEST_LEVEL, |cluster| cluster.own.versions.newest_level);
        let mut accept = None;
        let mut bootstraps = true;
        let mut peer_metrics = PeerMetrics::default();
        let links = match cluster {
            None => None,
            Some(cluster) => {
                let roster = Roster::open(&options.data_dir, cluster.members)?;
                // Before it meets others, who would take it for one of theirs.
                check_level(&roster.roll(), newest_level)?;
                let gate = Arc::new(Gate { own: cluster.own, secret: cluster.secret, roster });
                accept = Some(cluster.accept);
                bootstraps = !cluster.joins;
                peer_metrics = cluster.metrics;
                Some(Links::start(gate, &cluster.dial, &fatal))
            }
        };
        let throttle = Arc::new(Throttle::new(options.snapshot_bytes_per_second));
        let mut opened = shards::open_all(options, (&log, &commits, &log_note), &opener, &fatal)?;
        drop(commits);
        if let (Some(links), Some(accept)) = (&links, &mut accept)
            && opened.iter().any(|opened| opened.sound == Sound::LogOnly)
        {
            let lender = Lender::new(Arc::clone(&throttle), peer_metrics.clone(), fatal.clone());
            rebuild::all(&mut opened, links, accept.as_mut(), lender, &fatal).await?;
        }
        let parts = |opened: Opened| {
            let Opened { shard, log, home, .. } = opened;
            let rolls = match &links {
                Some(links) if shard == 0 => links.gate.roster.rolls(),
                _ => watch::Sender::new(Roll::default()),
            };
            let (links, metrics) = (links.clone(), peer_metrics.clone());
            let planted = options.simulation.and_then(|simulation| simulation.planted);
            let (transfers, throttle, home_of) = (Transfers::default(), Arc::clone(&throttle), home.clone());
            let contacts = Arc::default();
            let network = PeerNetwork { shard, links, metrics, contacts, transfers, home: home_of, throttle, planted };
            Parts { log, home, apply: apply(shard), network, rolls, newest_level, bootstraps }
        };
        let groups = shards::start_all(options, opened, parts, &fatal).await?;
        let lease = Duration::from_millis(options.election_timeout_ms * 2);
        let scrubbed = groups.iter().map(|group| group.scrubbed()).collect();
        // It reads on a thread of its own, at its own pace: nothing that could be the same twice.
        let scrub = options
            .simulation
            .is_none()
            .then(|| scrub::start(options.scrub.clone(), Arc::clone(&log), log_note, scrubbed, fatal.clone()));
        let mut node = Self { groups, log, commit_thread: None, cluster: None, tasks: Vec::new(), scrub };
        if let (Some(links), Some(accept)) = (links, accept) {
            let serving =
                Serving { accept, throttle, metrics: peer_metrics, file: RollFile::in_dir(&options.data_dir) };
            node.take_part(links, serving, lease);
        }
        Ok(node)
    }

    /// Begins what a member does besides its shards. `lease`, as openraft has it, is the longest election timeout.
    fn take_part(&mut self, links: Arc<Links>, serving: Serving, lease: Duration) {
        let Serving { accept, throttle, metrics, file } = serving;
        let council = Arc::new(Council::new(self.groups.clone(), Arc::clone(&links)));
        let groups = || self.groups.clone();
        let server = PeerServer::new(Arc::clone(&links), groups(), Arc::clone(&council), throttle, metrics);
        let mut tasks: Vec<JoinHandle<()>> = vec![
            tokio::spawn(server.run(accept)),
            tokio::spawn(follow_roll(Arc::clone(&links), file)),
            tokio::spawn(balance::run(groups(), Arc::clone(&links))),
            tokio::spawn(conform::run(groups(), Arc::clone(&links))),
            tokio::spawn(retry_connected(groups(), Arc::clone(&links))),
            tokio::spawn(end_drain(Arc::clone(&council), links.gate.own.node_id)),
        ];
        for group in &self.groups {
            tasks.push(tokio::spawn(succession::run(Arc::clone(group), Arc::clone(&links), lease)));
        }
        self.tasks.extend(tasks.iter().map(JoinHandle::abort_handle));
        self.cluster = Some((links, council));
    }

    /// The cluster; None on a node that is alone.
    pub fn cluster(&self) -> Option<Cluster> {
        let (links, council) = self.cluster.as_ref()?;
        Some(Cluster::new(Arc::clone(links), Arc::clone(council) as _))
    }

    /// The shards, by number.
    pub fn groups(&self) -> &[Arc<Group<A>>] {
        &self.groups
    }

    /// Hands the leadership of every shard that this node leads to the follower that is furthest, before it stops: an election
    /// that nobody waits for. Returns once that is done, or after [`HAND_OVER_TIMEOUT`].
    pub async fn hand_over(&self) {
        let Some((links, _)) = &self.cluster else { return };
        let roll = links.gate.roster.roll();
        let handing_over = async {
            for group in &self.groups {
                let followers = group.matched().into_iter();
                let connected = followers.filter(|(node, _)| links.connection(*node).is_some());
                let Some((to, _)) = connected.max_by_key(|(node, matched)| (roll.may_lead(*node), *matched)) else {
                    continue;
                };
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
        drop(self.cluster.take());
        if let Some(scrub) = self.scrub.take() {
            scrub.end().await;
        }
        for group in self.groups.drain(..) {
            let ended = group.shutdown().await;
            result = result.and(ended);
        }
        let (log, thread) = (Arc::clone(&self.log), self.commit_thread.take());
        let ended = crate::blocking::run(move || {
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
        let own = links.gate.own.node_id;
        let connected: Vec<u64> = links.connected().into_iter().filter(|id| *id != own).collect();
        for group in &groups {
            group.retry_now(connected.clone()).await;
        }
    }
}

/// Keeps connections, and the file from which the next start knows whom to dial, at the newest roll.
async fn follow_roll(links: Arc<Links>, file: RollFile) {
    let mut rolls = links.gate.roster.rolls().subscribe();
    loop {
        let roll = rolls.borrow_and_update().clone();
        if roll.revision > 0 {
            links.follow_roll();
            let (file, revision) = (file.clone(), roll.revision);
            let written = crate::blocking::run(move || file.write(&roll)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(%error, revision, "the file ROLL was not written; the next start learns the members later");
            }
        }
        if rolls.changed().await.is_err() {
            return;
        }
    }
}

/// A node that was drained before it was stopped may lead again.
async fn end_drain<A: Apply>(council: Arc<Council<A>>, own: u64) {
    let roll = loop {
        match council.newest_roll().await {
            Some(roll) => break roll,
            None => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    };
    if roll.members.get(&own).is_some_and(|member| member.drained) {
        while let Err(error) = council.change(&Change::Undrain { node: own }).await {
            tracing::warn!(%error, "this node is still drained");
            tokio::time::sleep(Duration::from_secs(1)).await;
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
