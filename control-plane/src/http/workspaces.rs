//! `/workspaces`.

use axum::{
    Extension, Json as JsonAnswer,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::{
    Edge, PREFIX,
    body::{Json, Path, Query},
    precondition,
    problem::{Problem, ProblemDocument},
    time,
};
use crate::{
    error::Failure,
    service::{
        caller::Caller,
        listing::Listing,
        workspace::{Document, WorkspaceSettings},
        workspaces::{Changes, NewWorkspace},
    },
    store::Resource,
};

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Workspace {
    /// Stays the same.
    id: String,
    /// For people; no two workspaces have the same.
    name: String,
    /// For people.
    description: String,
    settings: WorkspaceSettings,
    /// What is being done with it: `creating`, `active`, `updating`, `deleting` or `failed`.
    state: String,
    /// Why it is not as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// One more with each change; the tag (`ETag`) says the same.
    revision: i64,
    /// RFC 3339.
    #[schema(format = DateTime)]
    create_time: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    update_time: String,
    /// When it is deleted for good, unless it is restored before. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    delete_time: Option<String>,
    /// What it holds at the broker; left out in lists, and where the broker does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// What a workspace holds at the broker.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Usage {
    /// Sandboxes that are registered.
    sandbox_count: u32,
    /// The sequence of the newest message; 0: there is none.
    last_sequence: u64,
    /// The oldest sequence that is kept.
    first_sequence: u64,
    /// Bytes of the history.
    stored_bytes: u64,
    /// The Raft group that holds it.
    shard_id: u32,
}

/// Some workspaces.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkspaceList {
    workspaces: Vec<Workspace>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A workspace that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateWorkspace {
    /// Letters, digits and `. _ : @ / -`, beginning with a letter or a digit. Unset: one is made up.
    #[schema(min_length = 1, max_length = 128)]
    id: Option<String>,
    /// For people; no two workspaces have the same.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 2000)]
    description: String,
    #[serde(default)]
    settings: WorkspaceSettings,
}

/// What a workspace is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplaceWorkspace {
    /// For people; no two workspaces have the same.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// For people.
    #[serde(default)]
    #[schema(max_length = 2000)]
    description: String,
    #[serde(default)]
    settings: WorkspaceSettings,
}

/// What is to change (JSON Merge Patch, RFC 7396): what is not there stays, and null goes back to its default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateWorkspace {
    /// For people; no two workspaces have the same.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    /// For people.
    #[schema(max_length = 2000)]
    description: Option<String>,
    /// Parts of the settings.
    #[schema(value_type = Option<Object>)]
    settings: Option<Value>,
}

/// How a workspace is deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Deletion {
    /// At once, and not after the time of grace.
    #[serde(default)]
    force: bool,
}

fn shown(row: Resource) -> Result<Workspace, Failure> {
    let document = Document::of(&row)?;
    Ok(Workspace {
        id: row.id,
        name: row.name,
        description: document.description,
        settings: document.settings,
        state: row.state,
        error: Some(document.error).filter(|error| !error.is_empty()),
        revision: row.revision,
        create_time: time::of_ms(row.create_ms),
        update_time: time::of_ms(row.update_ms),
        delete_time: (document.delete_ms > 0).then(|| time::of_ms(document.delete_ms)),
        usage: None,
    })
}

/// A workspace as an answer. What the broker did not confirm yet is only accepted.
fn answer(row: Resource, done: StatusCode) -> Result<Response, Problem> {
    let under_way = ["creating", "updating", "deleting"].contains(&row.state.as_str());
    let status = if under_way { StatusCode::ACCEPTED } else { done };
    let tag = precondition::tag(row.revision);
    Ok((status, [(header::ETAG, tag)], JsonAnswer(shown(row)?)).into_response())
}

/// Lists workspaces; who is bound to one sees that one.
#[utoipa::path(get, path = "/workspaces", operation_id = "list_workspaces", tag = "workspaces", params(Listing), responses(
    (status = 200, description = "A page of them", body = WorkspaceList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Query(listing): Query<Listing>,
) -> Result<JsonAnswer<WorkspaceList>, Problem> {
    let (rows, next_cursor) = edge.workspaces.list(&caller, &listing.read()?).await?;
    let workspaces = rows.into_iter().map(shown).collect::<Result<_, _>>()?;
    Ok(JsonAnswer(WorkspaceList { workspaces, next_cursor }))
}

/// Creates a workspace.
#[utoipa::path(post, path = "/workspaces", operation_id = "create_workspace", tag = "workspaces",
    params(("Idempotency-Key" = Option<String>, Header, description = "A request that is sent again with it does nothing, and is answered as the first time, for a day")),
    request_body = CreateWorkspace, responses(
    (status = 201, description = "It is there", body = Workspace),
    (status = 202, description = "The broker did not say yet; it is made as soon as it does", body = Workspace),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<CreateWorkspace>,
) -> Result<Response, Problem> {
    let CreateWorkspace { id, name, description, settings } = wanted;
    let row = edge.workspaces.create(&caller, NewWorkspace { id, name, description, settings }).await?;
    // An id may hold what parts paths.
    let place = format!("{PREFIX}/workspaces/{}", row.id.replace('/', "%2F"));
    let mut answer = answer(row, StatusCode::CREATED)?;
    if let Ok(place) = HeaderValue::try_from(place) {
        answer.headers_mut().insert(header::LOCATION, place);
    }
    Ok(answer)
}

/// Returns a workspace, with what it holds at the broker.
#[utoipa::path(get, path = "/workspaces/{id}", operation_id = "get_workspace", tag = "workspaces",
    params(("id" = String, Path, description = "Its id"),
        ("If-None-Match" = Option<String>, Header, description = "The tag of what is known already")),
    responses(
    (status = 200, description = "It", body = Workspace),
    (status = 304, description = "It is what is known already"),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = edge.workspaces.get(&caller, &id).await?;
    let tag = [(header::ETAG, precondition::tag(row.revision))];
    if precondition::has(&headers, row.revision) {
        return Ok((StatusCode::NOT_MODIFIED, tag).into_response());
    }
    let mut workspace = shown(row)?;
    // It is a workspace also while the broker does not answer.
    workspace.usage = caller.broker.workspaces().get(id).await.ok().map(|held| Usage {
        sandbox_count: held.sandbox_count,
        last_sequence: held.last_sequence,
        first_sequence: held.first_sequence,
        stored_bytes: held.stored_bytes,
        shard_id: held.shard_id,
    });
    Ok((tag, JsonAnswer(workspace)).into_response())
}

/// Replaces a workspace; what is left out goes back to its default.
#[utoipa::path(put, path = "/workspaces/{id}", operation_id = "replace_workspace", tag = "workspaces",
    params(("id" = String, Path, description = "Its id"),
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not replaced if it is another one by now")),
    request_body = ReplaceWorkspace, responses(
    (status = 200, description = "As it is now", body = Workspace),
    (status = 202, description = "The broker did not say yet; it is told until it does", body = Workspace),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn replace(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(wanted): Json<ReplaceWorkspace>,
) -> Result<Response, Problem> {
    let ReplaceWorkspace { name, description, settings } = wanted;
    let changes = Changes { name: Some(name), description: Some(description), settings: Some(settings) };
    let seen = precondition::wanted(&headers)?;
    answer(edge.workspaces.change(&caller, &id, seen, |_, _| Ok(changes)).await?, StatusCode::OK)
}

/// Changes parts of a workspace.
#[utoipa::path(patch, path = "/workspaces/{id}", operation_id = "update_workspace", tag = "workspaces",
    params(("id" = String, Path, description = "Its id"),
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not changed if it is another one by now")),
    request_body(content((UpdateWorkspace = "application/merge-patch+json"), (UpdateWorkspace = "application/json"))), responses(
    (status = 200, description = "As it is now", body = Workspace),
    (status = 202, description = "The broker did not say yet; it is told until it does", body = Workspace),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn patch(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(wanted): Json<UpdateWorkspace>,
) -> Result<Response, Problem> {
    let seen = precondition::wanted(&headers)?;
    let change = |document: &Document, _: &str| {
        let settings = wanted.settings.map(|patch| merged(&document.settings, patch)).transpose()?;
        Ok(Changes { name: wanted.name, description: wanted.description, settings })
    };
    answer(edge.workspaces.change(&caller, &id, seen, change).await?, StatusCode::OK)
}

/// Deletes a workspace, with its sandboxes, messages, keys and tokens, when its time of grace is over.
#[utoipa::path(delete, path = "/workspaces/{id}", operation_id = "delete_workspace", tag = "workspaces",
    params(("id" = String, Path, description = "Its id"), Deletion,
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not deleted if it is another one by now")),
    responses(
    (status = 202, description = "It is going to be deleted", body = Workspace),
    (status = 204, description = "It is gone"),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn delete(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(deletion): Query<Deletion>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seen = precondition::wanted(&headers)?;
    match edge.workspaces.delete(&caller, &id, seen, deletion.force).await? {
        Some(row) => answer(row, StatusCode::ACCEPTED),
        None => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

/// Takes back a deletion whose time of grace is not over.
#[utoipa::path(post, path = "/workspaces/{id}/restore", operation_id = "restore_workspace", tag = "workspaces",
    params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "As it is now", body = Workspace),
    (status = 202, description = "It was not being deleted; something else is under way", body = Workspace),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn restore(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    answer(edge.workspaces.restore(&caller, &id).await?, StatusCode::OK)
}

/// Settings with a patch.
fn merged(settings: &WorkspaceSettings, patch: Value) -> Result<WorkspaceSettings, Failure> {
    merged_with(settings, patch, "settings")
}

/// Something with a patch. `place`: where it stands in the body, for errors; empty: it is the body.
pub(super) fn merged_with<T: Serialize + DeserializeOwned>(
    before: &T,
    patch: Value,
    place: &str,
) -> Result<T, Failure> {
    let broken = |error: serde_json::Error| Failure::field(place, error.to_string());
    let mut value = serde_json::to_value(before).map_err(broken)?;
    merge(&mut value, patch);
    // Null for all of them: all defaults.
    let value = if value.is_null() { Value::Object(serde_json::Map::new()) } else { value };
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = error.path().to_string();
        let place = if place.is_empty() { inner } else { format!("{place}.{inner}") };
        Failure::field(&place, error.into_inner().to_string())
    })
}

/// RFC 7396. The depth is that of a body, which the reader of JSON bounds.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_changes_what_it_names() {
        let before = json!({"max_hops": 3, "retention": {"bytes": 2_097_152}, "quotas": {"sandbox": {"messages_per_second": 7}}});
        let before: WorkspaceSettings = serde_json::from_value(before).unwrap();
        let after = merged(&before, json!({"max_hops": null, "quotas": {"max_streams": 4}})).unwrap();
        let mut expected = before.clone();
        (expected.max_hops, expected.quotas.max_streams) = (None, Some(4));
        assert_eq!(after, expected);
        assert_eq!(merged(&before, Value::Null).unwrap(), WorkspaceSettings::default());
        for (patch, place) in
            [(json!({"quotas": {"max_streams": -1}}), "settings.quotas.max_streams"), (json!({"size": 1}), "settings")]
        {
            assert!(merged(&before, patch).unwrap_err().to_string().starts_with(place));
        }
    }
}
