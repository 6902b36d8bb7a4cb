//! What can go wrong with a request, in words of this service; `http/problem.rs` alone says how that looks outside.

use std::time::Duration;

use tandem_client::Code;

use crate::{sandbox::RuntimeError, store::StoreError};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        /// Why a request is refused by the control plane itself.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All reasons.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code that clients see.
            pub(crate) fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// A field has a value that it cannot have.
    InvalidField = "INVALID_FIELD";
    /// The body is no JSON, or not of the form that is expected.
    MalformedRequest = "MALFORMED_REQUEST";
    /// The body is said to be something else than JSON.
    UnsupportedMediaType = "UNSUPPORTED_MEDIA_TYPE";
    /// The body is larger than the limit.
    BodyTooLarge = "BODY_TOO_LARGE";
    /// The body did not come in time, or the answer is not there in time.
    RequestTooSlow = "REQUEST_TOO_SLOW";
    /// Nothing is served under this path.
    UnknownPath = "UNKNOWN_PATH";
    /// What is served there takes other methods.
    MethodNotAllowed = "METHOD_NOT_ALLOWED";
    /// The cursor of a page is none that was given out for this listing.
    InvalidCursor = "INVALID_CURSOR";
    /// The caller has none of the roles that may do this.
    RoleMissing = "ROLE_MISSING";
    /// The caller is bound to another workspace.
    OtherWorkspace = "OTHER_WORKSPACE";
    /// A page in a browser that may not, or a name that this service does not go by.
    OriginRefused = "ORIGIN_REFUSED";
    /// No workspace has this id.
    UnknownWorkspace = "UNKNOWN_WORKSPACE";
    /// The id is taken.
    WorkspaceExists = "WORKSPACE_EXISTS";
    /// The name is taken.
    NameTaken = "NAME_TAKEN";
    /// It is not what `If-Match` says any more.
    RevisionChanged = "REVISION_CHANGED";
    /// Something else is being done with it.
    Busy = "BUSY";
    /// It is about to be deleted.
    BeingDeleted = "BEING_DELETED";
    /// Another request has had the idempotency key.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED";
    /// A request with the idempotency key is under way.
    IdempotencyKeyInUse = "IDEMPOTENCY_KEY_IN_USE";
    /// No sandbox has this id.
    UnknownSandbox = "UNKNOWN_SANDBOX";
    /// There are as many sandboxes, or networks of them, as there may be.
    TooManySandboxes = "TOO_MANY_SANDBOXES";
    /// It takes a sandbox that runs.
    SandboxNotRunning = "SANDBOX_NOT_RUNNING";
    /// Nothing more can be started in a sandbox.
    SandboxFull = "SANDBOX_FULL";
    /// A sandbox ended before it was ready.
    SandboxEnded = "SANDBOX_ENDED";
    /// Docker cannot start a sandbox like this.
    SandboxRefused = "SANDBOX_REFUSED";
    /// The image of a sandbox is not on the host.
    UnknownImage = "UNKNOWN_IMAGE";
    /// A host that sandboxes may reach cannot be looked up, or must not be reached.
    UnknownHost = "UNKNOWN_HOST";
    /// Docker does not answer.
    DockerUnavailable = "DOCKER_UNAVAILABLE";
    /// The disk of the host is full.
    HostFull = "HOST_FULL";
    /// No provider has this id or name.
    UnknownLlmProvider = "UNKNOWN_LLM_PROVIDER";
    /// The workspace uses the provider where none is named.
    LlmProviderIsDefault = "LLM_PROVIDER_IS_DEFAULT";
    /// No MCP server has this id or name.
    UnknownMcpServer = "UNKNOWN_MCP_SERVER";
    /// No rule has this id.
    UnknownAlertRule = "UNKNOWN_ALERT_RULE";
    /// No alert has this id.
    UnknownAlert = "UNKNOWN_ALERT";
    /// The workspace has as many of them as it may.
    TooManyResources = "TOO_MANY_RESOURCES";
    /// More has happened than is looked at.
    TooManyHappenings = "TOO_MANY_HAPPENINGS";
    /// There is no key to keep secrets under.
    SecretsNotConfigured = "SECRETS_NOT_CONFIGURED";
    /// The key of a secret is gone, or it was sealed for another place.
    SecretUnreadable = "SECRET_UNREADABLE";
    /// As many WebSockets are open as there may be.
    TooManySockets = "TOO_MANY_SOCKETS";
    /// A delivery that is not out on this socket.
    UnknownDelivery = "UNKNOWN_DELIVERY";
    /// The control plane stops.
    ShuttingDown = "SHUTTING_DOWN";
    /// The caller sends more requests than it may.
    TooManyRequests = "TOO_MANY_REQUESTS";
    /// No broker answers.
    BrokerUnavailable = "BROKER_UNAVAILABLE";
    /// The broker did not answer, and may have done it.
    OutcomeUnknown = "OUTCOME_UNKNOWN";
    /// The database does not answer.
    DatabaseUnavailable = "DATABASE_UNAVAILABLE";
    /// The control plane failed.
    Internal = "INTERNAL";
}

/// The stable codes of what the control plane itself refuses; beside them it passes on those of the broker.
pub fn error_codes() -> impl Iterator<Item = &'static str> {
    Reason::ALL.iter().map(|reason| reason.code())
}

/// A field that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    /// Its path, such as `settings.max_sandboxes`.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) text: String,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Failure {
    /// The control plane refuses it.
    #[error("{text}")]
    Refused {
        /// For programs.
        reason: Reason,
        /// For people: what was wrong, with the value, and what to do.
        text: String,
        /// Those at fault.
        fields: Vec<FieldError>,
        /// When another try may help.
        retry: Option<Duration>,
    },
    /// The broker refuses it.
    #[error("{text}")]
    ByBroker {
        /// Its code for programs.
        code: String,
        /// The kind of refusal.
        kind: Code,
        /// Its text.
        text: String,
        /// Those at fault.
        fields: Vec<FieldError>,
        /// When another try may help.
        retry: Option<Duration>,
    },
}

impl Failure {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self::Refused { reason, text: text.into(), fields: Vec::new(), retry: None }
    }

    /// A value that a field cannot have.
    pub(crate) fn field(field: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let fields = vec![FieldError { field: field.to_owned(), text: text.clone() }];
        Self::Refused { reason: Reason::InvalidField, text: format!("{field}: {text}"), fields, retry: None }
    }

    /// Something that a field names is not as it would have to be.
    pub(crate) fn about(reason: Reason, field: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        let fields = vec![FieldError { field: field.to_owned(), text: text.clone() }];
        Self::Refused { reason, text, fields, retry: None }
    }

    /// The same, and when another try may help.
    pub(crate) fn after(self, delay: Duration) -> Self {
        match self {
            Self::Refused { reason, text, fields, .. } => Self::Refused { reason, text, fields, retry: Some(delay) },
            Self::ByBroker { code, kind, text, fields, .. } => {
                Self::ByBroker { code, kind, text, fields, retry: Some(delay) }
            }
        }
    }

    /// The broker was asked for something that changes nothing, and did not answer.
    pub(crate) fn of_question(error: tandem_client::Error) -> Self {
        match Self::from(error) {
            Self::Refused { reason: Reason::OutcomeUnknown, .. } => {
                Self::new(Reason::BrokerUnavailable, "the broker does not answer; try again")
                    .after(Duration::from_secs(1))
            }
            failure => failure,
        }
    }

    /// The control plane is at fault; what exactly is in its log.
    pub(crate) fn internal(text: impl Into<String>) -> Self {
        let text = text.into();
        tracing::error!(error = text, "a request failed");
        Self::new(Reason::Internal, "the control plane failed; its log says why")
    }

    /// When another try may help.
    pub(crate) fn retry(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry, .. } | Self::ByBroker { retry, .. } => *retry,
        }
    }

    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { reason, .. } => reason.code(),
            Self::ByBroker { code, .. } => code,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::IdTaken => Self::new(Reason::WorkspaceExists, "the id is taken; choose another"),
            StoreError::NameTaken => Self::new(Reason::NameTaken, "the name is taken; choose another"),
            StoreError::Changed => Self::new(
                Reason::RevisionChanged,
                "somebody else has changed it meanwhile; read it again, and decide on what it is by now",
            ),
            StoreError::NoWorkspace => {
                Self::new(Reason::UnknownWorkspace, "the workspace is gone, or about to be deleted; restore it first")
            }
            StoreError::Full => Self::new(
                Reason::TooManyResources,
                "the workspace has as many of them as it may; delete one that is not needed any more",
            ),
            StoreError::Unavailable(why) => {
                tracing::warn!(error = why, "the database cannot be used");
                Self::new(Reason::DatabaseUnavailable, "the database of the control plane does not answer; try again")
                    .after(Duration::from_secs(1))
            }
            StoreError::Damaged(why) => Self::internal(format!("the database holds what cannot be read: {why}")),
            StoreError::Address(why) => Self::internal(why),
        }
    }
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Self {
        let text = error.to_string();
        match error {
            RuntimeError::Unavailable(why) => {
                tracing::warn!(error = why, "Docker does not answer");
                let text =
                    "Docker does not answer on the host of the control plane; see that dockerd runs, then try again";
                Self::new(Reason::DockerUnavailable, text).after(Duration::from_secs(2))
            }
            RuntimeError::NoImage(image) => Self::new(
                Reason::UnknownImage,
                format!("there is no image {image:?} on this host; build it (make image) or pull it first"),
            ),
            RuntimeError::NoProgram(..) => Self::field("command", text),
            RuntimeError::NoRoom(_) => Self::new(Reason::SandboxFull, text).after(Duration::from_secs(1)),
            RuntimeError::Gone(_) => Self::new(Reason::SandboxNotRunning, text),
            RuntimeError::Refused(_) | RuntimeError::AddressesTaken(_) => Self::new(Reason::SandboxRefused, text),
            RuntimeError::Full(_) => Self::new(Reason::HostFull, text).after(Duration::from_secs(60)),
        }
    }
}

impl From<tandem_client::Error> for Failure {
    fn from(error: tandem_client::Error) -> Self {
        use tandem_client::Error;
        match &error {
            Error::Refused(refusal) => Self::ByBroker {
                code: error.reason().to_owned(),
                kind: refusal.code,
                text: refusal.text.clone(),
                fields: error
                    .field_violations()
                    .iter()
                    .map(|wrong| FieldError { field: wrong.field.clone(), text: wrong.description.clone() })
                    .collect(),
                retry: error.retry_delay(),
            },
            Error::ConnectionLost { .. } | Error::Timeout { .. } => {
                tracing::warn!(%error, "the broker did not answer");
                let text = "the broker did not answer; whether it has done what was asked is not known: look, or ask again with the same \
                            message_id or idempotency key";
                Self::new(Reason::OutcomeUnknown, text).after(Duration::from_secs(1))
            }
            Error::Unreachable { .. } => {
                tracing::warn!(%error, "the broker does not answer");
                Self::new(Reason::BrokerUnavailable, "the broker does not answer; try again")
                    .after(Duration::from_secs(1))
            }
            _ => Self::internal(error.to_string()),
        }
    }
}
