//! An error that the broker gave, with its details.

use std::{fmt, time::Duration};

use prost::Message as _;
use tandem_proto::google::rpc;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// What the broker said: a gRPC status and the `google.rpc` details that came with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// `reason` of `google.rpc.ErrorInfo`; the name of the code when there was none.
    pub reason: String,
    /// What was wrong and what to do.
    pub text: String,
    /// From `google.rpc.BadRequest`.
    pub field_violations: Vec<FieldViolation>,
    /// From `google.rpc.RetryInfo`.
    pub retry_delay: Option<Duration>,
}

/// One field of the request that the broker did not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, such as `message.priority`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Refusal {
    pub(crate) fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = match details.error_info() {
            Some(info) if !info.reason.is_empty() => info.reason.clone(),
            _ => code_name(status.code()).to_owned(),
        };
        let field_violations = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations
                .iter()
                .map(|v| FieldViolation { field: v.field.clone(), description: v.description.clone() })
                .collect()
        });
        Self {
            code: status.code(),
            reason,
            text: status.message().to_owned(),
            field_violations,
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
        }
    }

    /// A refusal inside an answer, where one of many messages or acknowledgements is refused.
    pub(crate) fn from_proto(status: &rpc::Status) -> Self {
        let code = Code::from(status.code);
        let details = status.encode_to_vec().into();
        Self::from_status(&Status::with_details(code, status.message.clone(), details))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { &self.reason } else { &self.text })?;
        for violation in &self.field_violations {
            // Brokers put the first violation into the text as well; say everything once.
            if !self.text.contains(&violation.description) {
                write!(f, "; {}: {}", violation.field, violation.description)?;
            } else if !self.text.contains(&violation.field) {
                write!(f, " ({})", violation.field)?;
            }
        }
        Ok(())
    }
}

/// The name of a gRPC code as in the protocol's own documents.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use tonic_types::ErrorDetails;

    use super::*;
    use crate::Error;

    fn rich() -> Status {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("PRIORITY_OUT_OF_RANGE", "aintandem", HashMap::new())
            .add_bad_request_violation("message.priority", "10 is above 9")
            .set_retry_info(Some(Duration::from_millis(250)));
        Status::with_error_details(Code::InvalidArgument, "the message is refused", details)
    }

    #[test]
    fn details_are_kept() {
        let error = Error::from_status(&rich(), &Arc::from("http://x"), Duration::ZERO);
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.reason(), "PRIORITY_OUT_OF_RANGE");
        assert_eq!(error.retry_delay(), Some(Duration::from_millis(250)));
        assert!(error.is_retryable());
        assert_eq!(error.to_string(), "the message is refused; message.priority: 10 is above 9");
    }

    #[test]
    fn a_refusal_inside_an_answer_reads_the_same() {
        let status = rich();
        let proto = rpc::Status::decode(status.details()).expect("a status");
        assert_eq!(Refusal::from_proto(&proto), Refusal::from_status(&status));
    }

    #[test]
    fn a_plain_status_has_the_code_as_its_reason() {
        let refusal = Refusal::from_status(&Status::not_found("no sandbox bob"));
        assert_eq!((refusal.reason.as_str(), refusal.to_string().as_str()), ("NOT_FOUND", "no sandbox bob"));
        assert!(!Error::Refused(Box::new(refusal)).is_retryable());
    }
}
