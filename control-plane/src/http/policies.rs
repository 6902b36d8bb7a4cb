//! `/policies`: who may say what to whom in a workspace, and in which revision.

use axum::{
    Extension, Json as JsonAnswer,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use tandem_client::Policy;
use utoipa::ToSchema;

use super::{
    body::{Json, Query},
    messages::InWorkspace,
    precondition,
    problem::{Problem, ProblemDocument},
    time,
};
use crate::{error::Failure, service::caller::Caller};

/// The policy of a workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownPolicy {
    /// Rises with every change; 0: there was never one.
    revision: u64,
    /// Null: everybody may talk to everybody.
    policy: Value,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    update_time: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    updated_by: String,
}

fn shown(policy: Policy) -> Response {
    let tag = precondition::tag(i64::try_from(policy.revision).unwrap_or(i64::MAX));
    let shown = ShownPolicy {
        revision: policy.revision,
        policy: serde_json::from_str(&policy.json).unwrap_or(Value::Null),
        update_time: time::of(policy.update_time.as_ref()),
        updated_by: policy.updated_by,
    };
    ([(header::ETAG, tag)], JsonAnswer(shown)).into_response()
}

fn seen(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    Ok(precondition::wanted(headers)?.map(|revision| u64::try_from(revision).unwrap_or(u64::MAX)))
}

/// Returns the policy in force.
#[utoipa::path(get, path = "/policies", operation_id = "get_policy", tag = "policies", params(InWorkspace), responses(
    (status = 200, description = "It", body = ShownPolicy),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    Extension(caller): Extension<Caller>,
    Query(place): Query<InWorkspace>,
) -> Result<Response, Problem> {
    Ok(shown(caller.broker.policies(place.workspace_id).get().await.map_err(Failure::of_question)?))
}

/// Gives the workspace another policy. What is committed after the answer is judged by it.
#[utoipa::path(put, path = "/policies", operation_id = "set_policy", tag = "policies",
    params(InWorkspace, ("If-Match" = Option<String>, Header, description = "The tag of the policy that was seen")),
    request_body(content = Object, description = "The policy"), responses(
    (status = 200, description = "As it is now", body = ShownPolicy),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn set(
    Extension(caller): Extension<Caller>,
    Query(place): Query<InWorkspace>,
    headers: HeaderMap,
    Json(policy): Json<Value>,
) -> Result<Response, Problem> {
    let policies = caller.broker.policies(place.workspace_id);
    Ok(shown(policies.set(policy.to_string(), seen(&headers)?).await.map_err(Failure::from)?))
}

/// Takes the policy away: everybody may talk to everybody.
#[utoipa::path(delete, path = "/policies", operation_id = "remove_policy", tag = "policies",
    params(InWorkspace, ("If-Match" = Option<String>, Header, description = "The tag of the policy that was seen")), responses(
    (status = 200, description = "As it is now", body = ShownPolicy),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn remove(
    Extension(caller): Extension<Caller>,
    Query(place): Query<InWorkspace>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let policies = caller.broker.policies(place.workspace_id);
    Ok(shown(policies.remove(seen(&headers)?).await.map_err(Failure::from)?))
}
