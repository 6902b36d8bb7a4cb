//! The port for operators: metrics, liveness, readiness.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tandem_raft::FatalSink;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    metrics::{Metrics, ShardLabel},
    shard::Shards,
    tls::ServerTls,
};

#[derive(Clone)]
struct Operator {
    metrics: Arc<Metrics>,
    shards: Shards,
    fatal: FatalSink,
}

/// Serves until told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    metrics: Arc<Metrics>,
    shards: Shards,
    fatal: FatalSink,
    mut stopping: watch::Receiver<bool>,
) {
    let router = Router::new()
        .route("/metrics", get(scrape))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .with_state(Operator { metrics, shards, fatal });
    let stopped = async move { while !*stopping.borrow_and_update() && stopping.changed().await.is_ok() {} };
    let served = match tls {
        None => axum::serve(listener, router).with_graceful_shutdown(stopped).await,
        Some(tls) => axum::serve(tls.connections(listener), router).with_graceful_shutdown(stopped).await,
    };
    if let Err(error) = served {
        tracing::error!(%error, "the metrics server ended");
    }
}

async fn scrape(State(operator): State<Operator>) -> impl IntoResponse {
    let gauges = &operator.metrics.shards;
    for shard in operator.shards.iter() {
        let label = ShardLabel { shard: shard.group.shard() };
        let status = shard.group.status();
        gauges.leader.get_or_create(&label).set(i64::from(status.leadership.is_leader));
        gauges.term.get_or_create(&label).set(status.leadership.term as i64);
        gauges.last_log_index.get_or_create(&label).set(status.last_log_index as i64);
        let slowest = shard.group.matched().into_values().min().unwrap_or(status.last_log_index);
        let in_flight = status.last_log_index.saturating_sub(status.committed_index);
        let in_flight = if status.leadership.is_leader { in_flight } else { 0 };
        gauges.proposals_in_flight.get_or_create(&label).set(in_flight as i64);
        gauges.committed_index.get_or_create(&label).set(status.committed_index as i64);
        gauges.apply_lag.get_or_create(&label).set(status.committed_index.saturating_sub(status.applied_index) as i64);
        gauges.slowest_voter_lag.get_or_create(&label).set(status.last_log_index.saturating_sub(slowest) as i64);
        gauges.applied_index.get_or_create(&label).set(status.applied_index as i64);
        gauges.snapshot_index.get_or_create(&label).set(status.snapshot_index as i64);
        gauges.purged_index.get_or_create(&label).set(status.purged_index as i64);
        gauges.open_inboxes.get_or_create(&label).set(shard.delivery.open_inboxes() as i64);
        gauges.queued_bytes.get_or_create(&label).set(shard.batcher.queued_bytes() as i64);
        gauges.state_bytes.get_or_create(&label).set(shard.reader.engine().size_bytes() as i64);
    }
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, operator.metrics.encode())
}

async fn health(State(operator): State<Operator>) -> (StatusCode, String) {
    match operator.fatal.get() {
        None => (StatusCode::OK, "ok\n".into()),
        Some(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
    }
}

async fn ready(State(operator): State<Operator>) -> (StatusCode, String) {
    for shard in operator.shards.iter() {
        if let Err(error) = shard.group.read_barrier().await {
            return (StatusCode::SERVICE_UNAVAILABLE, format!("shard {}: {error}\n", shard.group.shard()));
        }
    }
    (StatusCode::OK, "ready\n".into())
}
