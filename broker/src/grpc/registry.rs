//! Sandboxes and their agents.

use std::collections::BTreeSet;

use prost::Message as _;
use tandem_proto::registry::v1::{
    Agent, DiscoverAgentsRequest, DiscoverAgentsResponse, DiscoveredAgent, GetSandboxRequest, GetSandboxResponse,
    HeartbeatRequest, HeartbeatResponse, ListSandboxesRequest, ListSandboxesResponse, Liveness, RegisterSandboxRequest,
    RegisterSandboxResponse, Sandbox, UnregisterSandboxRequest, UnregisterSandboxResponse,
    registry_service_server::RegistryService,
};
use tonic::{Request, Response, Status};

use super::{
    Edge,
    time::{milliseconds, timestamp},
};
use crate::{
    auth::Caller,
    command::{Heartbeat, Outcome, RegisterSandbox, UnregisterSandbox, Verb, register_sandbox::InboxSettings},
    error::RequestError,
    field,
    machine::workspace::Workspace,
    query::registry::NamedSandbox,
    rejection::Rejection,
    shard::Shard,
};

/// Bytes of an encoded sandbox at the most.
const MAX_DESCRIPTION_BYTES: usize = 64 << 10;
/// Agents of one sandbox at the most.
const MAX_AGENTS: usize = 256;
/// Capabilities of one agent at the most.
const MAX_CAPABILITIES: usize = 64;
/// Attempts of a message at the most.
const MAX_ATTEMPTS: u32 = 1_000;
/// Sandboxes that one call of discover looks at.
const MAX_EXAMINED: usize = 5_000;

#[tonic::async_trait]
impl RegistryService for Edge {
    async fn register_sandbox(
        &self,
        request: Request<RegisterSandboxRequest>,
    ) -> Result<Response<RegisterSandboxResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let sandbox = request.sandbox.ok_or_else(|| Rejection::field("sandbox", "sandbox is missing"))?;
        check(&sandbox)?;
        caller.acts_as("sandbox.sandbox_id", &sandbox.sandbox_id)?;
        let shard = self.shards.of(workspace);
        let description = sandbox.encode_to_vec();
        let description_bytes = description.len();
        if description_bytes > MAX_DESCRIPTION_BYTES {
            let text = format!(
                "the sandbox is described in {description_bytes} bytes; at most {MAX_DESCRIPTION_BYTES} are allowed"
            );
            return Err(Rejection::field("sandbox", text).into());
        }
        let verb = Verb::RegisterSandbox(RegisterSandbox {
            workspace: workspace.to_owned(),
            sandbox: sandbox.sandbox_id.clone(),
            description: description.into(),
            max_sandboxes: self.max_sandboxes(workspace)?,
            settings: settings(&sandbox)?,
            capabilities: capabilities(&sandbox),
            heartbeat_timeout_ms: self.limits.heartbeat_timeout_ms,
        });
        let created = match shard.batcher.call(caller.asks(verb), description_bytes).await? {
            Outcome::RegisterSandbox(result) => result?.created,
            other => return Err(RequestError::internal(format!("a registration came to {other:?}")).into()),
        };
        let state = shard.reader.workspace(workspace)?;
        let named = shard.reader.named_sandbox(&state, &sandbox.sandbox_id)?;
        let sandbox = self.on_wire(shard, workspace, &state, named);
        Ok(Response::new(RegisterSandboxResponse { sandbox: Some(sandbox), created }))
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Result<Response<HeartbeatResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let sandbox = field::id("sandbox_id", &request.sandbox_id)?;
        caller.acts_as("sandbox_id", sandbox)?;
        let shard = self.shards.of(workspace);
        let verb = Verb::Heartbeat(Heartbeat { workspace: workspace.to_owned(), sandbox: sandbox.to_owned() });
        match shard.batcher.call(verb, 0).await? {
            Outcome::Heartbeat(result) => result?,
            other => return Err(RequestError::internal(format!("a heartbeat came to {other:?}")).into()),
        }
        let time_ms = shard.reader.time_ms().map_err(|error| RequestError::internal(error.to_string()))?;
        Ok(Response::new(HeartbeatResponse { server_time: Some(timestamp(time_ms)) }))
    }

    async fn get_sandbox(&self, request: Request<GetSandboxRequest>) -> Result<Response<GetSandboxResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let sandbox = field::id("sandbox_id", &request.sandbox_id)?;
        let (shard, state) = self.read_workspace(workspace).await?;
        let named = shard.reader.named_sandbox(&state, sandbox)?;
        Ok(Response::new(GetSandboxResponse { sandbox: Some(self.on_wire(shard, workspace, &state, named)) }))
    }

    async fn list_sandboxes(
        &self,
        request: Request<ListSandboxesRequest>,
    ) -> Result<Response<ListSandboxesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let limit = field::page_size(request.page_size)?;
        let after = if request.page_token.is_empty() { "" } else { field::id("page_token", &request.page_token)? };
        let (shard, state) = self.read_workspace(workspace).await?;
        let (found, more) = shard.reader.sandboxes_after(&state, after, limit)?;
        let next_page_token = found.last().filter(|_| more).map(|last| last.name.clone()).unwrap_or_default();
        let sandboxes = found.into_iter().map(|named| self.on_wire(shard, workspace, &state, named)).collect();
        Ok(Response::new(ListSandboxesResponse { sandboxes, next_page_token }))
    }

    async fn discover_agents(
        &self,
        request: Request<DiscoverAgentsRequest>,
    ) -> Result<Response<DiscoverAgentsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let limit = field::page_size(request.page_size)?;
        let wanted = wanted(&request)?;
        let mut after = if request.page_token.is_empty() {
            String::new()
        } else {
            field::id("page_token", &request.page_token)?.to_owned()
        };
        let (shard, state) = self.read_workspace(workspace).await?;
        let mut agents = Vec::new();
        let mut examined = 0;
        loop {
            let (found, more) = shard.reader.sandboxes_after(&state, &after, 256)?;
            for named in found {
                examined += 1;
                after.clone_from(&named.name);
                let sandbox = self.on_wire(shard, workspace, &state, named);
                agents.extend(wanted.matching(&sandbox));
                // A sandbox is never cut in two, so a page may be longer than asked for by one sandbox's agents.
                if agents.len() >= limit || examined >= MAX_EXAMINED {
                    return Ok(Response::new(DiscoverAgentsResponse { agents, next_page_token: after }));
                }
            }
            if !more {
                return Ok(Response::new(DiscoverAgentsResponse { agents, next_page_token: String::new() }));
            }
        }
    }

    async fn unregister_sandbox(
        &self,
        request: Request<UnregisterSandboxRequest>,
    ) -> Result<Response<UnregisterSandboxResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let workspace = caller.workspace(&request.workspace_id)?;
        let sandbox = field::id("sandbox_id", &request.sandbox_id)?;
        caller.acts_as("sandbox_id", sandbox)?;
        let verb =
            Verb::UnregisterSandbox(UnregisterSandbox { workspace: workspace.to_owned(), sandbox: sandbox.to_owned() });
        match self.shards.of(workspace).batcher.call(caller.asks(verb), 0).await? {
            Outcome::UnregisterSandbox(result) => {
                let abandoned_messages = result?.abandoned;
                Ok(Response::new(UnregisterSandboxResponse { abandoned_messages }))
            }
            other => Err(RequestError::internal(format!("an unregistration came to {other:?}")).into()),
        }
    }
}

impl Edge {
    async fn read_workspace(&self, name: &str) -> Result<(&Shard, Workspace), RequestError> {
        let shard = self.shards.of(name);
        shard.group.read_barrier().await?;
        let workspace = shard.reader.workspace(name)?;
        Ok((shard, workspace))
    }

    /// Whether a sandbox was heard within the timeout, to the millisecond as the machine has it, or has an open subscription.
    pub(super) fn is_online(&self, shard: &Shard, workspace: u32, sandbox: u32, heard_ms: u64) -> bool {
        let age_ms = shard.time.now_ms().saturating_sub(heard_ms);
        age_ms < self.limits.heartbeat_timeout_ms || shard.delivery.is_subscribed(workspace, sandbox)
    }

    fn on_wire(&self, shard: &Shard, workspace_id: &str, state: &Workspace, named: NamedSandbox) -> Sandbox {
        // What is stored was encoded by this very type; an unreadable description would be an empty one.
        let description = Sandbox::decode(named.sandbox.description.clone()).unwrap_or_default();
        let online = self.is_online(shard, state.number, named.sandbox.number, named.last_heartbeat_ms);
        Sandbox {
            sandbox_id: named.name,
            workspace_id: workspace_id.to_owned(),
            create_time: Some(timestamp(named.sandbox.create_time_ms)),
            last_heartbeat_time: Some(timestamp(named.last_heartbeat_ms)),
            liveness: if online { Liveness::Online } else { Liveness::Offline }.into(),
            pending_messages: named.pending,
            deferred_messages: named.counters.deferred,
            dead_letters: named.counters.dead_letters,
            pending_bytes: named.counters.bytes,
            ..description
        }
    }
}

/// What a client says of the inbox of a sandbox, checked.
fn settings(sandbox: &Sandbox) -> Result<InboxSettings, Rejection> {
    const DAY_MS: u64 = 24 * 3_600_000;
    let retry = sandbox.retry_policy.unwrap_or_default();
    if retry.max_attempts > MAX_ATTEMPTS {
        let text = format!("max_attempts is {}; it must be 0 to {MAX_ATTEMPTS}", retry.max_attempts);
        return Err(Rejection::field("sandbox.retry_policy.max_attempts", text));
    }
    let backoff = |field, value| milliseconds(field, value, 10..=DAY_MS);
    let initial = backoff("sandbox.retry_policy.initial_backoff", retry.initial_backoff)?;
    let most = backoff("sandbox.retry_policy.max_backoff", retry.max_backoff)?;
    let limits = sandbox.inbox_limits.unwrap_or_default();
    Ok(InboxSettings {
        max_attempts: retry.max_attempts,
        initial_backoff_ms: initial.unwrap_or(0),
        max_backoff_ms: most.unwrap_or(0),
        max_messages: limits.max_messages,
        max_bytes: limits.max_bytes,
    })
}

/// What the agents of a sandbox can do, each once, sorted.
fn capabilities(sandbox: &Sandbox) -> Vec<String> {
    let all = sandbox.agents.iter().flat_map(|agent| agent.capabilities.iter().cloned());
    all.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Checks what a client says of a sandbox.
fn check(sandbox: &Sandbox) -> Result<(), Rejection> {
    field::id("sandbox.sandbox_id", &sandbox.sandbox_id)?;
    field::map("sandbox.labels", &sandbox.labels)?;
    if sandbox.agents.len() > MAX_AGENTS {
        let text = format!("the sandbox has {} agents; at most {MAX_AGENTS} are allowed", sandbox.agents.len());
        return Err(Rejection::field("sandbox.agents", text));
    }
    let set_by_broker = !sandbox.workspace_id.is_empty()
        || sandbox.create_time.is_some()
        || sandbox.last_heartbeat_time.is_some()
        || sandbox.liveness != 0
        || sandbox.pending_messages != 0
        || sandbox.deferred_messages != 0
        || sandbox.dead_letters != 0
        || sandbox.pending_bytes != 0;
    if set_by_broker {
        return Err(Rejection::field(
            "sandbox",
            "fields 10 to 17 of a sandbox are set by the broker; leave them empty",
        ));
    }
    let mut names = BTreeSet::new();
    for agent in &sandbox.agents {
        check_agent(agent)?;
        if !names.insert(agent.name.as_str()) {
            let text = format!("two agents have the name {:?}; names must differ within a sandbox", agent.name);
            return Err(Rejection::field("sandbox.agents.name", text));
        }
    }
    Ok(())
}

fn check_agent(agent: &Agent) -> Result<(), Rejection> {
    if agent.name.is_empty() || agent.name == "any" {
        let text = format!("agent name {:?} cannot be used; choose another", agent.name);
        return Err(Rejection::field("sandbox.agents.name", text));
    }
    field::name("sandbox.agents.name", &agent.name)?;
    field::name("sandbox.agents.role", &agent.role)?;
    if agent.capabilities.len() > MAX_CAPABILITIES {
        let text = format!("agent {:?} has more than {MAX_CAPABILITIES} capabilities", agent.name);
        return Err(Rejection::field("sandbox.agents.capabilities", text));
    }
    agent.capabilities.iter().try_for_each(|capability| {
        if capability.is_empty() {
            let text = format!("agent {:?} has an empty capability", agent.name);
            return Err(Rejection::field("sandbox.agents.capabilities", text));
        }
        field::name("sandbox.agents.capabilities", capability).map(|_| ())
    })
}

/// What to discover.
struct Wanted<'a> {
    role: &'a str,
    capability: &'a str,
    name: &'a str,
    liveness: Option<Liveness>,
}

fn wanted(request: &DiscoverAgentsRequest) -> Result<Wanted<'_>, Rejection> {
    let liveness = match Liveness::try_from(request.liveness) {
        Ok(Liveness::Unspecified) => None,
        Ok(liveness) => Some(liveness),
        Err(_) => {
            let text = format!("liveness {} does not exist; it must be 0, 1 or 2", request.liveness);
            return Err(Rejection::field("liveness", text));
        }
    };
    Ok(Wanted {
        role: field::name("role", &request.role)?,
        capability: field::name("capability", &request.capability)?,
        name: field::name("agent_name", &request.agent_name)?,
        liveness,
    })
}

impl Wanted<'_> {
    fn matching(&self, sandbox: &Sandbox) -> Vec<DiscoveredAgent> {
        if self.liveness.is_some_and(|liveness| liveness as i32 != sandbox.liveness) {
            return Vec::new();
        }
        let fits = |agent: &&Agent| {
            (self.role.is_empty() || agent.role == self.role)
                && (self.name.is_empty() || agent.name == self.name)
                && (self.capability.is_empty() || agent.capabilities.iter().any(|known| known == self.capability))
        };
        let found = sandbox.agents.iter().filter(fits);
        found
            .map(|agent| DiscoveredAgent {
                sandbox_id: sandbox.sandbox_id.clone(),
                agent: Some(agent.clone()),
                liveness: sandbox.liveness,
            })
            .collect()
    }
}
