//! `/mcp-servers`: tools for the agents of a workspace.

use std::collections::BTreeMap;

use axum::{
    Extension, Json as JsonAnswer,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Edge,
    body::{Json, Path, Query},
    precondition,
    problem::{Problem, ProblemDocument},
    tagged, time,
};
use crate::{
    error::Failure,
    service::{
        caller::Caller,
        listing::ListingWithin,
        mcp_servers::{Changes, Document, NewMcpServer, Transport},
        patch::Patch,
        scoped,
        values::{self, GivenValues, ShownValue},
    },
    store::Resource,
};

/// Tools for agents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct McpServer {
    id: String,
    workspace_id: String,
    /// Sandboxes name it in `mcp_servers`.
    name: String,
    transport: Transport,
    /// Of `stdio`: the program.
    #[serde(skip_serializing_if = "String::is_empty")]
    command: String,
    /// Of `stdio`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    /// Of `stdio`: variables of the program.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, ShownValue>,
    /// Of `http`.
    #[serde(skip_serializing_if = "String::is_empty")]
    url: String,
    /// Of `http`: sent with each request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, ShownValue>,
    /// One more with each change; the tag (`ETag`) says the same.
    revision: i64,
    /// RFC 3339.
    #[schema(format = DateTime)]
    create_time: String,
    /// RFC 3339.
    #[schema(format = DateTime)]
    update_time: String,
}

/// Some servers.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct McpServerList {
    mcp_servers: Vec<McpServer>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// A server that is wanted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateMcpServer {
    #[schema(max_length = 128)]
    workspace_id: String,
    /// No two of a workspace have the same.
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    transport: Transport,
    /// Of `stdio`: the program.
    #[serde(default)]
    #[schema(max_length = 4096)]
    command: String,
    /// Of `stdio`.
    #[serde(default)]
    #[schema(max_items = 100)]
    args: Vec<String>,
    /// Of `stdio`: a text, or `{"secret": "…"}`, which is kept sealed and never shown.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, values::GivenValue>)]
    env: GivenValues,
    /// Of `http`.
    #[serde(default)]
    #[schema(max_length = 2048)]
    url: String,
    /// Of `http`: a text, or `{"secret": "…"}`, which is kept sealed and never shown.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, values::GivenValue>)]
    headers: GivenValues,
}

/// What is to change (JSON Merge Patch, RFC 7396): what is not there stays, and null goes back to its default. Another transport takes
/// with it what only the one before had.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateMcpServer {
    #[schema(min_length = 1, max_length = 100)]
    name: Option<String>,
    transport: Option<Transport>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 4096)]
    command: Patch<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>, max_items = 100)]
    args: Patch<Vec<String>>,
    /// Variable by variable: those that are not there stay, and null takes one away.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, serde_json::Value>>)]
    env: Patch<GivenValues>,
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 2048)]
    url: Patch<String>,
    /// Header by header, in the same way.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, serde_json::Value>>)]
    headers: Patch<GivenValues>,
}

fn shown(row: Resource) -> Result<McpServer, Failure> {
    let document: Document = scoped::document(&row)?;
    Ok(McpServer {
        id: row.id,
        workspace_id: row.scope,
        name: row.name,
        transport: document.transport,
        command: document.command,
        args: document.args,
        env: values::shown(document.env),
        url: document.url,
        headers: values::shown(document.headers),
        revision: row.revision,
        create_time: time::of_ms(row.create_ms),
        update_time: time::of_ms(row.update_ms),
    })
}

/// Lists the MCP servers of a workspace, or of all that the caller may see.
#[utoipa::path(get, path = "/mcp-servers", operation_id = "list_mcp_servers", tag = "mcp-servers", params(ListingWithin), responses(
    (status = 200, description = "A page of them", body = McpServerList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Query(listing): Query<ListingWithin>,
) -> Result<JsonAnswer<McpServerList>, Problem> {
    let (workspace, wanted) = listing.read()?;
    let (rows, next_cursor) = edge.mcp_servers.rows().list(&caller, workspace.as_deref(), &wanted).await?;
    let mcp_servers = rows.into_iter().map(shown).collect::<Result<_, _>>()?;
    Ok(JsonAnswer(McpServerList { mcp_servers, next_cursor }))
}

/// Sets an MCP server up.
#[utoipa::path(post, path = "/mcp-servers", operation_id = "create_mcp_server", tag = "mcp-servers",
    params(("Idempotency-Key" = Option<String>, Header, description = "A request that is sent again with it does nothing, and is answered as the first time, for a day")),
    request_body = CreateMcpServer, responses(
    (status = 201, description = "It is there", body = McpServer),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn create(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<CreateMcpServer>,
) -> Result<Response, Problem> {
    let CreateMcpServer { workspace_id: workspace, name, transport, command, args, env, url, headers } = wanted;
    let new = NewMcpServer { workspace, name, transport, command, args, env, url, headers };
    let row = edge.mcp_servers.create(&caller, new).await?;
    tagged::created("mcp-servers", row.id.clone(), row.revision, shown(row)?)
}

/// Returns an MCP server.
#[utoipa::path(get, path = "/mcp-servers/{id}", operation_id = "get_mcp_server", tag = "mcp-servers",
    params(("id" = String, Path, description = "Its id"),
        ("If-None-Match" = Option<String>, Header, description = "The tag of what is known already")), responses(
    (status = 200, description = "It", body = McpServer),
    (status = 304, description = "It is what is known already"),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let row = edge.mcp_servers.get(&caller, &id).await?;
    tagged::read(&headers, row.revision, shown(row)?)
}

/// Changes parts of an MCP server. Sandboxes that run keep what they were given.
#[utoipa::path(patch, path = "/mcp-servers/{id}", operation_id = "update_mcp_server", tag = "mcp-servers",
    params(("id" = String, Path, description = "Its id"),
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not changed if it is another one by now")),
    request_body(content((UpdateMcpServer = "application/merge-patch+json"), (UpdateMcpServer = "application/json"))), responses(
    (status = 200, description = "As it is now", body = McpServer),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn patch(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(wanted): Json<UpdateMcpServer>,
) -> Result<Response, Problem> {
    let UpdateMcpServer { name, transport, command, args, env, url, headers: sent } = wanted;
    let changes = Changes { name, transport, command, args, env, url, headers: sent };
    let seen = precondition::wanted(&headers)?;
    let row = edge.mcp_servers.change(&caller, (&id, seen), changes).await?;
    tagged::now(row.revision, shown(row)?)
}

/// Deletes an MCP server. Sandboxes that run keep what they were given.
#[utoipa::path(delete, path = "/mcp-servers/{id}", operation_id = "delete_mcp_server", tag = "mcp-servers",
    params(("id" = String, Path, description = "Its id"),
        ("If-Match" = Option<String>, Header, description = "The tag of what was seen; it is not deleted if it is another one by now")),
    responses(
    (status = 204, description = "It is gone"),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn delete(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let seen = precondition::wanted(&headers)?;
    edge.mcp_servers.delete(&caller, &id, seen).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
