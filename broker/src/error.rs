//! How a request can fail, and why a node cannot start or must stop.

use std::path::PathBuf;

use tandem_raft::{FatalError, ProposeError};

use crate::{config::ConfigError, query::QueryError, rejection::Rejection};

/// Why a request has no good answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RequestError {
    /// The request is wrong or cannot be served as it is.
    #[error(transparent)]
    Rejected(Rejection),
    /// Trying again, perhaps elsewhere, can help.
    #[error(transparent)]
    Unavailable(ProposeError),
    /// The server itself is at fault.
    #[error("internal error: {0}")]
    Internal(String),
}

impl RequestError {
    /// An error that should not be. Logged here, where it is known best.
    pub(crate) fn internal(detail: String) -> Self {
        tracing::error!(%detail, "a request failed for a reason within the server");
        Self::Internal(detail)
    }
}

impl From<Rejection> for RequestError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<ProposeError> for RequestError {
    fn from(error: ProposeError) -> Self {
        Self::Unavailable(error)
    }
}

impl From<QueryError> for RequestError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Rejected(rejection) => Self::Rejected(rejection),
            QueryError::State(error) => Self::internal(error.to_string()),
        }
    }
}

/// Why a broker does not start. Every text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Storage(#[from] tandem_storage::Error),
    /// The data directory belongs to somebody else or to another version.
    #[error("data directory {path} {fault}; {advice}")]
    DataDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
        /// What to do.
        advice: String,
    },
    /// An address cannot be bound.
    #[error("cannot listen on {address} for {service}: {reason}; stop what uses it or choose another address")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Which service wanted it.
        service: &'static str,
        /// What the system said.
        reason: String,
    },
    /// The address for peers cannot be bound.
    #[error(
        "cannot listen on {address} for peers: {reason}; name this node's own address in cluster.members or set cluster.peer_listen"
    )]
    ListenForPeers {
        /// The address.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Replication does not start.
    #[error("the log or the state cannot be opened: {0}")]
    Fatal(#[from] FatalError),
    /// A shard does not become ready.
    #[error("shard {shard} is not ready after {seconds} s; look at the log of this node")]
    NotReady {
        /// The shard.
        shard: u32,
        /// How long was waited.
        seconds: u64,
    },
    /// The default workspace cannot be made.
    #[error("workspace {workspace:?} cannot be created: {reason}")]
    DefaultWorkspace {
        /// Its id.
        workspace: String,
        /// Why.
        reason: String,
    },
}

impl StartError {
    /// A stable code for logs and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "INVALID_CONFIG",
            Self::Storage(error) => error.code(),
            Self::DataDirectory { .. } => "DATA_DIRECTORY_MISMATCH",
            Self::Listen { .. } | Self::ListenForPeers { .. } => "ADDRESS_IN_USE",
            Self::Fatal(error) => error.code(),
            Self::NotReady { .. } => "SHARD_NOT_READY",
            Self::DefaultWorkspace { .. } => "DEFAULT_WORKSPACE",
        }
    }
}
