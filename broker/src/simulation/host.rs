//! One machine: a process on a runtime of its own, its disks, its clocks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tandem_raft::{
    ClusterOptions, FatalError, FatalSink, Introduction, PeerMetrics, Secret,
    simulation::{Planted, Simulation, SlowDisk},
};
use tokio::runtime::{Builder, Handle, RngSeed, Runtime};

use super::{
    disks::{Disks, States},
    draw::Draw,
    net::{Net, NodeId},
    observer,
};
use crate::{
    clock,
    config::Config,
    metrics::Metrics,
    running::{Parts, Running},
    shard::Shards,
};

/// 2023, in milliseconds.
pub(super) const EPOCH_MS: u64 = 1_700_000_000_000;
/// The members that a cluster begins with are `1..=n`.
const CLUSTER: &str = "simulated";

/// What is the same for all nodes of one simulation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) nodes: u64,
    pub(super) shards: u32,
    pub(super) snapshot_every_bytes: u64,
    pub(super) dedupe_window_ms: u64,
    pub(super) longest_sync_us: u64,
    pub(super) planted: Option<Planted>,
    pub(super) disks_lie: bool,
    pub(super) stale_leases_count: bool,
}

/// The process of a node, as clients reach it.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) handle: Handle,
    pub(super) shards: Shards,
    pub(super) cluster: tandem_raft::Cluster,
}

/// What a start comes to.
type Slot = Arc<Mutex<Option<Running>>>;

struct Process {
    runtime: Runtime,
    running: Slot,
    fatal: FatalSink,
    stopping: Option<tokio::task::JoinHandle<()>>,
}

pub(super) struct Host {
    pub(super) id: NodeId,
    shape: Shape,
    disks: Arc<Disks>,
    process: Option<Process>,
    /// How far its wall clock is off, in milliseconds.
    pub(super) clock_off_ms: i64,
    /// Its process does not run until then, in microseconds of the world.
    asleep_until_us: Option<u64>,
    /// How far its process has come.
    now_us: u64,
    base: Instant,
}

impl Host {
    pub(super) fn new(id: NodeId, shape: Shape, base: Instant) -> Self {
        let disks = Disks::new(shape.disks_lie);
        Self { id, shape, disks, process: None, clock_off_ms: 0, asleep_until_us: None, now_us: 0, base }
    }

    pub(super) fn runs(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep_until_us.is_some()
    }

    fn config(&self) -> Config {
        let mut config = Config { node_id: self.id, default_workspace: String::new(), ..Config::default() };
        config.auth.open = true;
        config.storage.shards = self.shape.shards;
        config.storage.snapshot_every_bytes = self.shape.snapshot_every_bytes;
        config.limits.dedupe_window_ms = self.shape.dedupe_window_ms;
        config.cluster.heartbeat_interval_ms = 50;
        config.cluster.election_timeout_ms = 300;
        config
    }

    fn parts(&self, net: &Net) -> Parts {
        let first: Vec<NodeId> = (1..=self.shape.nodes).collect();
        let own = Introduction {
            cluster_id: CLUSTER.into(),
            node_id: self.id,
            disk_id: format!("disk-{}", self.id),
            shards: self.shape.shards,
            service_address: format!("service-{}", self.id),
            versions: tandem_raft::Versions::default(),
        };
        let members = first.iter().copied().chain([self.id]).map(|id| (id, address(id))).collect();
        let cluster = ClusterOptions {
            own,
            secret: Secret::new(b"simulated".to_vec()),
            joins: !first.contains(&self.id),
            members,
            dial: net.dialer(self.id),
            accept: net.listen(self.id),
            metrics: PeerMetrics::default(),
        };
        let disk = SlowDisk { longest_sync_us: self.shape.longest_sync_us };
        Parts {
            data_dir: self.disks.dir.path().to_owned(),
            log: self.disks.open_log(),
            states: Arc::new(States(Arc::clone(&self.disks))),
            cluster: Some(cluster),
            simulation: Some(Simulation { disk, planted: self.shape.planted }),
        }
    }

    /// Starts the process.
    pub(super) fn start(&mut self, net: &Net, now_us: u64, seed: u64) {
        let runtime = runtime(seed);
        let (running, fatal) = (Slot::default(), FatalSink::default());
        let (config, parts) = (self.config(), self.parts(net));
        let (slot, sink) = (Arc::clone(&running), fatal.clone());
        runtime.spawn(async move {
            match Running::start(&config, parts, &Metrics::new(), &sink).await {
                Ok(started) => *slot.lock() = Some(started),
                Err(error) => sink.report(FatalError::Raft { shard: 0, detail: format!("no start: {error}") }),
            }
        });
        self.now_us = now_us;
        self.asleep_until_us = None;
        self.process = Some(Process { runtime, running, fatal, stopping: None });
    }

    /// Lets the process run up to the time of the world.
    pub(super) fn run_until(&mut self, now_us: u64) {
        let Some(process) = &self.process else { return };
        match self.asleep_until_us {
            Some(until_us) if now_us < until_us => return,
            Some(_) => {
                // It wakes up, and finds that time has passed at once.
                let missed = Duration::from_micros(now_us - self.now_us);
                self.asleep_until_us = None;
                self.now_us = now_us;
                self.enter();
                process.runtime.block_on(async { tokio::time::advance(missed).await });
            }
            None => {}
        }
        let step = Duration::from_micros(now_us - self.now_us);
        self.now_us = now_us;
        self.enter();
        process.runtime.block_on(async { tokio::time::sleep(step).await });
    }

    /// What reads a clock now reads those of this node.
    fn enter(&self) {
        let wall = (EPOCH_MS + self.now_us / 1_000).saturating_add_signed(self.clock_off_ms);
        clock::simulate(wall, self.base + Duration::from_micros(self.now_us));
        observer::enter(self.id);
    }

    /// Stops the process in the middle of whatever it does, as SIGSTOP does.
    pub(super) fn sleep_until(&mut self, until_us: u64) {
        self.asleep_until_us = Some(until_us);
    }

    /// Ends the process at once.
    pub(super) fn kill(&mut self, net: &Net, power_lost: bool, draw: &mut Draw) {
        let Some(process) = self.process.take() else { return };
        net.leave(self.id, power_lost);
        self.disks.end(power_lost, draw);
        self.enter();
        // Whatever a task says when it is dropped is said by a dead process.
        drop(process.running.lock().take());
        drop(process);
    }

    /// Asks the process to end in order. Done once [`Self::has_stopped`].
    pub(super) fn begin_stop(&mut self) {
        let Some(process) = &mut self.process else { return };
        let Some(running) = process.running.lock().take() else { return };
        self.enter_stop(running);
    }

    fn enter_stop(&mut self, running: Running) {
        let Some(process) = &mut self.process else { return };
        process.stopping = Some(process.runtime.spawn(async move {
            running.node.hand_over().await;
            running.shards.iter().for_each(|shard| shard.delivery.shut_down());
            running.tasks.iter().for_each(tokio::task::JoinHandle::abort);
            drop(running.shards);
            drop(running.routing);
            running.node.shutdown().await.ok();
        }));
    }

    pub(super) fn has_stopped(&self) -> bool {
        let stopping = self.process.as_ref().and_then(|process| process.stopping.as_ref());
        stopping.is_none_or(tokio::task::JoinHandle::is_finished)
    }

    /// How clients reach it; none before it has started and when it is about to end.
    pub(super) fn door(&self) -> Option<Door> {
        let process = self.process.as_ref()?;
        let running = process.running.lock();
        let running = running.as_ref()?;
        let cluster = running.node.cluster()?;
        Some(Door { handle: process.runtime.handle().clone(), shards: running.shards.clone(), cluster })
    }

    /// Why the process ends by itself, if it does.
    pub(super) fn fatal(&self) -> Option<FatalError> {
        self.process.as_ref()?.fatal.get()
    }
}

/// A runtime that does the same each time: tokio draws, too, whom it wakes first.
pub(super) fn runtime(seed: u64) -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&seed.to_be_bytes()));
    builder.build().expect("a runtime without input and output")
}

/// Where a node would be dialed.
pub(super) fn address(id: NodeId) -> String {
    format!("peer-{id}:1")
}
