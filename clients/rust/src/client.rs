//! A connection to a broker, and what can be done with it.

use std::{sync::Arc, time::Duration};

use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};

use crate::{
    Approvals, Audit, AuditChain, Cluster, DeadLetters, Error, EventQuery, EventStream, History, Inbox, Keys,
    KnownCaller, Policies, Publisher, Registry, ReportedEvent, ServerInfo, Settings, SubscribeOptions, Subscription,
    Token, Tokens, Topics, Workspaces,
    again::{Budget, Calls},
    clock, events,
    leaders::Leaders,
    server,
};

/// How often a stream is opened again while the token in its file does not hold: for 10 s.
const WITHOUT_TOKEN: u32 = 15;

/// A connection to a broker. Clones share the connection and cost a few reference counts.
///
/// One connection carries all calls and streams of its clones over one socket: for the highest throughput give each
/// busy publisher a client of its own, and put at most 100 subscriptions on one.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    settings: Arc<Settings>,
    /// The endpoints, as errors name them.
    endpoint: Arc<str>,
    leaders: Arc<Leaders>,
    /// Of retries.
    budget: Arc<Budget>,
    /// Who this clone is: that of the settings, unless it acts as somebody else.
    token: Option<Token>,
    /// How all requests of this clone are called.
    request_id: Option<MetadataValue<Ascii>>,
}

impl Client {
    /// A client of the broker at `endpoint`, such as `http://127.0.0.1:8001`. Connects with the first call. Must be called
    /// within a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Endpoint`] when the endpoint is no URL with the scheme `http` or `https`, or the files for TLS cannot be used.
    pub fn connect(endpoint: impl Into<String>) -> Result<Self, Error> {
        Self::with_settings(Settings::for_endpoint(endpoint))
    }

    /// The same with all settings, also for several endpoints.
    ///
    /// # Errors
    /// [`Error::Endpoint`] when an endpoint is no URL with the scheme `http` or `https`, or the files for TLS cannot be used, or when there is none.
    pub fn with_settings(settings: Settings) -> Result<Self, Error> {
        let channel = settings.channel()?;
        let (endpoint, token) = (settings.endpoints.join(", ").into(), settings.token.clone());
        let (settings, leaders, budget) = (Arc::new(settings), Arc::default(), Arc::default());
        Ok(Self { channel, token, settings, endpoint, leaders, budget, request_id: None })
    }

    /// Opens the inbox of a registered sandbox, which is opened again by itself after a break; returns once the broker has confirmed it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the workspace or the sandbox is unknown or an option is out of bounds.
    pub async fn inbox(
        &self,
        workspace_id: impl Into<String>,
        sandbox_id: impl Into<String>,
        options: SubscribeOptions,
    ) -> Result<Inbox, Error> {
        Inbox::open(self.clone(), workspace_id.into(), sandbox_id.into(), options).await
    }

    /// Publishes into a workspace.
    pub fn publisher(&self, workspace_id: impl Into<String>) -> Publisher {
        Publisher::new(self.clone(), workspace_id.into())
    }

    /// Opens the inbox of a registered sandbox and returns once the broker has confirmed that.
    ///
    /// # Errors
    /// [`Error::Refused`] when the workspace or the sandbox is unknown or an option is out of bounds.
    pub async fn subscribe(
        &self,
        workspace_id: impl Into<String>,
        sandbox_id: impl Into<String>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        Subscription::open(self.clone(), workspace_id.into(), sandbox_id.into(), options).await
    }

    /// Sandboxes and agents of a workspace.
    pub fn registry(&self, workspace_id: impl Into<String>) -> Registry {
        Registry::new(self.clone(), workspace_id.into())
    }

    /// The workspaces of the broker.
    pub fn workspaces(&self) -> Workspaces {
        Workspaces::new(self.clone())
    }

    /// Topics of a workspace, and who follows them.
    pub fn topics(&self, workspace_id: impl Into<String>) -> Topics {
        Topics::new(self.clone(), workspace_id.into())
    }

    /// The tokens that the broker signs.
    pub fn tokens(&self) -> Tokens {
        Tokens::new(self.clone())
    }

    /// The API keys of the broker.
    pub fn keys(&self) -> Keys {
        Keys::new(self.clone())
    }

    /// What was done, and by whom.
    pub fn audit(&self, chain: AuditChain) -> Audit {
        Audit::new(self.clone(), chain)
    }

    /// What waits for approval in a workspace, and what did.
    pub fn approvals(&self, workspace_id: impl Into<String>) -> Approvals {
        Approvals::new(self.clone(), workspace_id.into())
    }

    /// Who may say what to whom in a workspace.
    pub fn policies(&self, workspace_id: impl Into<String>) -> Policies {
        Policies::new(self.clone(), workspace_id.into())
    }

    /// Messages of a workspace that left their inbox without being acknowledged.
    pub fn dead_letters(&self, workspace_id: impl Into<String>) -> DeadLetters {
        DeadLetters::new(self.clone(), workspace_id.into())
    }

    /// Opens a stream of what happens in a workspace and returns once the broker has said where it begins.
    ///
    /// # Errors
    /// [`Error::Refused`] when the workspace is unknown; with `EVENT_GAP` when the cursor is older than what is kept.
    pub async fn events(&self, workspace_id: impl Into<String>, query: EventQuery) -> Result<EventStream, Error> {
        EventStream::open(self.clone(), workspace_id.into(), query).await
    }

    /// Tells the broker what happened to sandboxes that only their runner sees, of types from [`EventType::SandboxOutOfMemory`] on:
    /// 1 to 100 events at once, all or none, each with a text of up to 1 KiB.
    ///
    /// # Errors
    /// [`Error::Refused`] when the workspace is unknown, a type is none of these, or the caller is no admin.
    ///
    /// [`EventType::SandboxOutOfMemory`]: crate::EventType::SandboxOutOfMemory
    pub async fn report_events(
        &self,
        workspace_id: impl Into<String>,
        events: Vec<ReportedEvent>,
    ) -> Result<(), Error> {
        events::report(self, workspace_id.into(), events).await
    }

    /// The log of a workspace.
    pub fn history(&self, workspace_id: impl Into<String>) -> History {
        History::new(self.clone(), workspace_id.into())
    }

    /// The nodes of the broker's cluster, and who of them leads.
    pub fn cluster(&self) -> Cluster {
        Cluster::new(self.clone())
    }

    /// What the broker is: version, storage, shards and limits.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when no broker answers.
    pub async fn server_info(&self) -> Result<ServerInfo, Error> {
        server::info(self).await
    }

    /// Who the broker takes this client for.
    ///
    /// # Errors
    /// [`Error::Refused`] with `TOKEN_INVALID` and its like when it takes it for nobody.
    pub async fn caller(&self) -> Result<KnownCaller, Error> {
        server::caller(self).await
    }

    /// The same connection with another token; None: without any. For services that pass on what others have shown them.
    #[must_use]
    pub fn acting_as(&self, token: Option<Token>) -> Self {
        Self { token, ..self.clone() }
    }

    /// The same connection, all of whose requests are called so (`x-request-id`, up to 64 bytes of ASCII): by this the audit of the
    /// broker and the logs of whoever stands before it can be put together. What cannot be sent is left out.
    #[must_use]
    pub fn with_request_id(&self, request_id: &str) -> Self {
        Self { request_id: request_id.parse().ok(), ..self.clone() }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// For calls with one request, which are tried again by themselves.
    pub(crate) fn calls(&self) -> Calls {
        Calls::new(self.channel.clone(), self.settings.attempts, Arc::clone(&self.budget), Arc::clone(&self.endpoint))
    }

    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(crate) fn leaders(&self) -> &Leaders {
        &self.leaders
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A request of a stream, which has no time limit.
    pub(crate) fn stream_request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        if let Some(token) = &self.token {
            token.put(request.metadata_mut());
        }
        if let Some(request_id) = &self.request_id {
            request.metadata_mut().insert("x-request-id", request_id.clone());
        }
        request
    }

    /// A unary request, with its time limit.
    pub(crate) fn request<T>(&self, body: T) -> Request<T> {
        let mut request = self.stream_request(body);
        if self.settings.request_timeout > Duration::ZERO {
            request.set_timeout(self.settings.request_timeout);
        }
        request
    }

    pub(crate) fn error(&self, status: &Status) -> Error {
        self.error_after(status, self.settings.request_timeout)
    }

    /// Of a call with a time limit of its own.
    pub(crate) fn error_after(&self, status: &Status, timeout: Duration) -> Error {
        Error::from_status(status, &self.endpoint, timeout)
    }

    /// After how long a stream that broke may be opened again; None: it is no use, or was tried often enough.
    pub(crate) fn next_try(&self, error: &Error, attempt: u32) -> Option<Duration> {
        let most = match error.code() {
            // Whoever renews it may be a moment late.
            Code::Unauthenticated if self.token.as_ref().is_some_and(Token::is_renewable) => WITHOUT_TOKEN,
            _ if error.is_retryable() => self.settings.resume_attempts,
            _ => 0,
        };
        (attempt <= most).then(|| clock::pause(error.retry_delay(), attempt))
    }

    /// A stream that ended although it has no end.
    pub(crate) fn stream_broke_off(&self) -> Error {
        Error::ConnectionLost { endpoint: Arc::clone(&self.endpoint), cause: "the broker ended the stream".to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_token_is_waited_for_where_there_may_be_one() {
        let refused = Status::unauthenticated("the token has ended");
        let waits = |token: Option<Token>| {
            let client =
                Client::with_settings(Settings { token, ..Settings::for_endpoint("http://127.0.0.1:9") }).unwrap();
            let error = client.error(&refused);
            (1..100).map_while(|attempt| client.next_try(&error, attempt)).sum::<Duration>()
        };
        let in_a_file = waits(Some(Token::from_file("/no/such/token")));
        assert!((9..=13).contains(&in_a_file.as_secs()), "{in_a_file:?}");
        assert_eq!(waits(Some(Token::from_text("t"))), Duration::ZERO);
        assert_eq!(waits(None), Duration::ZERO);
    }
}
