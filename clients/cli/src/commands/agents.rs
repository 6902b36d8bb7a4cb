//! `tandem agents`.

use futures_util::TryStreamExt as _;
use tandem_client::{AgentQuery, DiscoveredAgent, Liveness};

use super::sandbox::{agent_json, liveness_name};
use crate::{args::AgentsArgs, exit::Failure, run::Context};

pub(crate) async fn run(context: &Context, args: AgentsArgs) -> Result<(), Failure> {
    let liveness = match (args.online, args.offline) {
        (true, _) => Some(Liveness::Online),
        (_, true) => Some(Liveness::Offline),
        _ => None,
    };
    let query = AgentQuery { role: args.role, capability: args.capability, agent_name: args.name, liveness };
    let found: Vec<DiscoveredAgent> =
        context.client()?.registry(context.workspace.as_str()).discover(query).try_collect().await?;
    let rows: Vec<_> = found.iter().map(row).collect();
    context.output.rows(&["AGENT", "ROLE", "CAPABILITIES", "SANDBOX", "LIVENESS"], &rows)
}

fn row(found: &DiscoveredAgent) -> (serde_json::Value, Vec<String>) {
    let agent = found.agent.clone().unwrap_or_default();
    let liveness = liveness_name(found.liveness());
    let mut json = agent_json(&agent);
    json["sandbox_id"] = found.sandbox_id.as_str().into();
    json["liveness"] = liveness.into();
    let capabilities = agent.capabilities.join(", ");
    (json, vec![agent.name, agent.role, capabilities, found.sandbox_id.clone(), liveness.to_owned()])
}
