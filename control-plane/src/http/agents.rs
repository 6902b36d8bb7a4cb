//! `/agents/discover`: who is there, and can do what.

use std::pin::pin;

use axum::{Extension, Json as JsonAnswer};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tandem_client::{AgentQuery, Liveness};
use utoipa::{IntoParams, ToSchema};

use super::{
    body::{Json, Query},
    problem::{Problem, ProblemDocument},
};
use crate::{error::Failure, service::caller::Caller};

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

/// Some agents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentList {
    agents: Vec<Agent>,
    /// There are more than were asked for.
    truncated: bool,
}

async fn found(caller: &Caller, wanted: Wanted) -> Result<JsonAnswer<AgentList>, Problem> {
    let most = wanted.limit.unwrap_or(DEFAULT_MOST);
    if !(1..=MAX_MOST).contains(&most) {
        return Err(Failure::field("limit", format!("{most} is not 1 to {MAX_MOST}")).into());
    }
    let liveness = wanted.online.map(|online| if online { Liveness::Online } else { Liveness::Offline });
    let query = AgentQuery { role: wanted.role, capability: wanted.capability, agent_name: wanted.name, liveness };
    let mut found = pin!(caller.broker.registry(wanted.workspace_id).discover(query));
    let mut list = AgentList { agents: Vec::new(), truncated: false };
    while let Some(one) = found.try_next().await.map_err(Failure::from)? {
        if list.agents.len() == most {
            list.truncated = true;
            break;
        }
        let online = one.liveness() == Liveness::Online;
        let agent = one.agent.unwrap_or_default();
        let (name, role, capabilities) = (agent.name, agent.role, agent.capabilities);
        list.agents.push(Agent { sandbox_id: one.sandbox_id, name, role, capabilities, online });
    }
    Ok(JsonAnswer(list))
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
