//! Resources as answers, with their tag.

use axum::{
    Json,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::{PREFIX, precondition, problem::Problem};

/// One that was made, and where it is found.
pub(super) fn created(under: &str, id: String, revision: i64, shown: impl Serialize) -> Result<Response, Problem> {
    let tag = [(header::ETAG, precondition::tag(revision))];
    let mut answer = (StatusCode::CREATED, tag, Json(shown)).into_response();
    if let Ok(place) = HeaderValue::try_from(format!("{PREFIX}/{under}/{id}")) {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    Ok(answer)
}

/// One that is read, unless the caller has it already.
pub(super) fn read(headers: &HeaderMap, revision: i64, shown: impl Serialize) -> Result<Response, Problem> {
    if precondition::has(headers, revision) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, precondition::tag(revision))]).into_response());
    }
    now(revision, shown)
}

/// One as it is now.
pub(super) fn now(revision: i64, shown: impl Serialize) -> Result<Response, Problem> {
    Ok(([(header::ETAG, precondition::tag(revision))], Json(shown)).into_response())
}
