//! `/agents/discover`: who is there, and can do what.

use axum::{Extension, Json as JsonAnswer};
use serde::{Deserialize, Serialize};
use tandem_client::{AgentQuery, DiscoveredAgent, Liveness};
use utoipa::{IntoParams, ToSchema};

use super::{
    body::{Json, Query},
    problem::{Problem, ProblemDocument},
    some,
};
use crate::service::caller::Caller;

const DEFAULT_MOST: usize = 100;
const MAX_MOST: usize = 1_000;

/// Which agents are wanted.
#[derive(Debug, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The workspace.
    #[param(max_length = 128)]
    workspace_id: String,
    /// With this role.
    role: Option<String>,
    /// With this capability.
    capability: Option<String>,
    /// With this name.
    name: Option<String>,
    /// Those alone whose sandbox is online, or those alone whose is not.
    online: Option<bool>,
    /// How many at most: 1 to 1,000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    #[schema(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// An agent, and where it is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Agent {
    sandbox_id: String,
    name: String,
    role: String,
    capabilities: Vec<String>,
    /// Whether its sandbox shows that it is there.
    online: bool,
}

impl From<DiscoveredAgent> for Agent {
    fn from(found: DiscoveredAgent) -> Self {
        let online = found.liveness() == Liveness::Online;
        let agent = found.agent.unwrap_or_default();
        let (name, role, capabilities) = (agent.name, agent.role, agent.capabilities);
        Self { sandbox_id: found.sandbox_id, name, role, capabilities, online }
    }
}

/// Some agents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentList {
    agents: Vec<Agent>,
    /// There are more than were asked for.
    truncated: bool,
}

async fn found(caller: &Caller, wanted: Wanted) -> Result<JsonAnswer<AgentList>, Problem> {
    let most = some::most(wanted.limit, DEFAULT_MOST, MAX_MOST)?;
    let liveness = wanted.online.map(|online| if online { Liveness::Online } else { Liveness::Offline });
    let query = AgentQuery { role: wanted.role, capability: wanted.capability, agent_name: wanted.name, liveness };
    let (agents, next) = some::first(most, caller.broker.registry(wanted.workspace_id).discover(query)).await?;
    Ok(JsonAnswer(AgentList { agents, truncated: next.is_some() }))
}

/// Finds agents by role, capability and name.
#[utoipa::path(get, path = "/agents/discover", operation_id = "discover_agents", tag = "agents", params(Wanted), responses(
    (status = 200, description = "Those that there are", body = AgentList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn discover(
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<JsonAnswer<AgentList>, Problem> {
    found(&caller, wanted).await
}

/// The same, asked in a body.
#[utoipa::path(post, path = "/agents/discover", operation_id = "search_agents", tag = "agents", request_body = Wanted, responses(
    (status = 200, description = "Those that there are", body = AgentList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn search(
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<Wanted>,
) -> Result<JsonAnswer<AgentList>, Problem> {
    found(&caller, wanted).await
}
