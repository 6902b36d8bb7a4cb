//! What operators and what balances load look at. Nobody is asked who he is.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Redirect},
    routing::get,
};

use super::Edge;

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/docs") }))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(scrape))
}

/// Whether requests can be answered: database and broker are there.
async fn ready(State(edge): State<Edge>) -> (StatusCode, &'static str) {
    let (database, broker) = tokio::join!(edge.store.ping(), edge.broker.caller());
    // Whoever asks has shown nothing: what exactly is wrong is for the log.
    let said = match (database, broker) {
        (Ok(()), Ok(_)) => return (StatusCode::OK, "ready\n"),
        (Err(error), _) => {
            tracing::warn!(%error, "not ready");
            "the database does not answer\n"
        }
        (_, Err(error)) => {
            tracing::warn!(%error, "not ready");
            "the broker does not answer\n"
        }
    };
    (StatusCode::SERVICE_UNAVAILABLE, said)
}

async fn scrape(State(edge): State<Edge>) -> impl IntoResponse {
    let places = edge.limits.max_websockets.saturating_sub(edge.sockets.available_permits());
    edge.metrics.sockets.set(i64::try_from(places).unwrap_or(i64::MAX));
    edge.metrics.open.set(i64::try_from(edge.tasks.len()).unwrap_or(i64::MAX));
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, edge.metrics.encode())
}
