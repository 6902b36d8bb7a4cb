//! Sandboxes and the agents in them.

use std::time::SystemTime;

use futures_util::Stream;
use tandem_proto::registry::v1::{
    DiscoverAgentsRequest, GetSandboxRequest, HeartbeatRequest, ListSandboxesRequest, RegisterSandboxRequest,
    UnregisterSandboxRequest, registry_service_client::RegistryServiceClient,
};

use crate::{Agent, Client, DiscoveredAgent, Error, Liveness, Sandbox, again::Calls, pages, wire};

/// The registry of one workspace. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    client: Client,
    workspace_id: String,
}

/// Which agents to find: all fields that are set must hold for the same agent.
#[derive(Debug, Clone, Default)]
pub struct AgentQuery {
    /// The agent's role.
    pub role: Option<String>,
    /// One of the agent's capabilities.
    pub capability: Option<String>,
    /// The agent's name.
    pub agent_name: Option<String>,
    /// Whether its sandbox is alive.
    pub liveness: Option<Liveness>,
}

impl Registry {
    pub(crate) fn new(client: Client, workspace_id: String) -> Self {
        Self { client, workspace_id }
    }

    fn service(&self) -> RegistryServiceClient<Calls> {
        RegistryServiceClient::new(self.client.calls())
            .max_decoding_message_size(self.client.settings().max_response_bytes)
    }

    /// Registers a sandbox, which gives it a durable inbox, or replaces labels, agents, retry policy and inbox limits of one
    /// that exists. Returns it with whether it is new. The fields of the broker are not read.
    ///
    /// ```no_run
    /// # async fn register(client: tandem_client::Client) -> Result<(), tandem_client::Error> {
    /// use std::time::Duration;
    /// use tandem_client::{InboxLimits, RetryPolicy, Sandbox, wire_duration};
    ///
    /// let patient = RetryPolicy {
    ///     max_attempts: 20,
    ///     initial_backoff: Some(wire_duration(Duration::from_secs(5))),
    ///     max_backoff: Some(wire_duration(Duration::from_secs(600))),
    /// };
    /// let small = InboxLimits { max_messages: 1_000, ..InboxLimits::default() };
    /// let sandbox = Sandbox {
    ///     sandbox_id: "bob".into(),
    ///     retry_policy: Some(patient),
    ///     inbox_limits: Some(small),
    ///     ..Sandbox::default()
    /// };
    /// let (bob, created) = client.registry("default").register(sandbox).await?;
    /// println!("{} waiting, {} dead, new: {created}", bob.pending_messages, bob.dead_letters);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::Refused`] when the workspace is unknown or a field is out of bounds.
    pub async fn register(&self, sandbox: Sandbox) -> Result<(Sandbox, bool), Error> {
        let request = RegisterSandboxRequest { workspace_id: self.workspace_id.clone(), sandbox: Some(sandbox) };
        let answer = self.service().register_sandbox(self.client.request(request)).await;
        let answer = answer.map_err(|status| self.client.error(&status))?.into_inner();
        Ok((required(answer.sandbox)?, answer.created))
    }

    /// Registers a sandbox with these agents, no labels and the default policies.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub async fn register_with_agents(
        &self,
        sandbox_id: impl Into<String>,
        agents: Vec<Agent>,
    ) -> Result<(Sandbox, bool), Error> {
        self.register(Sandbox { sandbox_id: sandbox_id.into(), agents, ..Sandbox::default() }).await
    }

    /// Says that a sandbox is alive and returns the time of the broker.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when the sandbox is not registered.
    pub async fn heartbeat(&self, sandbox_id: impl Into<String>) -> Result<SystemTime, Error> {
        let request = HeartbeatRequest { workspace_id: self.workspace_id.clone(), sandbox_id: sandbox_id.into() };
        let answer = self.service().heartbeat(self.client.request(request)).await;
        let answer = answer.map_err(|status| self.client.error(&status))?.into_inner();
        Ok(wire::from_timestamp(answer.server_time))
    }

    /// Returns one sandbox.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when the sandbox is not registered.
    pub async fn get(&self, sandbox_id: impl Into<String>) -> Result<Sandbox, Error> {
        let request = GetSandboxRequest { workspace_id: self.workspace_id.clone(), sandbox_id: sandbox_id.into() };
        let answer = self.service().get_sandbox(self.client.request(request)).await;
        required(answer.map_err(|status| self.client.error(&status))?.into_inner().sandbox)
    }

    /// All sandboxes by id, page by page as the stream is read.
    pub fn list(&self) -> impl Stream<Item = Result<Sandbox, Error>> + Send + use<> {
        let registry = self.clone();
        pages::items(move |page_token| {
            let registry = registry.clone();
            async move {
                let request =
                    ListSandboxesRequest { workspace_id: registry.workspace_id.clone(), page_size: 1000, page_token };
                let answer = registry.service().list_sandboxes(registry.client.request(request)).await;
                let answer = answer.map_err(|status| registry.client.error(&status))?.into_inner();
                Ok((answer.sandboxes, answer.next_page_token))
            }
        })
    }

    /// The agents that fit, page by page as the stream is read.
    pub fn discover(&self, query: AgentQuery) -> impl Stream<Item = Result<DiscoveredAgent, Error>> + Send + use<> {
        let registry = self.clone();
        pages::items(move |page_token| {
            let registry = registry.clone();
            let request = DiscoverAgentsRequest {
                workspace_id: registry.workspace_id.clone(),
                role: query.role.clone().unwrap_or_default(),
                capability: query.capability.clone().unwrap_or_default(),
                agent_name: query.agent_name.clone().unwrap_or_default(),
                liveness: query.liveness.unwrap_or_default().into(),
                page_size: 1000,
                page_token,
            };
            async move {
                let answer = registry.service().discover_agents(registry.client.request(request)).await;
                let answer = answer.map_err(|status| registry.client.error(&status))?.into_inner();
                Ok((answer.agents, answer.next_page_token))
            }
        })
    }

    /// Removes a sandbox with its inbox and returns how many messages were waiting there and are given up.
    ///
    /// # Errors
    /// [`Error::Refused`] with `NOT_FOUND` when the sandbox is not registered.
    pub async fn unregister(&self, sandbox_id: impl Into<String>) -> Result<u64, Error> {
        let request =
            UnregisterSandboxRequest { workspace_id: self.workspace_id.clone(), sandbox_id: sandbox_id.into() };
        let answer = self.service().unregister_sandbox(self.client.request(request)).await;
        Ok(answer.map_err(|status| self.client.error(&status))?.into_inner().abandoned_messages)
    }
}

fn required(sandbox: Option<Sandbox>) -> Result<Sandbox, Error> {
    sandbox.ok_or_else(|| Error::Contract("an answer about a sandbox holds no sandbox".to_owned()))
}
