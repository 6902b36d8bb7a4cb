//! Wiring: from settings to a service that runs.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tandem_client::Client;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

use crate::{
    config::{Config, ConfigError},
    http::{self, Parts, Rates, serve::serve},
    metrics::Metrics,
    relay::Relays,
    sandbox::{Docker, SandboxRuntime},
    secrets::Secrets,
    service::{
        alerts::{Alerts, Deliverer, Evaluator, Sender},
        caller::Callers,
        mcp_servers::McpServers,
        networks::Networks,
        providers::Providers,
        reconciler::Reconciler,
        sandboxes::{Kit, Sandboxes},
        workspaces::Workspaces,
    },
    store::{Store, StoreError},
    tls::Tls,
};

/// How long requests have to end.
const GRACE: Duration = Duration::from_secs(5);

/// What runs sandboxes, with what tells those of this database from others'.
async fn sandboxes(config: &Config, store: &Store, broker: &Client, kit: Kit) -> Result<Sandboxes, StartError> {
    let installation = store.installation().await?;
    let image = &config.sandboxes.image;
    let runtime: Arc<dyn SandboxRuntime> = Arc::new(Docker::new(&config.sandboxes.docker_host, &installation, image));
    let ca_file = Some(config.broker.ca_file.as_path()).filter(|file| !file.as_os_str().is_empty());
    let relays = Relays::new(&config.broker.endpoints, ca_file).map_err(StartError::Relay)?;
    let settings = config.sandboxes.clone();
    let networks = Networks::new((store.clone(), Arc::clone(&runtime)), relays, settings.clone(), installation);
    let has_tokens = !config.broker.token_file.as_os_str().is_empty();
    Ok(Sandboxes::new((store.clone(), runtime, networks), (broker.clone(), kit), (settings, has_tokens)))
}

/// The keys of what is kept sealed.
fn secrets(config: &Config) -> Result<Secrets, StartError> {
    let file = &config.secrets.key_file;
    Secrets::of_file(file, config.secrets.create_key_file)
        .map_err(|why| StartError::Secrets { file: file.display().to_string(), why: why.to_string() })
}

/// Judges what happens, and tells others.
fn alerting(
    config: &Config,
    (store, secrets): (&Store, Secrets),
    (broker, metrics): (&Client, &Arc<Metrics>),
    stopped: &watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let timeout = Duration::from_millis(config.alerts.webhook_timeout_ms);
    let sender =
        Sender::new(timeout, config.alerts.allow_loopback).map_err(|error| StartError::Tls(error.to_string()))?;
    let deliverer = Deliverer::new((store.clone(), secrets), sender, config.alerts.clone(), Arc::clone(metrics));
    let evaluator = Evaluator::new(store.clone(), broker.clone(), Arc::clone(metrics));
    let (evaluating, delivering) = (evaluator.run(stopped.clone()), deliverer.run(stopped.clone()));
    Ok(tokio::spawn(async {
        tokio::join!(evaluating, delivering);
    }))
}

/// Why the control plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database cannot be opened.
    #[error("the database: {0}")]
    Store(#[from] StoreError),
    /// The broker's address cannot be used.
    #[error("setting broker.endpoints: {0}")]
    Broker(#[from] tandem_client::Error),
    /// The broker cannot be reached for sandboxes.
    #[error("setting broker.endpoints or broker.ca_file: {0}")]
    Relay(String),
    /// The keys of secrets cannot be used.
    #[error("setting secrets.key_file is {file}: {why}")]
    Secrets {
        /// As it was set.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// This build speaks no TLS, which webhooks need.
    #[error("webhooks: {0}")]
    Tls(String),
    /// The address is taken, or none of this machine.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// As it was set.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

impl StartError {
    /// The stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_)
            | Self::Broker(_)
            | Self::Relay(_)
            | Self::Secrets { .. }
            | Self::Store(StoreError::Address(_)) => "INVALID_CONFIG",
            Self::Store(_) => "DATABASE_UNAVAILABLE",
            Self::Tls(_) => "INTERNAL",
            Self::Listen { .. } => "ADDRESS_IN_USE",
        }
    }
}

/// A control plane that runs.
#[derive(Debug)]
pub struct ControlPlane {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    running: [JoinHandle<()>; 3],
    tasks: TaskTracker,
    store: Store,
}

impl ControlPlane {
    /// Starts it. The broker need not be there yet; nothing is answered that needs it until it is.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.validate()?;
        let broker = Client::with_settings(config.client())?;
        let (secrets, tls) = (secrets(&config)?, Tls::new(&config.tls)?);
        let is_plain = tls.is_none();
        let store = Store::open(&config.database.url, config.database.connections).await?;
        let listen = |error| StartError::Listen { address: config.listen, error };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (stopping, stopped) = watch::channel(false);
        let tasks = TaskTracker::new();
        let metrics = Metrics::new();
        let kit = Kit {
            providers: Providers::new(store.clone(), secrets.clone()),
            mcp_servers: McpServers::new(store.clone(), secrets.clone()),
            alerts: Alerts::new(store.clone(), secrets.clone(), config.alerts.allow_loopback),
        };
        let sandboxes = sandboxes(&config, &store, &broker, kit.clone()).await?;
        let grace = Duration::from_secs(config.deletion_grace_s);
        let workspaces = Workspaces::new(store.clone(), sandboxes.clone(), grace);
        let parts = Parts {
            store: store.clone(),
            callers: Callers::new(&broker),
            workspaces: workspaces.clone(),
            sandboxes: sandboxes.clone(),
            broker_urls: config.broker.endpoints.clone(),
            providers: kit.providers,
            mcp_servers: kit.mcp_servers,
            alerts: kit.alerts,
            secrets: secrets.clone(),
            metrics: Arc::clone(&metrics),
            broker: broker.clone(),
            limits: config.limits.clone(),
            rates: Rates::new(config.limits.requests_per_second),
            sockets: Arc::new(Semaphore::new(config.limits.max_websockets)),
            stopping: stopped.clone(),
            tasks: tasks.clone(),
        };
        let router = http::router(parts, &config);
        let alerting = alerting(&config, (&store, secrets), (&broker, &metrics), &stopped)?;
        let reconciler = Reconciler::new(store.clone(), (workspaces, sandboxes), broker, metrics);
        let reconciling = tokio::spawn(reconciler.run(stopped.clone()));
        let serving = serve((listener, tls), router, config.limits.clone(), (tasks.clone(), stopped));
        let serving = tokio::spawn(serving);
        tracing::info!(%address, database = store.engine(), "ready");
        if is_plain && !address.ip().is_loopback() {
            tracing::warn!(%address, "this service speaks no TLS here: tokens and content can be read on the way to it");
        }
        Ok(Self { address, stopping, running: [serving, reconciling, alerting], tasks, store })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops: lets requests that are under way end, for a while, and lets go of the database.
    pub async fn shutdown(self) {
        self.stopping.send_replace(true);
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!(open = self.tasks.len(), "connections are cut that have not ended");
        }
        for mut task in self.running {
            if tokio::time::timeout(GRACE, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.store.close().await;
    }
}
