//! What can go wrong, and whether a retry can help.

mod refusal;
mod undeliverable;

use std::{error::Error as _, sync::Arc, time::Duration};

use tonic::{Code, ConnectError, Status, TimeoutExpired};

pub use self::{
    refusal::{FieldViolation, Refusal},
    undeliverable::Undeliverable,
};

/// Why a call failed. Each kind has a gRPC code, a reason code that programs may rely on, and a text for people.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The broker answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A request got a response, but the broker gave it in the recipient's place.
    #[error("{0}")]
    Undeliverable(Box<Undeliverable>),
    /// No connection could be made. Nothing was sent.
    #[error("cannot connect to {endpoint}: {cause}")]
    Unreachable {
        /// Where the client tried to connect.
        endpoint: Arc<str>,
        /// What the system said.
        cause: String,
    },
    /// The connection broke. Whether the broker acted on the request is unknown.
    #[error("the connection to {endpoint} was lost: {cause}")]
    ConnectionLost {
        /// The other end.
        endpoint: Arc<str>,
        /// What was seen.
        cause: String,
    },
    /// The broker did not answer in time. Whether it acted on the request is unknown.
    #[error("{endpoint} did not answer within {after:?}")]
    Timeout {
        /// The other end.
        endpoint: Arc<str>,
        /// How long the client waited.
        after: Duration,
    },
    /// The broker ended a stream that still owed answers.
    #[error("the broker ended the {stream} stream while {unanswered} answers were outstanding; open a new stream")]
    StreamEnded {
        /// Which kind of stream.
        stream: &'static str,
        /// How many requests have no answer.
        unanswered: u64,
    },
    /// The stream was used after it had been closed.
    #[error("the {stream} stream is closed; open a new one")]
    Closed {
        /// Which kind of stream.
        stream: &'static str,
    },
    /// More requests than allowed wait for an answer.
    #[error("{limit} requests wait for an answer already; take answers before sending more")]
    TooManyUnanswered {
        /// The most that may wait.
        limit: usize,
    },
    /// The broker sent something that the contract does not allow.
    #[error("the broker broke the contract: {0}; are client and broker of the same version?")]
    Contract(String),
    /// The address of the broker cannot be used.
    #[error("{value:?} is not an endpoint: {cause}; write it like http://127.0.0.1:8001")]
    Endpoint {
        /// What was given.
        value: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl Error {
    /// The gRPC code: the broker's, or for an error of this side the one that fits.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Unreachable { .. } | Self::ConnectionLost { .. } | Self::StreamEnded { .. } => Code::Unavailable,
            Self::Timeout { .. } => Code::DeadlineExceeded,
            Self::TooManyUnanswered { .. } => Code::ResourceExhausted,
            Self::Closed { .. } | Self::Undeliverable(_) => Code::FailedPrecondition,
            Self::Contract(_) => Code::Internal,
            Self::Endpoint { .. } => Code::InvalidArgument,
        }
    }

    /// A stable code in capitals, such as `UNKNOWN_SANDBOX`: the reason that the broker gave, or one of this crate
    /// (`UNREACHABLE`, `CONNECTION_LOST`, `TIMEOUT`, `STREAM_ENDED`, `STREAM_CLOSED`, `TOO_MANY_UNANSWERED`,
    /// `CONTRACT_BROKEN`, `INVALID_ENDPOINT`).
    pub fn reason(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.reason,
            Self::Undeliverable(undeliverable) => &undeliverable.code,
            Self::Unreachable { .. } => "UNREACHABLE",
            Self::ConnectionLost { .. } => "CONNECTION_LOST",
            Self::Timeout { .. } => "TIMEOUT",
            Self::StreamEnded { .. } => "STREAM_ENDED",
            Self::Closed { .. } => "STREAM_CLOSED",
            Self::TooManyUnanswered { .. } => "TOO_MANY_UNANSWERED",
            Self::Contract(_) => "CONTRACT_BROKEN",
            Self::Endpoint { .. } => "INVALID_ENDPOINT",
        }
    }

    /// Whether the same call may succeed later. Says nothing about whether a repeat is safe: a publish that is repeated
    /// needs a message id.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                refusal.retry_delay.is_some()
                    || matches!(refusal.code, Code::Unavailable | Code::Aborted | Code::DeadlineExceeded)
            }
            Self::Unreachable { .. }
            | Self::ConnectionLost { .. }
            | Self::Timeout { .. }
            | Self::StreamEnded { .. }
            | Self::TooManyUnanswered { .. } => true,
            Self::Undeliverable(_) | Self::Closed { .. } | Self::Contract(_) | Self::Endpoint { .. } => false,
        }
    }

    /// Whether the client tries again by itself: what was no verdict, and what asks for a wait because much is going on.
    pub(crate) fn is_momentary(&self) -> bool {
        self.code() == Code::Unavailable || matches!(self.reason(), "OVERLOADED" | "RATE_LIMITED")
    }

    /// How long the broker asks to wait before the next try, if it said so.
    pub fn retry_delay(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_delay,
            _ => None,
        }
    }

    /// The fields that the broker found wrong; empty when the error is not about fields.
    pub fn field_violations(&self) -> &[FieldViolation] {
        match self {
            Self::Refused(refusal) => &refusal.field_violations,
            _ => &[],
        }
    }

    /// Tells apart what the broker said and what happened on the way. Only a status made on this side has a source.
    pub(crate) fn from_status(status: &Status, endpoint: &Arc<str>, timeout: Duration) -> Self {
        let endpoint = Arc::clone(endpoint);
        let Some(source) = status.source() else {
            let refusal = Refusal::from_status(status);
            // The other side counts the time as well, and its answer, bare of a reason, can be here first. By then the request
            // may have been acted on: no refusal.
            let is_bare = status.details().is_empty();
            return match status.code() {
                Code::Cancelled | Code::DeadlineExceeded if is_bare => Self::Timeout { endpoint, after: timeout },
                _ => Self::Refused(Box::new(refusal)),
            };
        };
        let chain = || std::iter::successors(Some(source), |&error| error.source());
        if chain().any(|error| error.is::<TimeoutExpired>()) {
            return Self::Timeout { endpoint, after: timeout };
        }
        let cause = chain().last().unwrap_or(source).to_string();
        if chain().any(|error| error.is::<ConnectError>()) {
            Self::Unreachable { endpoint, cause }
        } else {
            Self::ConnectionLost { endpoint, cause }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_limit_that_the_server_noticed_first_is_no_refusal() {
        let endpoint = Arc::from("http://x");
        for status in [Status::cancelled("Timeout expired"), Status::deadline_exceeded("Timeout expired")] {
            let error = Error::from_status(&status, &endpoint, Duration::from_secs(4));
            assert!(matches!(error, Error::Timeout { .. }) && error.is_retryable(), "{error:?}");
        }
    }
}
