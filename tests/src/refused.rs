//! What a test expects of a refusal: a code, a reason and a text that helps.

use std::time::Duration;

use prost::Message as _;
use tandem_client::Error;
use tandem_proto::google::rpc;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// A refusal as a caller sees it, whichever way it came.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The gRPC code.
    pub code: Code,
    /// `reason` of `google.rpc.ErrorInfo`; empty when there was none.
    pub reason: String,
    /// The text for people.
    pub text: String,
    /// The fields found wrong.
    pub fields: Vec<String>,
    /// When to try again.
    pub retry_delay: Option<Duration>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        Self {
            code: status.code(),
            reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
            text: status.message().to_owned(),
            fields: details.bad_request().map_or_else(Vec::new, |bad| {
                bad.field_violations.iter().map(|violation| violation.field.clone()).collect()
            }),
            retry_delay: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl From<rpc::Status> for Refused {
    fn from(status: rpc::Status) -> Self {
        let details = status.encode_to_vec().into();
        Self::from(Status::with_details(Code::from(status.code), status.message, details))
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self {
            code: error.code(),
            reason: error.reason().to_owned(),
            text: error.to_string(),
            fields: error.field_violations().iter().map(|violation| violation.field.clone()).collect(),
            retry_delay: error.retry_delay(),
        }
    }
}

impl Refused {
    /// Checks code and reason, and that the text says each of these.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn expect(&self, code: Code, reason: &str, says: &[&str]) -> &Self {
        assert_eq!((self.code, self.reason.as_str()), (code, reason), "{self:?}");
        for part in says {
            assert!(self.text.contains(part), "the text does not say {part:?}: {self:?}");
        }
        self
    }

    /// Checks which field is named.
    ///
    /// # Panics
    /// When it is another, or none.
    #[track_caller]
    pub fn at(&self, field: &str) -> &Self {
        assert_eq!(self.fields, [field], "{self:?}");
        self
    }
}
