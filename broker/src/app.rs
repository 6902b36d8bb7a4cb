//! Wiring, and nothing else.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tandem_raft::{FatalError, FatalSink, Node, OpenState};
use tandem_storage::{Engine, MemoryEngine, RocksEngine, RocksOptions, SpaceOptions};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    anchors::Anchors,
    auth::{
        api_keys::KeyRing,
        certificates::Certificates,
        issue::Signer,
        layer::{Door, Proofs},
        seal::Seal,
        token::Verifier,
    },
    clock,
    cluster::{Membership, Routing, Seat},
    command::{CreateWorkspace, Outcome, Verb, create_workspace::Settings},
    config::{Config, EngineKind, StorageConfig, TlsConfig},
    connections::Connections,
    data_dir::DataDir,
    error::StartError,
    grpc::{Edge, ServerInfo},
    http, machine,
    metrics::Metrics,
    query::StateReader,
    rejection::Reason,
    running::{Parts, Running},
    sealing::Sealer,
    serve,
    shard::{Applier, Shards},
    tls::{HTTP_1, HTTP_2, ServerTls},
};

/// Between two tries of a leader to create the default workspace.
const DEFAULT_WORKSPACE_PAUSE: Duration = Duration::from_millis(500);

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
        let tls = ServerTls::new(&config.tls, HTTP_2)?;
        // Who looks after the broker has no certificate to show.
        let operators = TlsConfig { client_ca_file: PathBuf::new(), ..config.tls.clone() };
        let operators = ServerTls::new(&operators, HTTP_1)?;
        let proofs = proofs(&config)?;
        Sealer::new(&config.encryption)?;
        let mut data_dir = DataDir::open(&config)?;
        let membership = Membership::prepare(&config, &mut data_dir, address(&grpc)).await?;
        let seal = membership.as_ref().and_then(Membership::seal);
        let metrics = Metrics::new();
        let fatal = FatalSink::default();
        let parts = parts(&config, &data_dir, membership, &metrics)?;
        let Running { node, shards, routing, mut tasks } = Running::start(&config, parts, &metrics, &fatal).await?;
        match routing.clone() {
            None => create_default_workspace(&config, &shards).await?,
            Some(routing) => {
                tasks.push(tokio::spawn(default_workspace_of_a_cluster(config.clone(), shards.clone(), routing)));
            }
        }

        let door = door(&config, (proofs, seal), &shards, &mut tasks);
        let info = ServerInfo {
            cluster_id: data_dir.identity.cluster_id.clone(),
            node_id: config.node_id,
            start_time_ms: clock::unix_ms(),
            storage_engine: engine_name(&config.storage),
        };
        let (stop, stopping) = watch::channel(false);
        let (grpc_address, metrics_address) = (address(&grpc), address(&metrics_http));
        let edge = Edge::new(
            shards.clone(),
            &config,
            Arc::clone(&metrics),
            info,
            (routing.clone(), door.clone()),
            stopping.clone(),
        );
        let anchored = (data_dir.identity.cluster_id.clone(), config.node_id);
        let anchors = Anchors::new(&config.audit, anchored, shards.clone())?;
        tasks.extend(anchors.map(|anchors| tokio::spawn(anchors.keep())));
        let places = places(&config, (&metrics, &door), shards.clone(), routing);
        let reporting = edge.clone().report_key_use_of(Arc::clone(door.keys()));
        tasks.push(tokio::spawn(reporting));
        tasks.push(tokio::spawn(edge.clone().report_refusals()));
        let servers = vec![
            tokio::spawn(serve::grpc(grpc, (tls, places), edge, stopping.clone())),
            tokio::spawn(http::serve(metrics_http, operators, metrics, shards.clone(), fatal.clone(), stopping)),
        ];
        let grace = Duration::from_millis(config.shutdown_grace_ms);
        tracing::info!(%grpc_address, %metrics_address, took_ms = started.elapsed().as_millis() as u64, "ready");
        warn_beyond_loopback(&config, grpc_address, metrics_address);
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

/// What proves who somebody is; None: the broker is open to everyone.
fn proofs(config: &Config) -> Result<Option<Proofs>, StartError> {
    if config.auth.open {
        return Ok(None);
    }
    let (tokens, certificates) = (Verifier::new(&config.auth)?, Certificates::new(&config.auth)?);
    let signer = Signer::new(&config.auth, &tokens)?;
    Ok(Some(Proofs { tokens, certificates, signer }))
}

/// Who may come in; what keeps that up to date runs for as long as the node.
fn door(
    config: &Config,
    (proofs, seal): (Option<Proofs>, Option<Seal>),
    shards: &Shards,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Door {
    let jwks = proofs.as_ref().and_then(|proofs| proofs.tokens.jwks().cloned());
    tasks.extend(jwks.map(|jwks| tokio::spawn(jwks.keep())));
    let keys = shards.iter().next().map(|shard| KeyRing::new(shard.reader.clone()));
    let keys = keys.unwrap_or_else(|| KeyRing::new(StateReader::default()));
    let door = Door::new(proofs, seal, keys, Duration::from_millis(config.limits.request_timeout_ms));
    tasks.push(tokio::spawn(Arc::clone(door.keys()).watch_revocations()));
    door
}

fn warn_beyond_loopback(config: &Config, grpc_address: SocketAddr, metrics_address: SocketAddr) {
    let here = grpc_address.ip().is_loopback() && metrics_address.ip().is_loopback();
    if !config.tls.is_on() && !here {
        tracing::warn!(%grpc_address, %metrics_address, "what is said here can be read on the way: the broker listens beyond loopback without TLS");
    }
    if config.auth.open && !grpc_address.ip().is_loopback() {
        tracing::warn!(%grpc_address, "auth.open lets everyone do everything, and the broker listens beyond loopback");
    }
}

/// Places for connections, as many as the settings and the quotas of workspaces have it.
fn places(
    config: &Config,
    (metrics, door): (&Arc<Metrics>, &Door),
    shards: Shards,
    routing: Option<Routing>,
) -> Arc<Connections> {
    let is_node = move |host: IpAddr| {
        let Some(cluster) = routing.as_ref().map(Routing::cluster) else { return false };
        let at = |id: &u64| cluster.service_address(*id)?.parse::<SocketAddr>().ok().map(|address| address.ip());
        let others: Vec<u64> = cluster.members().into_keys().filter(|id| *id != cluster.own_id()).collect();
        others.iter().any(|id| at(id) == Some(host))
    };
    let quota_of = move |workspace: &str| {
        let reader = &shards.of(workspace).reader;
        let found = reader.workspace(workspace).ok().and_then(|found| reader.quotas(found.number).ok().flatten());
        found.map_or(0, |quotas| quotas.max_connections)
    };
    let refusals = Arc::clone(door.refusals());
    let most = (config.limits.max_connections, config.limits.max_connections_per_host);
    Connections::new(most, Arc::clone(metrics), refusals, (Box::new(is_node), Box::new(quota_of)))
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

fn parts(
    config: &Config,
    data_dir: &DataDir,
    membership: Option<Membership>,
    metrics: &Metrics,
) -> Result<Parts, StartError> {
    if config.storage.engine == EngineKind::Memory {
        // The log is gone with the last process, so what is left of its states must not come back.
        remove_states(data_dir)?;
    }
    Ok(Parts {
        data_dir: data_dir.path.clone(),
        log: open_log(config, data_dir)?,
        states: state_opener(&config.storage),
        cluster: membership.map(|membership| membership.options(data_dir, metrics.peers.clone())),
        simulation: None,
    })
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
