//! `/collaboration`: who takes part in a workspace, what waits for whom, and ending that a sandbox does.

use std::{collections::BTreeMap, pin::pin};

use axum::{Extension, Json as JsonAnswer, extract::State};
use futures_util::{TryStreamExt as _, future};
use serde::{Deserialize, Serialize};
use tandem_client::{Liveness, Sandbox};
use utoipa::{IntoParams, ToSchema};

use super::{
    Edge,
    body::{Json, Query},
    messages::InWorkspace,
    problem::{Problem, ProblemDocument},
    some, time,
};
use crate::{
    error::Failure,
    service::{caller::Caller, collaboration},
};

const DEFAULT_MOST: usize = 100;
const MAX_MOST: usize = 1_000;
/// Sandboxes that are counted.
const MAX_COUNTED: u64 = 10_000;

/// How it stands in a workspace, as the broker has it in this moment.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Status {
    workspace_id: String,
    /// The sequence of the newest message; 0: there is none.
    last_sequence: u64,
    /// The oldest sequence that is kept.
    first_sequence: u64,
    /// Bytes of the history.
    stored_bytes: u64,
    /// Sandboxes that are registered.
    sandboxes: u64,
    /// Of those: have shown a sign of life, or have a subscription open.
    online: u64,
    /// Of those: have not.
    offline: u64,
    /// Agents of all sandboxes.
    agents: u64,
    /// Messages that wait in inboxes.
    pending_messages: u64,
    pending_bytes: u64,
    /// Of those: wait until a time, or until they are tried again.
    deferred_messages: u64,
    dead_letters: u64,
    /// The numbers are those of the first 10,000 sandboxes alone.
    truncated: bool,
}

/// A sandbox, as the broker has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConnectedSandbox {
    sandbox_id: String,
    /// It has shown a sign of life, or has a subscription open.
    online: bool,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    last_heartbeat_time: Option<String>,
    /// When it was registered. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    create_time: Option<String>,
    agents: Vec<AgentName>,
    labels: BTreeMap<String, String>,
    /// Messages that wait in its inbox.
    pending_messages: u64,
    pending_bytes: u64,
    /// Of those: wait until a time, or until they are tried again.
    deferred_messages: u64,
    dead_letters: u64,
}

/// An agent of a sandbox.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentName {
    name: String,
    role: String,
    capabilities: Vec<String>,
}

impl From<Sandbox> for ConnectedSandbox {
    fn from(sandbox: Sandbox) -> Self {
        let online = sandbox.liveness() == Liveness::Online;
        let agent = |agent: tandem_client::Agent| AgentName {
            name: agent.name,
            role: agent.role,
            capabilities: agent.capabilities,
        };
        Self {
            online,
            last_heartbeat_time: time::of(sandbox.last_heartbeat_time.as_ref()),
            create_time: time::of(sandbox.create_time.as_ref()),
            agents: sandbox.agents.into_iter().map(agent).collect(),
            labels: sandbox.labels.into_iter().collect(),
            pending_messages: sandbox.pending_messages,
            pending_bytes: sandbox.pending_bytes,
            deferred_messages: sandbox.deferred_messages,
            dead_letters: sandbox.dead_letters,
            sandbox_id: sandbox.sandbox_id,
        }
    }
}

/// Some sandboxes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConnectedSandboxList {
    sandboxes: Vec<ConnectedSandbox>,
    /// There are more than were asked for.
    truncated: bool,
}

/// Which sandboxes are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The workspace.
    #[param(max_length = 128)]
    workspace_id: String,
    /// Those alone that are online, or those alone that are not.
    online: Option<bool>,
    /// How many at most: 1 to 1,000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// Who is to be disconnected.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disconnect {
    #[schema(max_length = 128)]
    workspace_id: String,
    #[schema(max_length = 128)]
    sandbox_id: String,
    /// For the log, and for rules that wait for `disconnected`.
    #[serde(default)]
    #[schema(max_length = 500)]
    reason: String,
    /// Its inbox goes, too, with what waits there.
    #[serde(default)]
    unregister: bool,
}

/// What was ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DisconnectedSandbox {
    workspace_id: String,
    sandbox_id: String,
    /// Ids of API keys that were revoked.
    revoked_api_keys: Vec<String>,
    /// Ids of tokens that were revoked.
    revoked_tokens: Vec<String>,
    unregistered: bool,
    /// Messages that were given up with its inbox.
    abandoned_messages: u64,
}

/// How it stands in a workspace: who is there, and how much waits.
#[utoipa::path(get, path = "/collaboration/status", operation_id = "get_collaboration_status", tag = "collaboration", params(InWorkspace), responses(
    (status = 200, description = "How it stands", body = Status),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn status(
    Extension(caller): Extension<Caller>,
    Query(place): Query<InWorkspace>,
) -> Result<JsonAnswer<Status>, Problem> {
    let held = collaboration::workspace(&caller, &place.workspace_id).await?;
    let mut status = Status {
        workspace_id: held.workspace_id,
        last_sequence: held.last_sequence,
        first_sequence: held.first_sequence,
        stored_bytes: held.stored_bytes,
        ..Status::default()
    };
    let mut sandboxes = pin!(caller.broker.registry(place.workspace_id).list());
    while let Some(sandbox) = sandboxes.try_next().await.map_err(Failure::of_question)? {
        if status.sandboxes == MAX_COUNTED {
            status.truncated = true;
            break;
        }
        status.sandboxes += 1;
        if sandbox.liveness() == Liveness::Online {
            status.online += 1;
        } else {
            status.offline += 1;
        }
        status.agents += sandbox.agents.len() as u64;
        for (sum, part) in [
            (&mut status.pending_messages, sandbox.pending_messages),
            (&mut status.pending_bytes, sandbox.pending_bytes),
            (&mut status.deferred_messages, sandbox.deferred_messages),
            (&mut status.dead_letters, sandbox.dead_letters),
        ] {
            *sum = sum.saturating_add(part);
        }
    }
    Ok(JsonAnswer(status))
}

/// Lists the sandboxes that are registered with the broker, by id, with what waits for each.
#[utoipa::path(get, path = "/collaboration/sandboxes", operation_id = "list_connected_sandboxes", tag = "collaboration", params(Wanted), responses(
    (status = 200, description = "Those that there are", body = ConnectedSandboxList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn sandboxes(
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<JsonAnswer<ConnectedSandboxList>, Problem> {
    let most = some::most(wanted.limit, DEFAULT_MOST, MAX_MOST)?;
    collaboration::workspace(&caller, &wanted.workspace_id).await?;
    let fits =
        |sandbox: &Sandbox| wanted.online.is_none_or(|online| online == (sandbox.liveness() == Liveness::Online));
    let found = caller.broker.registry(wanted.workspace_id).list();
    let found = found.try_filter(|sandbox| future::ready(fits(sandbox)));
    let (sandboxes, next) = some::first(most, found).await?;
    Ok(JsonAnswer(ConnectedSandboxList { sandboxes, truncated: next.is_some() }))
}

/// Ends what connects a sandbox with the broker: revokes the API keys and the tokens that are bound to it, whose streams end within a
/// second. Its container goes on, and so does whoever acts for it with a key or a token that is not bound to it.
#[utoipa::path(post, path = "/collaboration/disconnect", operation_id = "disconnect_sandbox", tag = "collaboration",
    request_body = Disconnect, responses(
    (status = 200, description = "What was ended", body = DisconnectedSandbox),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn disconnect(
    State(edge): State<Edge>,
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<Disconnect>,
) -> Result<JsonAnswer<DisconnectedSandbox>, Problem> {
    let Disconnect { workspace_id, sandbox_id, reason, unregister } = wanted;
    let place = (workspace_id.as_str(), sandbox_id.as_str());
    let done = collaboration::disconnect(&caller, &edge.alerts, place, &reason, unregister).await?;
    Ok(JsonAnswer(DisconnectedSandbox {
        workspace_id,
        sandbox_id,
        revoked_api_keys: done.keys,
        revoked_tokens: done.tokens,
        unregistered: done.abandoned.is_some(),
        abandoned_messages: done.abandoned.unwrap_or(0),
    }))
}
