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
    secrets::Secrets,
    service::{
        alerts::{Alerts, Deliverer, Evaluator, Sender},
        caller::Callers,
        mcp_servers::McpServers,
        providers::Providers,
        reconciler::Reconciler,
        workspaces::Workspaces,
    },
    store::{Store, StoreError},
};

/// How long requests have to end.
const GRACE: Duration = Duration::from_secs(5);

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
            Self::Config(_) | Self::Broker(_) | Self::Secrets { .. } | Self::Store(StoreError::Address(_)) => {
                "INVALID_CONFIG"
            }
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
        let key_file = &config.secrets.key_file;
        let secrets = Secrets::of_file(key_file, config.secrets.create_key_file)
            .map_err(|why| StartError::Secrets { file: key_file.display().to_string(), why: why.to_string() })?;
        let store = Store::open(&config.database.url, config.database.connections).await?;
        let listen = |error| StartError::Listen { address: config.listen, error };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let (stopping, stopped) = watch::channel(false);
        let tasks = TaskTracker::new();
        let (metrics, workspaces) =
            (Metrics::new(), Workspaces::new(store.clone(), Duration::from_secs(config.deletion_grace_s)));
        let parts = Parts {
            store: store.clone(),
            callers: Callers::new(&broker),
            workspaces: workspaces.clone(),
            providers: Providers::new(store.clone(), secrets.clone()),
            mcp_servers: McpServers::new(store.clone(), secrets.clone()),
            alerts: Alerts::new(store.clone(), secrets.clone(), config.alerts.allow_loopback),
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
        let timeout = Duration::from_millis(config.alerts.webhook_timeout_ms);
        let sender =
            Sender::new(timeout, config.alerts.allow_loopback).map_err(|error| StartError::Tls(error.to_string()))?;
        let kept = (store.clone(), secrets);
        let deliverer = Deliverer::new(kept, sender, config.alerts.clone(), Arc::clone(&metrics));
        let evaluator = Evaluator::new(store.clone(), broker.clone(), Arc::clone(&metrics));
        let (evaluating, delivering) = (evaluator.run(stopped.clone()), deliverer.run(stopped.clone()));
        let alerting = tokio::spawn(async {
            tokio::join!(evaluating, delivering);
        });
        let reconciler = Reconciler::new(store.clone(), workspaces, broker, metrics);
        let reconciling = tokio::spawn(reconciler.run(stopped.clone()));
        let serving = serve(listener, router, config.limits.clone(), (tasks.clone(), stopped));
        let serving = tokio::spawn(serving);
        tracing::info!(%address, database = store.engine(), "ready");
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "this service speaks no TLS: tokens and content can be read on the way to it");
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
