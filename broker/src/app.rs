//! Wiring, and nothing else.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tandem_raft::{Cluster, FatalError, FatalSink, Node, NodeOptions, OpenState};
use tandem_storage::{Engine, MemoryEngine, RocksEngine, RocksOptions, SpaceOptions};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    batcher::{self, BatcherOptions},
    clock,
    cluster::{self, Membership, Routing, Seat},
    command::{CreateWorkspace, Header, Outcome, Verb, create_workspace::Settings},
    config::{Config, EngineKind, StorageConfig},
    data_dir::DataDir,
    delivery::Delivery,
    error::StartError,
    grpc::{Edge, ServerInfo},
    http, machine,
    metrics::Metrics,
    query::StateReader,
    rejection::Reason,
    retention::Retention,
    serve,
    shard::{Applier, Shard, Shards},
    ticker::Ticker,
};

/// How long a start waits for the shards to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two tries of a leader to create the default workspace.
const DEFAULT_WORKSPACE_PAUSE: Duration = Duration::from_millis(500);

/// Entries that a member keeps behind a snapshot, for peers that were away for a moment.
const RETAINED_LOG_ENTRIES: u64 = 1_000;

/// A running broker.
pub struct Broker {
    node: Node<Applier>,
    shards: Shards,
    fatal: FatalSink,
    grpc_address: SocketAddr,
    metrics_address: SocketAddr,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    grace: Duration,
    _data_dir: DataDir,
}

impl Broker {
    /// Starts a broker: opens the data directory, brings up every shard, and listens. Returns once requests are served.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let started = clock::now();
        // The ports first: a mistake there should show before the data is touched.
        let grpc = bind(config.listen, "gRPC").await?;
        let metrics_http = bind(config.metrics_listen, "metrics").await?;
        let mut data_dir = DataDir::open(&config)?;
        let membership = Membership::prepare(&config, &mut data_dir, address(&grpc)).await?;
        let metrics = Metrics::new();
        let fatal = FatalSink::default();
        let (node, readers, deliveries) = start_node(&config, &data_dir, membership, &metrics, &fatal).await?;
        let (shards, mut tasks) = start_shards(&config, &node, readers, deliveries, &metrics).await?;
        let routing = match node.cluster() {
            None => {
                create_default_workspace(&config, &shards).await?;
                None
            }
            Some(cluster) => Some(follow_leaders(&config, cluster, &shards, &mut tasks)),
        };

        let info = ServerInfo {
            cluster_id: data_dir.identity.cluster_id.clone(),
            node_id: config.node_id,
            start_time_ms: clock::unix_ms(),
            storage_engine: engine_name(&config.storage),
        };
        let (stop, stopping) = watch::channel(false);
        let (grpc_address, metrics_address) = (address(&grpc), address(&metrics_http));
        let edge = Edge::new(shards.clone(), &config, Arc::clone(&metrics), info, routing, stopping.clone());
        let servers = vec![
            tokio::spawn(serve::grpc(grpc, edge, stopping.clone())),
            tokio::spawn(http::serve(metrics_http, metrics, shards.clone(), fatal.clone(), stopping)),
        ];
        let grace = Duration::from_millis(config.shutdown_grace_ms);
        tracing::info!(%grpc_address, %metrics_address, took_ms = started.elapsed().as_millis() as u64, "ready");
        if !grpc_address.ip().is_loopback() {
            tracing::warn!(%grpc_address, "this version has no authentication, and it listens beyond loopback");
        }
        Ok(Self {
            node,
            shards,
            fatal,
            grpc_address,
            metrics_address,
            stop,
            servers,
            tasks,
            grace,
            _data_dir: data_dir,
        })
    }

    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc_address
    }

    /// Where `/metrics`, `/health` and `/ready` are served.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// Resolves when the node must stop rather than go on, with the reason.
    pub fn stopped(&self) -> impl Future<Output = FatalError> + Send + 'static {
        let fatal = self.fatal.clone();
        async move { fatal.wait().await }
    }

    /// Ends streams, waits for requests under way, and makes everything durable. What was acknowledged is durable before;
    /// this makes the next start quick.
    pub async fn shutdown(self) -> Result<(), FatalError> {
        tracing::info!("shutting down");
        self.node.hand_over().await;
        for shard in self.shards.iter() {
            shard.delivery.shut_down();
        }
        self.stop.send_replace(true);
        for server in self.servers {
            let aborted = server.abort_handle();
            if tokio::time::timeout(self.grace, server).await.is_err() {
                tracing::warn!(grace_ms = self.grace.as_millis() as u64, "requests did not end in time");
                aborted.abort();
            }
        }
        self.tasks.iter().for_each(JoinHandle::abort);
        drop(self.shards);
        self.node.shutdown().await?;
        tracing::info!("stopped");
        Ok(())
    }
}

fn address(listener: &TcpListener) -> SocketAddr {
    listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

async fn bind(address: SocketAddr, service: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Listen { address, service, reason: error.to_string() })
}

fn engine_name(storage: &StorageConfig) -> &'static str {
    match storage.engine {
        EngineKind::Rocksdb => "rocksdb",
        EngineKind::Memory => "memory",
    }
}

fn open_log(config: &Config, data_dir: &DataDir) -> Result<Arc<dyn Engine>, StartError> {
    Ok(match config.storage.engine {
        EngineKind::Memory => Arc::new(MemoryEngine::new(tandem_raft::LOG_SPACES)),
        EngineKind::Rocksdb => {
            let path = data_dir.path.join("log");
            if !data_dir.is_new && !path.exists() && data_dir.path.join("shard-0").exists() {
                // An empty log would be taken for the truth, and what it held counted as never acknowledged.
                return Err(StartError::DataDirectory {
                    path: data_dir.path.clone(),
                    fault: "has states of shards but no log".into(),
                    advice: "restore the data directory from a backup".into(),
                });
            }
            let spaces = [SpaceOptions::named("entries"), SpaceOptions::named("votes").with_point_reads()];
            Arc::new(RocksEngine::open(path, &RocksOptions::log(), &spaces)?)
        }
    })
}

fn state_opener(storage: &StorageConfig) -> Arc<dyn OpenState> {
    let spaces = machine::keys::spaces();
    match storage.engine {
        EngineKind::Memory => Arc::new(move |dir: &Path| -> Result<Arc<dyn Engine>, tandem_storage::Error> {
            let stored = dir.exists();
            Ok(Arc::new(if stored { MemoryEngine::open(dir, spaces.len())? } else { MemoryEngine::new(spaces.len()) }))
        }),
        EngineKind::Rocksdb => {
            let mut options = RocksOptions::state();
            options.memtable_bytes = storage.state_memtable_bytes;
            options.block_cache_bytes = storage.block_cache_bytes / storage.shards.max(1) as usize;
            Arc::new(move |dir: &Path| -> Result<Arc<dyn Engine>, tandem_storage::Error> {
                Ok(Arc::new(RocksEngine::open(dir, &options, &spaces)?))
            })
        }
    }
}

fn remove_states(data_dir: &DataDir) -> Result<(), StartError> {
    for shard in 0..data_dir.identity.shards {
        let path = data_dir.path.join(format!("shard-{shard}"));
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                let doing = "removing what an earlier run in memory left";
                return Err(tandem_storage::Error::Io { doing, source }.into());
            }
            _ => {}
        }
    }
    Ok(())
}

async fn start_node(
    config: &Config,
    data_dir: &DataDir,
    membership: Option<Membership>,
    metrics: &Metrics,
    fatal: &FatalSink,
) -> Result<(Node<Applier>, Vec<StateReader>, Vec<Arc<Delivery>>), StartError> {
    let mut options = NodeOptions::new(config.node_id, data_dir.path.clone(), config.storage.shards);
    options.snapshot_every_bytes = config.storage.snapshot_every_bytes;
    options.log_cache_bytes = config.storage.log_cache_bytes;
    let (mut readers, mut deliveries) = (Vec::new(), Vec::new());
    let applier = |_shard| {
        let reader = StateReader::new(fatal.clone());
        let delivery = Arc::new(Delivery::new(reader.clone(), metrics.events.clone()));
        readers.push(reader.clone());
        deliveries.push(Arc::clone(&delivery));
        Applier::new(reader, delivery)
    };
    if config.storage.engine == EngineKind::Memory {
        // The log is gone with the last process, so what is left of its states must not come back.
        remove_states(data_dir)?;
    }
    let log = open_log(config, data_dir)?;
    let opener = state_opener(&config.storage);
    let (commits, fatal) = (metrics.commits.clone(), fatal.clone());
    let node = match membership {
        None => Node::start(&options, log, opener, applier, commits, fatal).await?,
        Some(membership) => {
            options.heartbeat_interval_ms = config.cluster.heartbeat_interval_ms;
            options.election_timeout_ms = config.cluster.election_timeout_ms;
            options.snapshot_bytes_per_second = config.cluster.snapshot_bytes_per_second;
            options.retained_log_entries = RETAINED_LOG_ENTRIES;
            let cluster = membership.options(data_dir, metrics.peers.clone());
            let started = Node::start_member(&options, cluster, log, opener, applier, commits, fatal.clone()).await;
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
        let options = BatcherOptions {
            max_queued_bytes: config.limits.max_queued_bytes,
            header: Header {
                time_ms: newest_time_ms,
                max_inbox_messages: config.limits.max_inbox_messages,
                max_inbox_bytes: config.limits.max_inbox_bytes,
                max_dead_letters: config.limits.max_dead_letters_per_sandbox,
                dedupe_window_ms: config.limits.dedupe_window_ms,
            },
            metrics: metrics.batches.clone(),
        };
        let batcher = batcher::spawn(Arc::clone(group), options);
        let ticker = Ticker {
            reader: reader.clone(),
            delivery: Arc::clone(&delivery),
            batcher: batcher.clone(),
            heartbeat_timeout_ms: config.limits.heartbeat_timeout_ms,
            leadership: group.leadership(),
        };
        tickers.push(tokio::spawn(ticker.run()));
        let retention = Retention {
            reader: reader.clone(),
            batcher: batcher.clone(),
            inbox_limits: (config.limits.max_inbox_messages, config.limits.max_inbox_bytes),
            leadership: group.leadership(),
        };
        tickers.push(tokio::spawn(retention.run()));
        shards.push(Shard { group: Arc::clone(group), batcher, delivery, reader });
    }
    Ok((Shards::new(shards), tickers))
}

/// Keeps track of the leaders of all shards, in tasks of their own.
fn follow_leaders(config: &Config, cluster: Cluster, shards: &Shards, tasks: &mut Vec<JoinHandle<()>>) -> Routing {
    let mut seats = Vec::new();
    for shard in shards.iter() {
        let (sender, seat) = watch::channel(Seat::default());
        shard.delivery.step_down();
        tasks.push(tokio::spawn(cluster::follow(Arc::clone(&shard.group), Arc::clone(&shard.delivery), sender)));
        seats.push(seat);
    }
    let routing = Routing::new(cluster, seats);
    tasks.push(tokio::spawn(default_workspace_of_a_cluster(config.clone(), shards.clone(), routing.clone())));
    routing
}

/// The node that leads the shard of the default workspace creates it, when it is not there.
async fn default_workspace_of_a_cluster(config: Config, shards: Shards, routing: Routing) {
    if config.default_workspace.is_empty() {
        return;
    }
    let mut seat = routing.seat(shards.of(&config.default_workspace).group.shard());
    while seat.wait_for(|seat| *seat == Seat::Here).await.is_ok() {
        match create_default_workspace(&config, &shards).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "the default workspace was not created; it is tried again"),
        }
        // The leader may well stay: this does not wait for another one.
        tokio::time::sleep(DEFAULT_WORKSPACE_PAUSE).await;
    }
}

async fn create_default_workspace(config: &Config, shards: &Shards) -> Result<(), StartError> {
    let workspace = config.default_workspace.clone();
    if workspace.is_empty() || shards.of(&workspace).reader.workspace(&workspace).is_ok() {
        return Ok(());
    }
    let max_workspaces = config.limits.max_workspaces_per_shard;
    let verb = Verb::CreateWorkspace(CreateWorkspace {
        workspace: workspace.clone(),
        max_workspaces,
        settings: Settings::default(),
    });
    let fail = |reason: String| StartError::DefaultWorkspace { workspace: workspace.clone(), reason };
    match shards.of(&workspace).batcher.call(verb, 0).await {
        Ok(Outcome::CreateWorkspace(Err(rejection))) if rejection.reason != Reason::WorkspaceExists => {
            Err(fail(rejection.text))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(fail(error.to_string())),
    }
}
