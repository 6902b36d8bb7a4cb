//! What is seen of every request: its id, how long it took, and what it came to.

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};

use super::{Edge, REQUEST_ID};
use crate::{clock, random};

const MAX_REQUEST_ID_BYTES: usize = 64;

/// Goes around everything else.
pub(crate) async fn observe(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let began = clock::now();
    let method = request.method().clone();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let given = request.headers().get(REQUEST_ID).filter(|id| {
        let fits = |id: &str| !id.is_empty() && id.len() <= MAX_REQUEST_ID_BYTES;
        id.to_str().is_ok_and(fits)
    });
    let id = given.cloned().or_else(|| HeaderValue::try_from(random::id("req")).ok());
    if let Some(id) = &id {
        request.headers_mut().insert(REQUEST_ID, id.clone());
    }
    edge.metrics.under_way.inc();
    let under_way = UnderWay(&edge);
    let mut answer = next.run(request).await;
    drop(under_way);
    let took = began.elapsed();
    let path = path.as_deref().unwrap_or("none");
    // Anybody can make up methods.
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let label = known.into_iter().find(|known| *known == method.as_str()).unwrap_or("other");
    edge.metrics.answered(label, path, answer.status().as_u16(), took);
    let shown = id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    tracing::debug!(%method, path, request_id = shown, status = answer.status().as_u16(), ?took, "answered");
    let headers = answer.headers_mut();
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id);
    }
    if let Ok(timing) = HeaderValue::try_from(format!("total;dur={:.3}", took.as_secs_f64() * 1_000.0)) {
        headers.insert("server-timing", timing);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A request is counted until it is answered, or its client has gone.
struct UnderWay<'a>(&'a Edge);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.metrics.under_way.dec();
    }
}
