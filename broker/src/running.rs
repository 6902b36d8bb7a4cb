//! What works behind the edge: a node with its shards, and for each shard who batches, lets time pass, keeps its history and
//! follows its leader. The edge is not a part of it, nor where engines and peers come from: a simulation brings its own.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tandem_raft::{
    Cluster, ClusterOptions, FatalSink, Node, NodeOptions, OpenState, ScrubOptions, simulation::Simulation,
};
use tandem_storage::Engine;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    batcher::{self, BatcherOptions},
    cluster::{self, Routing, Seat},
    command::Header,
    config::Config,
    delivery::Delivery,
    error::StartError,
    leader_time::LeaderTime,
    metrics::Metrics,
    query::StateReader,
    retention::Retention,
    sealing::Sealer,
    shard::{Applier, Shard, Shards},
    ticker::Ticker,
    tls::TowardsNodes,
};

/// How long a start waits for the shards to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Entries that a member keeps behind a snapshot, for peers that were away for a moment.
const RETAINED_LOG_ENTRIES: u64 = 1_000;

/// What a node is made of.
pub(crate) struct Parts {
    /// Where its states are.
    pub(crate) data_dir: PathBuf,
    /// The engine of its log.
    pub(crate) log: Arc<dyn Engine>,
    /// Opens the engines of its states.
    pub(crate) states: Arc<dyn OpenState>,
    /// None for a node that is alone.
    pub(crate) cluster: Option<ClusterOptions>,
    /// Only in a simulation.
    pub(crate) simulation: Option<Simulation>,
}

/// A node with all that works on its shards.
pub(crate) struct Running {
    pub(crate) node: Node<Applier>,
    pub(crate) shards: Shards,
    /// None for a node that is alone.
    pub(crate) routing: Option<Routing>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Opens log and states and starts everything. A node that is alone is ready then; a member does not wait for the others.
    pub(crate) async fn start(
        config: &Config,
        parts: Parts,
        metrics: &Metrics,
        fatal: &FatalSink,
    ) -> Result<Self, StartError> {
        let (node, readers, deliveries) = start_node(config, parts, metrics, fatal).await?;
        let (shards, mut tasks) = start_shards(config, &node, readers, deliveries, metrics).await?;
        let tls = TowardsNodes::new(&config.tls)?;
        let routing = node.cluster().map(|cluster| follow_leaders(cluster, &shards, tls, &mut tasks));
        Ok(Self { node, shards, routing, tasks })
    }
}

async fn start_node(
    config: &Config,
    parts: Parts,
    metrics: &Metrics,
    fatal: &FatalSink,
) -> Result<(Node<Applier>, Vec<StateReader>, Vec<Arc<Delivery>>), StartError> {
    let mut options = NodeOptions::new(config.node_id, parts.data_dir, config.storage.shards);
    options.simulation = parts.simulation;
    options.snapshot_every_bytes = config.storage.snapshot_every_bytes;
    options.log_cache_bytes = config.storage.log_cache_bytes;
    options.scrub = ScrubOptions {
        bytes_per_second: config.storage.scrub_bytes_per_second,
        interval: Duration::from_millis(config.storage.scrub_interval_ms),
        metrics: metrics.scrub.clone(),
    };
    let sealer = Arc::new(Sealer::new(&config.encryption)?);
    let (mut readers, mut deliveries) = (Vec::new(), Vec::new());
    let applier = |shard| {
        let reader = StateReader::default();
        let delivery = Delivery::new(reader.clone(), metrics.events.clone()).with_sealer(Arc::clone(&sealer));
        let delivery = Arc::new(delivery);
        readers.push(reader.clone());
        deliveries.push(Arc::clone(&delivery));
        Applier::new(shard, reader, delivery)
    };
    let Parts { log, states, cluster, .. } = parts;
    let (commits, fatal) = (metrics.commits.clone(), fatal.clone());
    let node = match cluster {
        None => Node::start(&options, log, states, applier, commits, fatal).await?,
        Some(cluster) => {
            options.heartbeat_interval_ms = config.cluster.heartbeat_interval_ms;
            options.election_timeout_ms = config.cluster.election_timeout_ms;
            options.snapshot_bytes_per_second = config.cluster.snapshot_bytes_per_second;
            options.retained_log_entries = RETAINED_LOG_ENTRIES;
            let started = Node::start_member(&options, cluster, log, states, applier, commits, fatal.clone()).await;
            // Peers may refuse this node before it is up; what fails then fails for that reason.
            started.map_err(|error| fatal.get().unwrap_or(error))?
        }
    };
    Ok((node, readers, deliveries))
}

async fn start_shards(
    config: &Config,
    node: &Node<Applier>,
    readers: Vec<StateReader>,
    deliveries: Vec<Arc<Delivery>>,
    metrics: &Metrics,
) -> Result<(Shards, Vec<JoinHandle<()>>), StartError> {
    let (mut shards, mut tickers) = (Vec::new(), Vec::new());
    for ((group, reader), delivery) in node.groups().iter().zip(readers).zip(deliveries) {
        let alone = node.cluster().is_none();
        let not_ready = || StartError::NotReady { shard: group.shard(), seconds: READY_TIMEOUT.as_secs() };
        let ready = tokio::time::timeout(READY_TIMEOUT, async {
            // Ready is: leading, and everything in the log applied. A member does not wait: others may come later.
            while alone && group.read_barrier().await.is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        ready.await.map_err(|_| not_ready())?;
        let newest_time_ms = reader.time_ms().map_err(|_| not_ready())?;
        let time = Arc::new(LeaderTime::new(newest_time_ms));
        let options = BatcherOptions {
            max_queued_bytes: config.limits.max_queued_bytes,
            header: Header {
                time_ms: newest_time_ms,
                max_inbox_messages: config.limits.max_inbox_messages,
                max_inbox_bytes: config.limits.max_inbox_bytes,
                max_dead_letters: config.limits.max_dead_letters_per_sandbox,
                dedupe_window_ms: config.limits.dedupe_window_ms,
            },
            time: Arc::clone(&time),
            metrics: metrics.batches.clone(),
        };
        let batcher = batcher::spawn(Arc::clone(group), options);
        let ticker = Ticker {
            reader: reader.clone(),
            delivery: Arc::clone(&delivery),
            batcher: batcher.clone(),
            heartbeat_timeout_ms: config.limits.heartbeat_timeout_ms,
            time: Arc::clone(&time),
            leadership: group.leadership(),
        };
        tickers.push(tokio::spawn(ticker.run()));
        let retention = Retention {
            reader: reader.clone(),
            batcher: batcher.clone(),
            inbox_limits: (config.limits.max_inbox_messages, config.limits.max_inbox_bytes),
            time: Arc::clone(&time),
            leadership: group.leadership(),
        };
        tickers.push(tokio::spawn(retention.run()));
        let given = crate::grpc::given::Given::default();
        shards.push(Shard { group: Arc::clone(group), batcher, delivery, reader, time, given });
    }
    Ok((Shards::new(shards), tickers))
}

/// Keeps track of the leaders of all shards, in tasks of their own.
fn follow_leaders(
    cluster: Cluster,
    shards: &Shards,
    tls: Option<TowardsNodes>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Routing {
    let mut seats = Vec::new();
    for shard in shards.iter() {
        let (sender, seat) = watch::channel(Seat::default());
        shard.delivery.step_down();
        tasks.push(tokio::spawn(cluster::follow(Arc::clone(&shard.group), Arc::clone(&shard.delivery), sender)));
        seats.push(seat);
    }
    Routing::new(cluster, seats, tls)
}
