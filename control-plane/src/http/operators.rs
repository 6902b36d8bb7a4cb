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
async fn ready(State(edge): State<Edge>) -> (StatusCode, String) {
    let (database, broker) = tokio::join!(edge.store.ping(), edge.broker.caller());
    let broken = database.err().map(|error| error.to_string());
    match broken.or_else(|| broker.err().map(|error| format!("the broker: {error}"))) {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

async fn scrape(State(edge): State<Edge>) -> impl IntoResponse {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    (kind, edge.metrics.encode())
}
