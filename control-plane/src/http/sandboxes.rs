//! `/sandboxes`.

pub(super) mod output;
mod shown;

use axum::{
    Extension, Json as JsonAnswer,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use self::shown::{Sandbox, SandboxList, SandboxStatus, shown, status_of};
use super::{
    Edge, PREFIX,
    body::{Json, Path, Query},
    precondition,
    problem::{Problem, ProblemDocument},
    workspaces::merged_with,
};
use crate::{
    error::Failure,
    service::{caller::Caller, listing::Listing, sandbox::Spec, sandboxes::NewSandbox},
    store::Resource,
};

/// A sandbox that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes a body that is read field by field, so that errors name the place")]
pub(crate) struct CreateSandbox {
    /// The workspace that it is in.
    #[schema(min_length = 1, max_length = 128)]
    workspace_id: String,
    /// Small letters, digits and hyphens; no two of a workspace have the same. Messages to it are addressed to this.
    #[schema(min_length = 1, max_length = 63, pattern = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    name: String,
    /// What runs in it, and with how much.
    #[serde(flatten)]
    spec: Spec,
}

fn read_new(mut body: serde_json::Map<String, Value>) -> Result<NewSandbox, Failure> {
    let mut take = |field: &str| match body.remove(field) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Failure::field(field, format!("{other} is no text"))),
        None => Err(Failure::field(field, "it is missing")),
    };
    let (workspace, name) = (take("workspace_id")?, take("name")?);
    let spec = merged_with(&Spec::default(), Value::Object(body), "")?;
    Ok(NewSandbox { workspace, name, spec })
}

/// Which sandboxes are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct OfWorkspace {
    /// Those of one workspace.
    #[param(max_length = 128)]
    workspace_id: Option<String>,
    /// How many at most: 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before, whose other parameters must be the same.
    #[param(max_length = 2048)]
    cursor: Option<String>,
    /// `name`, `create_time` or `update_time`; behind `-` the other way round.
    #[param(pattern = "^-?(name|create_time|update_time)$", default = "create_time")]
    sort: Option<String>,
    /// Those alone that are in this state.
    #[param(max_length = 256)]
    state: Option<String>,
    /// Those alone whose name begins so.
    #[param(max_length = 256)]
    name_prefix: Option<String>,
}

impl OfWorkspace {
    fn split(self) -> (Option<String>, Listing) {
        let Self { workspace_id, limit, cursor, sort, state, name_prefix } = self;
        (workspace_id, Listing { limit, cursor, sort, state, name_prefix })
    }
}

/// A sandbox as an answer. What is not done yet is only accepted.
fn answer(edge: &Edge, row: Resource, done: StatusCode) -> Result<Response, Problem> {
    let under_way = !["running", "stopped", "failed"].contains(&row.state.as_str());
    let status = if under_way { StatusCode::ACCEPTED } else { done };
    let tag = precondition::tag(row.revision);
    Ok((status, [(header::ETAG, tag)], JsonAnswer(shown(edge, row)?)).into_response())
}

/// Lists sandboxes; who is bound to a workspace sees those of that one.
#[utoipa::path(get, path = "/sandboxes", operation_id = "list_sandboxes", tag = "sandboxes", params(OfWorkspace), responses(
    (status = 200, description = "A page of them", body = SandboxList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<OfWorkspace>,
) -> Result<JsonAnswer<SandboxList>, Problem> {
    let (workspace, listing) = wanted.split();
    let (rows, next_cursor) = edge.sandboxes.list(&caller, workspace.as_deref(), &listing.read()?).await?;
    let sandboxes = rows.into_iter().map(|row| shown(&edge, row)).collect::<Result<_, _>>()?;
    Ok(JsonAnswer(SandboxList { sandboxes, next_cursor }))
}

/// Creates a sandbox and starts it. 201: it runs and the broker knows it; 202: it has been started.
#[utoipa::path(post, path = "/sandboxes", operation_id = "create_sandbox", tag = "sandboxes",
    params(("Idempotency-Key" = Option<String>, Header, description = "A request that is sent again with it does nothing, and is answered as the first time, for a day")),
    request_body = CreateSandbox, responses(
    (status = 201, description = "It runs", body = Sandbox),
    (status = 202, description = "It was started, and the broker has not heard of it yet", body = Sandbox),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<serde_json::Map<String, Value>>,
) -> Result<Response, Problem> {
    let row = edge.sandboxes.create(&caller, read_new(body)?).await?;
    let place = format!("{PREFIX}/sandboxes/{}", row.id);
    let mut response = answer(&edge, row, StatusCode::CREATED)?;
    if let Ok(place) = place.parse() {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}

/// One sandbox.
#[utoipa::path(get, path = "/sandboxes/{id}", operation_id = "get_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id"), ("If-None-Match" = Option<String>, Header, description = "The tag of what the caller has")), responses(
    (status = 200, description = "It", body = Sandbox),
    (status = 304, description = "The caller has it"),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let row = edge.sandboxes.get(&caller, &id).await?;
    let tag = precondition::tag(row.revision);
    if precondition::has(&headers, row.revision) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    Ok((StatusCode::OK, [(header::ETAG, tag)], JsonAnswer(shown(&edge, row)?)).into_response())
}

/// Changes a sandbox (JSON Merge Patch, RFC 7396) from its next start on.
#[utoipa::path(patch, path = "/sandboxes/{id}", operation_id = "update_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id"), ("If-Match" = Option<String>, Header, description = "The tag of what the change is for")),
    request_body(content = inline(Object), description = "What is to change: what is not there stays, and null goes back to its default"), responses(
    (status = 200, description = "It, as it is from its next start on", body = Sandbox),
    (status = 202, description = "The same, while something is done with it", body = Sandbox),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn patch(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Path(id): Path<String>,
    Json(patch): Json<serde_json::Map<String, Value>>,
) -> Result<Response, Problem> {
    for fixed in ["workspace_id", "name"] {
        if patch.contains_key(fixed) {
            return Err(Failure::field(fixed, "it stays what it is; make another sandbox").into());
        }
    }
    let seen = precondition::wanted(&headers)?;
    let change = |spec: &Spec| merged_with(spec, Value::Object(patch), "");
    answer(&edge, edge.sandboxes.change(&caller, (&id, seen), change).await?, StatusCode::OK)
}

/// Deletes a sandbox with its data and its inbox.
#[utoipa::path(delete, path = "/sandboxes/{id}", operation_id = "delete_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id"), ("If-Match" = Option<String>, Header, description = "The tag of what is to be deleted")), responses(
    (status = 202, description = "It is being deleted", body = Sandbox),
    (status = 204, description = "It is gone"),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn delete(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    match edge.sandboxes.delete(&caller, &id, precondition::wanted(&headers)?).await? {
        Some(row) => answer(&edge, row, StatusCode::ACCEPTED),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// What a sandbox does, and what has become of it.
#[utoipa::path(get, path = "/sandboxes/{id}/status", operation_id = "get_sandbox_status", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "What it does", body = SandboxStatus),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn status(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<JsonAnswer<SandboxStatus>, Problem> {
    let row = edge.sandboxes.get(&caller, &id).await?;
    let known = caller.broker.registry(row.scope.as_str()).get(row.name.as_str()).await;
    Ok(JsonAnswer(status_of(&row, known.ok())?))
}

/// Starts a sandbox; one that runs is left alone.
#[utoipa::path(post, path = "/sandboxes/{id}/start", operation_id = "start_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "It runs", body = Sandbox),
    (status = 202, description = "It was started, and the broker has not heard of it yet", body = Sandbox),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn start(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    answer(&edge, edge.sandboxes.start(&caller, &id).await?, StatusCode::OK)
}

/// Stops a sandbox; messages wait in its inbox. One that is stopped is left alone.
#[utoipa::path(post, path = "/sandboxes/{id}/stop", operation_id = "stop_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "It is stopped", body = Sandbox),
    (status = 202, description = "It is being stopped: Docker or the broker does not answer, and it goes on when they do", body = Sandbox),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn stop(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    answer(&edge, edge.sandboxes.stop(&caller, &id).await?, StatusCode::OK)
}

/// Stops a sandbox and starts it.
#[utoipa::path(post, path = "/sandboxes/{id}/restart", operation_id = "restart_sandbox", tag = "sandboxes",
    params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "It runs again", body = Sandbox),
    (status = 202, description = "It was started, and the broker has not heard of it yet", body = Sandbox),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn restart(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    answer(&edge, edge.sandboxes.restart(&caller, &id).await?, StatusCode::OK)
}
