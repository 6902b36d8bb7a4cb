//! The one translation from domain errors to gRPC: code, text, and details for programs.

use std::{collections::HashMap, time::Duration};

use tandem_proto::google::rpc;
use tandem_raft::ProposeError;
use tonic::{
    Code, Status,
    body::Body,
    codegen::http,
    metadata::{MetadataMap, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt};

use super::forward;
use crate::{
    config::Limits,
    error::RequestError,
    metrics::Metrics,
    query::QueryError,
    rejection::{Reason, Rejection},
};

/// The domain of all reason codes.
const DOMAIN: &str = "aintandem.dev";
/// What a caller should wait before it tries again, where nothing better is known.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The same while another node becomes leader: a handover takes a few milliseconds. Callers wait longer each time.
const LEADER_RETRY_DELAY: Duration = Duration::from_millis(20);
/// The same until every node runs a version that knows the command.
const UPGRADE_RETRY_DELAY: Duration = Duration::from_secs(1);

fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidField
        | Reason::InvalidPolicy
        | Reason::MessageTooLarge
        | Reason::BatchTooLarge
        | Reason::HeadersTooLarge
        | Reason::InvalidPageToken
        | Reason::MalformedRequest
        | Reason::CreditTooLarge => Code::InvalidArgument,
        Reason::TokenMissing
        | Reason::TokenInvalid
        | Reason::TokenExpired
        | Reason::TokenNotYetValid
        | Reason::TokenRevoked
        | Reason::KeyRevoked => Code::Unauthenticated,
        Reason::RoleMissing
        | Reason::OtherWorkspace
        | Reason::OtherSandbox
        | Reason::PolicyDenied
        | Reason::OwnMessage
        | Reason::ApprovalDenied => Code::PermissionDenied,
        Reason::UnsupportedField | Reason::UnknownMethod | Reason::RequestCompressed => Code::Unimplemented,
        Reason::UnknownWorkspace
        | Reason::UnknownSandbox
        | Reason::UnknownMessage
        | Reason::UnknownDelivery
        | Reason::UnknownTopic
        | Reason::UnknownFollow
        | Reason::UnknownDeadLetter
        | Reason::UnknownNode
        | Reason::UnknownKey
        | Reason::UnknownToken
        | Reason::UnknownApproval
        | Reason::UnknownShard => Code::NotFound,
        Reason::WorkspaceExists | Reason::MessageIdReused | Reason::NodeExists | Reason::NodeIdReused => {
            Code::AlreadyExists
        }
        Reason::InboxFull
        | Reason::Overloaded
        | Reason::TooManySandboxes
        | Reason::TooManyWorkspaces
        | Reason::TooManyTopics
        | Reason::TooManyFollows
        | Reason::TooManyRequests
        | Reason::TooManyKeys
        | Reason::TooManyTokens
        | Reason::TooManyHeld
        | Reason::RateLimited
        | Reason::QuotaExceeded
        | Reason::TooManyConnections
        | Reason::TooManyStreams => Code::ResourceExhausted,
        Reason::ResponseTimeout | Reason::RequestTooSlow => Code::DeadlineExceeded,
        Reason::HistoryGap | Reason::EventGap => Code::OutOfRange,
        Reason::StreamNotOpen
        | Reason::StreamOpenedTwice
        | Reason::NoCredit
        | Reason::LeaseLost
        | Reason::ProducerGap
        | Reason::PositionRefused
        | Reason::NoCapableSandbox
        | Reason::TooManyHops
        | Reason::PolicyChanged
        | Reason::ApprovalEnded
        | Reason::BrokerOpen
        | Reason::NoSigningKey
        | Reason::ContentUnreadable
        | Reason::ConnectionAbused
        | Reason::TokenNotRenewable
        | Reason::NotACluster
        | Reason::ChangeInProgress
        | Reason::QuorumAtRisk
        | Reason::LastNode
        | Reason::TooManyNodes
        | Reason::NodeNotReady => Code::FailedPrecondition,
    }
}

fn retry_delay(reason: Reason) -> Option<Duration> {
    match reason {
        Reason::Overloaded => Some(RETRY_DELAY),
        Reason::InboxFull
        | Reason::TooManyConnections
        | Reason::TooManyStreams
        | Reason::TooManyRequests
        | Reason::TooManyHeld
        | Reason::RateLimited => Some(Duration::from_secs(1)),
        _ => None,
    }
}

fn details(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, HashMap::<String, String>::new())
}

/// A refusal as a status.
pub(crate) fn rejected(rejection: &Rejection) -> Status {
    let mut details = details(rejection.reason.code());
    if !rejection.field.is_empty() {
        details.add_bad_request_violation(rejection.field.clone(), rejection.text.clone());
    }
    let told = Some(u64::from(rejection.retry_ms)).filter(|ms| *ms > 0).map(Duration::from_millis);
    if let Some(delay) = told.or_else(|| retry_delay(rejection.reason)) {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code(rejection.reason), rejection.text.clone(), details)
}

/// A refusal inside a response.
pub(crate) fn rejected_in_response(rejection: &Rejection) -> rpc::Status {
    let status = rejected(rejection);
    // tonic keeps the details as an encoded google.rpc.Status; it is this message.
    prost::Message::decode(status.details()).unwrap_or_else(|_| rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// Any failure of a request as a status.
pub(crate) fn failed(error: &RequestError) -> Status {
    match error {
        RequestError::Rejected(rejection) => rejected(rejection),
        RequestError::Unavailable(error) => unavailable(error),
        RequestError::Internal(_) => {
            // The text may speak of files and records; the log of the server has it.
            Status::with_error_details(Code::Internal, "the server failed; its log says why", details("INTERNAL"))
        }
    }
}

fn unavailable(error: &ProposeError) -> Status {
    let (reason, retry) = match error {
        ProposeError::NotLeader(_) => ("NOT_LEADER", Some(LEADER_RETRY_DELAY)),
        ProposeError::Unsettled => ("UNSETTLED", Some(LEADER_RETRY_DELAY)),
        ProposeError::LevelTooLow { .. } => ("LEVEL_TOO_LOW", Some(UPGRADE_RETRY_DELAY)),
        ProposeError::Stopped(_) => ("NODE_STOPPED", None),
    };
    let mut hints = HashMap::new();
    let mut metadata = reason_metadata(reason);
    if let ProposeError::NotLeader(Some(leader)) = error {
        hints.insert("leader_node_id".to_owned(), leader.to_string());
        metadata.insert(forward::LEADER, MetadataValue::from(*leader));
    }
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, hints);
    details.set_retry_info(retry);
    Status::with_error_details_and_metadata(Code::Unavailable, error.to_string(), details, metadata)
}

/// The reason where a node that passes an answer on finds it without decoding.
fn reason_metadata(reason: &'static str) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    metadata.insert(forward::REASON, MetadataValue::from_static(reason));
    metadata
}

/// The connection to the node that leads broke, or it does not answer. Whether the request was done is not known.
pub(crate) fn leader_unreachable(error: &dyn std::fmt::Display) -> Status {
    let mut details = details("UNSETTLED");
    details.set_retry_info(Some(LEADER_RETRY_DELAY));
    let text = format!("the node that leads this workspace went away ({error}); try again");
    Status::with_error_details_and_metadata(Code::Unavailable, text, details, reason_metadata("UNSETTLED"))
}

/// What the transport itself refuses, in the words of the contract.
pub(crate) fn translate_response(
    response: http::Response<Body>,
    limits: &Limits,
    metrics: &Metrics,
) -> http::Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    let translated = from_transport(&status, limits);
    count(translated.as_ref().unwrap_or(&status), metrics);
    translated.map_or(response, Status::into_http)
}

/// Counts a status that is a refusal.
pub(crate) fn count(status: &Status, metrics: &Metrics) {
    if status.code() == Code::Ok || status.details().is_empty() {
        return;
    }
    let Some(info) = status.get_details_error_info() else { return };
    if let Some(reason) = Reason::ALL.iter().find(|reason| reason.code() == info.reason) {
        metrics.refused(*reason);
    }
}

/// The same for what comes out of a stream of requests: the translated status, or the one that was there.
pub(crate) fn translate_status(status: Status, limits: &Limits) -> Status {
    from_transport(&status, limits).unwrap_or(status)
}

/// A request that is larger than any that could be right is not read at all; bytes that are not the message expected have
/// no fields to name. Statuses of our own always carry details, so these cannot be taken for them.
fn from_transport(status: &Status, limits: &Limits) -> Option<Status> {
    let rejection = match status.code() {
        _ if !status.details().is_empty() => return None,
        Code::OutOfRange => {
            let text = format!(
                "the request is too large to be read ({}); at most {} are allowed for a message, and {} for a batch, in bytes",
                status.message().trim_start_matches("Error, "),
                limits.max_message_bytes,
                limits.max_batch_bytes
            );
            Rejection::new(Reason::MessageTooLarge, text)
        }
        Code::Internal => {
            let text = format!(
                "the request is not the protobuf message expected: {}; check it against the contract",
                status.message()
            );
            Rejection::new(Reason::MalformedRequest, text)
        }
        _ => return None,
    };
    Some(rejected(&rejection))
}

/// The server stops; another connection, perhaps to another node, can go on.
pub(crate) fn shutting_down() -> Status {
    let mut details = details("SHUTTING_DOWN");
    details.set_retry_info(Some(RETRY_DELAY));
    let metadata = reason_metadata("SHUTTING_DOWN");
    Status::with_error_details_and_metadata(
        Code::Unavailable,
        "the server is shutting down; connect again",
        details,
        metadata,
    )
}

/// The topics of a subscription's sandbox are others now.
pub(crate) fn follows_changed() -> Status {
    let mut details = details("FOLLOWS_CHANGED");
    details.set_retry_info(Some(Duration::ZERO));
    let metadata = reason_metadata("FOLLOWS_CHANGED");
    Status::with_error_details_and_metadata(
        Code::Unavailable,
        "the sandbox follows other topics now; subscribe again",
        details,
        metadata,
    )
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        failed(&error)
    }
}

impl From<Rejection> for Status {
    fn from(rejection: Rejection) -> Self {
        rejected(&rejection)
    }
}

impl From<QueryError> for Status {
    fn from(error: QueryError) -> Self {
        failed(&error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_status_with_its_code() {
        for reason in Reason::ALL {
            let status = rejected(&Rejection { reason: *reason, text: "text".into(), field: "f".into(), retry_ms: 0 });
            assert_ne!(status.code(), Code::Unknown);
            let details = status.get_error_details();
            assert_eq!(details.error_info().unwrap().reason, reason.code());
            let full = status.code() == Code::ResourceExhausted;
            // These pass only when somebody removes something.
            let permanent = matches!(
                reason,
                Reason::TooManySandboxes
                    | Reason::TooManyWorkspaces
                    | Reason::TooManyTopics
                    | Reason::TooManyFollows
                    | Reason::TooManyKeys
                    | Reason::TooManyTokens
                    | Reason::QuotaExceeded
            );
            assert!(!full || details.retry_info().is_some() || permanent);
            let inner = rejected_in_response(&Rejection::new(*reason, "text"));
            assert_eq!((inner.code, inner.message.as_str()), (status.code() as i32, "text"));
            assert!(!inner.details.is_empty());
        }
    }
}
