//! What a failure looks like outside (RFC 9457): the only place that turns one into an answer.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tandem_client::Code;
use utoipa::ToSchema;

use crate::error::{Failure, Reason};

/// Why a request came to nothing.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemDocument {
    /// Where the code is explained.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    kind: String,
    /// The code in words.
    title: String,
    /// As in the first line of the answer.
    status: u16,
    /// What was wrong, with the value, and what to do.
    detail: String,
    /// Stable; programs go by it.
    code: String,
    /// The fields at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    /// When another try may help, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

/// A field that is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldProblem {
    /// Its path, such as `settings.max_sandboxes`.
    field: String,
    /// What is wrong with it.
    detail: String,
}

/// A failure on its way out.
pub(crate) struct Problem(Failure);

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::InvalidField | Reason::MalformedRequest | Reason::InvalidCursor => StatusCode::BAD_REQUEST,
        Reason::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::UnknownPath
        | Reason::UnknownWorkspace
        | Reason::UnknownSandbox
        | Reason::UnknownLlmProvider
        | Reason::UnknownMcpServer
        | Reason::UnknownAlertRule
        | Reason::UnknownAlert
        | Reason::UnknownDelivery => StatusCode::NOT_FOUND,
        Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Reason::RoleMissing | Reason::OtherWorkspace | Reason::OriginRefused => StatusCode::FORBIDDEN,
        Reason::WorkspaceExists
        | Reason::NameTaken
        | Reason::Busy
        | Reason::SandboxNotRunning
        | Reason::SandboxFull
        | Reason::BeingDeleted
        | Reason::LlmProviderIsDefault
        | Reason::TooManyResources
        | Reason::SecretsNotConfigured
        | Reason::SecretUnreadable
        | Reason::IdempotencyKeyInUse => StatusCode::CONFLICT,
        Reason::RevisionChanged => StatusCode::PRECONDITION_FAILED,
        Reason::IdempotencyKeyReused
        | Reason::UnknownImage
        | Reason::UnknownHost
        | Reason::SandboxEnded
        | Reason::SandboxRefused => StatusCode::UNPROCESSABLE_ENTITY,
        Reason::TooManyRequests | Reason::TooManySockets | Reason::TooManySandboxes | Reason::TooManyHappenings => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Reason::BrokerUnavailable
        | Reason::DatabaseUnavailable
        | Reason::DockerUnavailable
        | Reason::HostFull
        | Reason::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        Reason::RequestTooSlow | Reason::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
        Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// As `google.rpc.Code` maps to HTTP, but for states that forbid something: they are conflicts here.
fn status_of(code: &str, kind: Code) -> StatusCode {
    match kind {
        // It is asked with `If-Match`.
        Code::FailedPrecondition if code == "POLICY_CHANGED" => StatusCode::PRECONDITION_FAILED,
        Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded | Code::Cancelled => StatusCode::GATEWAY_TIMEOUT,
        // What this version asks for and an older broker does not have.
        Code::Unimplemented | Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::BAD_GATEWAY,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.0.code().to_owned();
        let (status, detail, fields, retry) = match self.0 {
            Failure::Refused { reason, text, fields, retry } => (status(reason), text, fields, retry),
            Failure::ByBroker { kind, text, fields, retry, .. } => (status_of(&code, kind), text, fields, retry),
        };
        let document = ProblemDocument {
            kind: format!("https://aintandem.dev/errors#{}", code.to_lowercase()),
            title: code.to_lowercase().replace('_', " "),
            status: status.as_u16(),
            detail,
            code,
            errors: fields.into_iter().map(|wrong| FieldProblem { field: wrong.field, detail: wrong.text }).collect(),
            retry_after_ms: retry.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
        };
        let mut answer = (status, Json(document)).into_response();
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(delay) = retry {
            // In whole seconds, and not too early.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(delay.as_millis().div_ceil(1_000) as u64));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use super::*;

    #[test]
    fn every_reason_has_a_code_of_its_own_and_is_an_error() {
        let mut codes = HashSet::new();
        for reason in Reason::ALL {
            assert!(codes.insert(reason.code()), "{reason:?}");
            let status = status(*reason);
            assert!(status.is_client_error() || status.is_server_error(), "{reason:?}");
        }
    }

    #[test]
    fn a_delay_is_never_too_short() {
        let failure = Failure::new(Reason::Busy, "x").after(Duration::from_millis(1_001));
        let answer = Problem::from(failure).into_response();
        assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
