//! The edge: one file per group of RPCs. Wire values become bounded domain values here, and domain errors a `Status`.

mod approvals;
mod audit;
mod capability;
mod cluster;
mod dead_letters;
pub(crate) mod ending;
mod events;
pub(crate) mod forward;
pub(crate) mod given;
mod history;
pub(crate) mod hurry;
mod keys;
pub(crate) mod moving;
mod policy;
mod publish;
mod quotas;
mod registry;
mod request;
mod server;
pub(crate) mod status;
mod subscribe;
mod time;
mod tokens;
mod topics;
mod workspace;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tandem_proto::{
    approval::v1::approval_service_server::ApprovalServiceServer,
    audit::v1::audit_service_server::AuditServiceServer,
    cluster::v1::cluster_service_server::ClusterServiceServer,
    key::v1::key_service_server::KeyServiceServer,
    policy::v1::policy_service_server::PolicyServiceServer,
    raw::messaging::v1::{
        dead_letter_service_server::DeadLetterServiceServer, event_service_server::EventServiceServer,
        history_service_server::HistoryServiceServer, publish_service_server::PublishServiceServer,
        request_service_server::RequestServiceServer, subscribe_service_server::SubscribeServiceServer,
        topic_service_server::TopicServiceServer,
    },
    registry::v1::registry_service_server::RegistryServiceServer,
    server::v1::server_service_server::ServerServiceServer,
    token::v1::token_service_server::TokenServiceServer,
    workspace::v1::workspace_service_server::WorkspaceServiceServer,
};
use tokio::sync::watch;
use tonic::{
    metadata::{MetadataMap, MetadataValue},
    service::Routes,
};

use crate::{
    auth::{Caller, layer::Door, seal::CALLER},
    cluster::Routing,
    config::{Config, Limits},
    metrics::Metrics,
    quotas::Buckets,
    rejection::{Reason, Rejection},
    shard::Shards,
};

/// A request of a subscription holds ids and ranges, no content.
const MAX_SUBSCRIBE_REQUEST_BYTES: usize = 64 << 10;

/// What every RPC needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Edge {
    pub(crate) shards: Shards,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) info: Arc<ServerInfo>,
    /// Where requests go in a cluster; None on a node that is alone.
    pub(crate) routing: Option<Routing>,
    /// Who may come in.
    pub(crate) door: Door,
    streams: Arc<AtomicUsize>,
    workspace_streams: quotas::WorkspaceStreams,
    buckets: Arc<Buckets>,
    stopping: watch::Receiver<bool>,
}

/// What does not change while the server runs.
pub(crate) struct ServerInfo {
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    pub(crate) start_time_ms: u64,
    pub(crate) storage_engine: &'static str,
}

/// A place among the streams that may be served at once.
pub(crate) struct StreamPlace {
    streams: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
    of_workspace: Option<quotas::WorkspacePlace>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
        self.metrics.streams.dec();
    }
}

impl Edge {
    pub(crate) fn new(
        shards: Shards,
        config: &Config,
        metrics: Arc<Metrics>,
        info: ServerInfo,
        (routing, door): (Option<Routing>, Door),
        stopping: watch::Receiver<bool>,
    ) -> Self {
        let (limits, info) = (config.limits, Arc::new(info));
        Self {
            shards,
            limits,
            metrics,
            info,
            routing,
            door,
            streams: Arc::default(),
            workspace_streams: Arc::default(),
            buckets: Arc::default(),
            stopping,
        }
    }

    /// Routes requests to the leaders of their shards; None on a node that is alone.
    pub(crate) fn forwarding(&self) -> Option<forward::ForwardLayer> {
        self.routing.clone().map(|routing| forward::ForwardLayer {
            routing,
            shards: self.shards.clone(),
            max_request_bytes: self.limits.max_batch_bytes + (64 << 10),
            stopping: self.stopping.clone(),
            request_timeout: Duration::from_millis(self.limits.request_timeout_ms),
            seal: self.door.seal().cloned(),
        })
    }

    /// Tells another node who is behind a request.
    fn vouch(&self, caller: &Caller, metadata: &mut MetadataMap) {
        let sealed = self.door.seal().and_then(|seal| seal.put(caller));
        if let Some(Ok(value)) = sealed.map(|sealed| MetadataValue::try_from(sealed.as_bytes())) {
            metadata.insert(CALLER, value);
        }
    }

    /// Whether the server is told to stop.
    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Resolves when the server shall stop.
    async fn stopped(&self) {
        let mut stopping = self.stopping.clone();
        while !*stopping.borrow_and_update() && stopping.changed().await.is_ok() {}
    }

    /// All services, without health and reflection.
    pub(crate) fn routes(&self) -> Routes {
        // One request holds one batch and its frame; the exact limits are checked per field, with a better text.
        let most = self.limits.max_batch_bytes + (64 << 10);
        let mut routes = Routes::builder();
        routes
            .add_service(PublishServiceServer::new(self.clone()).max_decoding_message_size(most))
            .add_service(
                SubscribeServiceServer::new(self.clone()).max_decoding_message_size(MAX_SUBSCRIBE_REQUEST_BYTES),
            )
            .add_service(HistoryServiceServer::new(self.clone()))
            .add_service(RequestServiceServer::new(self.clone()).max_decoding_message_size(most))
            .add_service(TopicServiceServer::new(self.clone()))
            .add_service(DeadLetterServiceServer::new(self.clone()))
            .add_service(EventServiceServer::new(self.clone()))
            .add_service(KeyServiceServer::new(self.clone()))
            .add_service(TokenServiceServer::new(self.clone()))
            .add_service(ApprovalServiceServer::new(self.clone()))
            .add_service(AuditServiceServer::new(self.clone()))
            .add_service(PolicyServiceServer::new(self.clone()))
            .add_service(RegistryServiceServer::new(self.clone()))
            .add_service(WorkspaceServiceServer::new(self.clone()))
            .add_service(ClusterServiceServer::new(self.clone()))
            .add_service(ServerServiceServer::new(self.clone()));
        routes.routes()
    }

    /// Somebody who is known asked for what he may not have, within a stream.
    fn turned_away(&self, caller: &Caller, path: &str, why: &Rejection) {
        let identity = caller.identity();
        let workspace = identity.workspace.as_deref().unwrap_or_default();
        self.door.refusals().add((&identity.subject, workspace), caller.seen(), path, why);
    }

    fn take_stream_place(&self) -> Result<StreamPlace, Rejection> {
        if self.streams.fetch_add(1, Ordering::Relaxed) >= self.limits.max_streams {
            self.streams.fetch_sub(1, Ordering::Relaxed);
            let text = format!("the server serves {} streams, as many as it may; close one", self.limits.max_streams);
            return Err(Rejection::new(Reason::TooManyStreams, text));
        }
        self.metrics.streams.inc();
        let (streams, metrics) = (Arc::clone(&self.streams), Arc::clone(&self.metrics));
        Ok(StreamPlace { streams, metrics, of_workspace: None })
    }
}
