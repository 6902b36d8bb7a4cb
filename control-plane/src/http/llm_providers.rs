//! `/llm-providers`: where the agents of a workspace reach language models.

use std::collections::BTreeMap;

use axum::{
    Extension, Json as JsonAnswer,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Edge,
    body::{Json, Path, Query},
    precondition,
    problem::{Problem, ProblemDocument},
    tagged, time,
};
use crate::{
    error::Failure,
    secrets::Secret,
    service::{
        caller::Caller,
        listing::ListingWithin,
        patch::Patch,
        providers::{Changes, Document, NewProvider, ProviderKind},
        scoped,
        values::{self, GivenValues, ShownValue},
    },
    store::Resource,
};

/// Where agents reach language models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LlmProvider {
    id: String,
    workspace_id: String,
    /// `settings.default_llm_provider` of the workspace may name it.
    name: String,
    kind: ProviderKind,
    base_url: String,
    /// Left out: none is preferred.
    #[serde(skip_serializing_if = "String::is_empty")]
    default_model: String,
    /// Empty: all that it has.
    models: Vec<String>,
    /// Sent with each request.
    headers: BTreeMap<String, ShownValue>,
    /// The key itself is never shown.
    has_api_key: bool,
    /// How the key ends, where it has 20 characters or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_last_four: Option<String>,
    /// One more with each change; the tag (`ETag`) says the same.
    revision: i64,
    /// RFC 3339.
    #[schema(format = DateTime)]
    create_time: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    update_time: String,
}

/// Some providers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LlmProviderList {
    llm_providers: Vec<LlmProvider>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A provider that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateLlmProvider {
    #[schema(max_length = 128)]
    workspace_id: String,
    /// No two of a workspace have the same.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    kind: ProviderKind,
    /// Unset: that of its kind; `azure_openai` and `custom` have none.
    #[schema(max_length = 2048)]
    base_url: Option<String>,
    /// One of `models`, where those are named.
    #[serde(default)]
    #[schema(max_length = 200)]
    default_model: String,
    /// Empty: all that it has.
    #[serde(default)]
    #[schema(max_items = 200)]
    models: Vec<String>,
    /// Sent with each request: a text, or `{"secret": "…"}`.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, values::GivenValue>)]
    headers: GivenValues,
    /// Kept sealed, and never shown.
    #[schema(value_type = Option<String>, write_only, min_length = 1, max_length = 16384)]
    api_key: Option<Secret>,
}

/// What is to change (JSON Merge Patch, RFC 7396): what is not there stays, and null goes back to its default.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateLlmProvider {
    /// The default of a workspace keeps its name.
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    kind: Option<ProviderKind>,
    /// Null: that of its kind.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 2048)]
    base_url: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    default_model: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, max_items = 200)]
    models: Patch<Vec<String>>,
    /// Header by header: those that are not there stay, and null takes one away.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, serde_json::Value>>)]
    headers: Patch<GivenValues>,
    /// Null takes it away.
    #[serde(default)]
    #[schema(value_type = Option<String>, write_only, max_length = 16384)]
    api_key: Patch<Secret>,
}

/// How a provider is deleted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Deletion {
    /// Also the default of the workspace, which has none then.
    #[serde(default)]
    unset_default: bool,
}

fn shown(row: Resource) -> Result<LlmProvider, Failure> {
    let document: Document = scoped::document(&row)?;
    let ends = document.api_key.as_ref().map(|key| key.last_four.clone());
    Ok(LlmProvider {
        id: row.id,
        workspace_id: row.scope,
        name: row.name,
        kind: document.kind,
        base_url: document.base_url,
        default_model: document.default_model,
        models: document.models,
        headers: values::shown(document.headers),
        has_api_key: document.api_key.is_some(),
        api_key_last_four: ends.filter(|ends| !ends.is_empty()),
        revision: row.revision,
        create_time: time::of_ms(row.create_ms),
        update_time: time::of_ms(row.update_ms),
    })
}

/// Lists the providers of a workspace, or of all that the caller may see.
#[utoipa::path(get, path = "/llm-providers", operation_id = "list_llm_providers", tag = "llm-providers", params(ListingWithin), responses(
    (status = 200, description = "A page of them", body = LlmProviderList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Query(listing): Query<ListingWithin>,
) -> Result<JsonAnswer<LlmProviderList>, Problem> {
    let (workspace, wanted) = listing.read()?;
    let (rows, next_cursor) = edge.providers.rows().list(&caller, workspace.as_deref(), &wanted).await?;
    let llm_providers = rows.into_iter().map(shown).collect::<Result<_, _>>()?;
    Ok(JsonAnswer(LlmProviderList { llm_providers, next_cursor }))
}

/// Sets a provider up.
#[utoipa::path(post, path = "/llm-providers", operation_id = "create_llm_provider", tag = "llm-providers",
    params(("Idempotency-Key" = Option<String>, Header, description = "A request that is sent again with it does nothing, and is answered as the first time, for a day")),
    request_body = CreateLlmProvider, responses(
    (status = 201, description = "It is there", body = LlmProvider),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<CreateLlmProvider>,
) -> Result<Response, Problem> {
    let CreateLlmProvider { workspace_id: workspace, name, kind, base_url, default_model, models, headers, api_key } =
        wanted;
    let new = NewProvider { workspace, name, kind, base_url, default_model, models, headers, api_key };
    let row = edge.providers.create(&caller, new).await?;
    tagged::created("llm-providers", row.id.clone(), row.revision, shown(row)?)
}

/// Returns a provider.
#[utoipa::path(get, path = "/llm-providers/{id}", operation_id = "get_llm_provider", tag = "llm-providers",
    params(("id" = String, Path, description = "Its id"),
        ("If-None-Match" = Option<String>, Header, description = "The tag of what is known already")), responses(
    (status = 200, description = "It", body = LlmProvider),
    (status = 304, description = "It is what is known already"),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = edge.providers.get(&caller, &id).await?;
    tagged::read(&headers, row.revision, shown(row)?)
}

/// Changes parts of a provider. Sandboxes that run keep what they were given.
#[utoipa::path(patch, path = "/llm-providers/{id}", operation_id = "update_llm_provider", tag = "llm-providers",
    params(("id" = String, Path, description = "Its id"),
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not changed if it is another one by now")),
    request_body(content((UpdateLlmProvider = "application/merge-patch+json"), (UpdateLlmProvider = "application/json"))), responses(
    (status = 200, description = "As it is now", body = LlmProvider),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn patch(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(wanted): Json<UpdateLlmProvider>,
) -> Result<Response, Problem> {
    let UpdateLlmProvider { name, kind, base_url, default_model, models, headers: sent, api_key } = wanted;
    let changes = Changes { name, kind, base_url, default_model, models, headers: sent, api_key };
    let seen = precondition::wanted(&headers)?;
    let row = edge.providers.change(&caller, (&id, seen), changes).await?;
    tagged::now(row.revision, shown(row)?)
}

/// Deletes a provider.
#[utoipa::path(delete, path = "/llm-providers/{id}", operation_id = "delete_llm_provider", tag = "llm-providers",
    params(("id" = String, Path, description = "Its id"), Deletion,
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not deleted if it is another one by now")),
    responses(
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
    edge.providers.delete(&caller, (&id, seen), deletion.unset_default).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
