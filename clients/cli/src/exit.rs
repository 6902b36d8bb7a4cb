//! Why a command failed, and the exit code that says so.

use std::{fmt, path::Path};

use tandem_client::{Code, Error};

use crate::address;
pub use crate::control_plane::Problem;

/// Shown at the end of `tandem --help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the operation or a check failed
  2  wrong usage
  3  not found
  4  refused: invalid, not allowed, or in conflict with what is there
  5  the broker is unavailable, or time ran out
  6  a limit is reached; try again later

With --json, results are JSON on standard output, one document a line, and errors are JSON on
standard error.";

/// Why a command failed.
#[derive(Debug, Clone)]
pub enum Failure {
    /// The broker said no, or could not be reached.
    Broker(Error),
    /// The same, with a next step that only the command knows.
    Advised {
        /// What the broker said.
        error: Error,
        /// What to do.
        next: String,
    },
    /// The control plane said no.
    Problem(Problem),
    /// The command line asks for something that cannot be.
    Usage(String),
    /// Time ran out.
    TimedOut(String),
    /// Who reads standard output has had enough, as in `tandem history | head`. Not worth a word.
    OutputClosed,
    /// Anything else, with a code in capitals.
    Failed {
        /// Stable, in capitals.
        code: &'static str,
        /// What was wrong.
        text: String,
        /// What to do, if there is something.
        next: Option<String>,
    },
}

impl Failure {
    /// Wrong use of the command.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// A failure with a code of its own.
    pub fn failed(code: &'static str, text: impl Into<String>) -> Self {
        Self::Failed { code, text: text.into(), next: None }
    }

    /// A file cannot be read.
    pub fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::failed("FILE_UNREADABLE", format!("cannot read {}: {error}", path.display()))
    }

    /// Standard output cannot be written.
    pub fn output(error: &std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::failed("OUTPUT_FAILED", format!("cannot write to standard output: {error}")),
        }
    }

    /// The same, with a next step that whoever has asked knows better.
    pub(crate) fn advised(self, next: impl Into<String>) -> Self {
        match self {
            Self::Broker(error) | Self::Advised { error, .. } => Self::Advised { error, next: next.into() },
            Self::Problem(problem) => Self::Problem(Problem { next: Some(next.into()), ..problem }),
            Self::Failed { code, text, .. } => Self::Failed { code, text, next: Some(next.into()) },
            other => other,
        }
    }

    /// What the broker said, or the client about it.
    pub fn broker(&self) -> Option<&Error> {
        match self {
            Self::Broker(error) | Self::Advised { error, .. } => Some(error),
            _ => None,
        }
    }

    /// A stable code in capitals.
    pub fn code(&self) -> &str {
        match self {
            Self::Broker(error) | Self::Advised { error, .. } => error.reason(),
            Self::Problem(problem) => &problem.code,
            Self::Usage(_) => "USAGE",
            Self::TimedOut(_) => "TIMEOUT",
            Self::OutputClosed => "OUTPUT_CLOSED",
            Self::Failed { code, .. } => code,
        }
    }

    /// The exit code of the process, as [`EXIT_CODES`] describes it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Broker(Error::Endpoint { .. }) => 2,
            Self::TimedOut(_) => 5,
            Self::OutputClosed => 0,
            Self::Failed { code: "CONTROL_PLANE_UNREACHABLE", .. } => 5,
            Self::Failed { code: "NO_SUCH_CONTAINER", .. } => 3,
            Self::Failed { .. } => 1,
            Self::Problem(problem) => match problem.status {
                404 => 3,
                408 | 502..=504 => 5,
                429 => 6,
                400..=499 => 4,
                _ => 1,
            },
            Self::Broker(error) | Self::Advised { error, .. } => match error.code() {
                Code::NotFound => 3,
                Code::InvalidArgument
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented => 4,
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => 5,
                Code::ResourceExhausted => 6,
                Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => 1,
            },
        }
    }

    /// Whether a later try may fare better, for who looks again and again: what is not there may come, a token is renewed, and
    /// roles are given.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Usage(_) | Self::OutputClosed => false,
            Self::TimedOut(_) => true,
            Self::Problem(problem) => !matches!(problem.status, 400 | 422),
            Self::Broker(error) | Self::Advised { error, .. } => error.code() != Code::InvalidArgument,
            Self::Failed { code: "NOT_WELL" | "CONTROL_PLANE_ANSWER", .. } => true,
            Self::Failed { .. } => matches!(self.exit_code(), 3 | 5 | 6),
        }
    }

    /// What the user could do next.
    pub fn next(&self) -> Option<String> {
        match self {
            Self::Broker(Error::Unreachable { endpoint, cause }) => {
                Some(address::next_unreachable(endpoint, cause, "is the broker running? try: tandem dev"))
            }
            Self::Broker(Error::ConnectionLost { endpoint, .. }) => {
                Some(address::next_lost(endpoint, "the broker's port (8001), not the control plane's (8000)"))
            }
            Self::Broker(error) if hint(error.reason()).is_some() => hint(error.reason()).map(str::to_owned),
            Self::Broker(error) => match error.retry_delay() {
                Some(delay) => Some(format!("try again in {}", humantime::format_duration(delay))),
                None if error.is_retryable() => Some("try again".to_owned()),
                None => None,
            },
            Self::Problem(Problem { next: Some(next), .. }) => Some(next.clone()),
            Self::Problem(problem) => match (hint(&problem.code), problem.retry_after_s) {
                (Some(hint), _) => Some(hint.to_owned()),
                (None, Some(seconds)) => Some(format!("try again in {seconds}s")),
                (None, None) => None,
            },
            Self::Usage(_) => Some("tandem --help".to_owned()),
            Self::TimedOut(_) | Self::OutputClosed => None,
            Self::Advised { next, .. } => Some(next.clone()),
            Self::Failed { next, .. } => next.clone(),
        }
    }
}

/// For reasons of the broker that have one obvious next step.
fn hint(reason: &str) -> Option<&'static str> {
    match reason {
        "UNKNOWN_WORKSPACE" => Some("tandem workspace list, or create it: tandem workspace create ID"),
        "UNKNOWN_SANDBOX" => Some("tandem sandbox list, or register it: tandem sandbox register ID"),
        "UNKNOWN_MESSAGE" => Some("tandem history"),
        "UNKNOWN_DEAD_LETTER" => Some("tandem dlq list"),
        "UNKNOWN_FOLLOW" => Some("tandem topic follows SANDBOX"),
        "EVENT_GAP" => Some("begin later with --from-event, or now with --follow alone"),
        "HISTORY_GAP" => Some("begin later, behind what was trimmed"),
        "NO_CAPABLE_SANDBOX" => Some("tandem agents --capability NAME, or wait for one: --wait-for-capable"),
        "UNKNOWN_TOPIC" => Some("tandem topic list, or create it: tandem topic create NAME"),
        "LEASE_LOST" => Some("the message comes again; allow more time with --ack-wait, or use --lenient"),
        "NODE_ID_REUSED" | "NODE_EXISTS" => Some("choose an id that no node ever had: tandem cluster status"),
        "UNKNOWN_NODE" | "CHANGE_IN_PROGRESS" | "QUORUM_AT_RISK" | "NODE_NOT_READY" => Some("tandem cluster status"),
        "UNKNOWN_KEY" => Some("tandem key list"),
        "UNKNOWN_TOKEN" => Some("tandem token list, or give the token itself: tandem token revoke --token FILE"),
        "TOKEN_MISSING" | "TOKEN_INVALID" | "TOKEN_EXPIRED" | "TOKEN_REVOKED" | "KEY_REVOKED" => {
            Some("get a token, and say where it is: --token-file FILE, or TANDEM_TOKEN_FILE")
        }
        // A code of gRPC, where a broker gives one of its own.
        "UNIMPLEMENTED" => Some("something else may listen there: is it the broker's port (8001)?"),
        "POLICY_DENIED" => {
            Some("tandem policy test --from ID --to ID --type TYPE says which rule it is, to who may read the policy")
        }
        "POLICY_CHANGED" => Some("tandem policy show"),
        "RATE_LIMITED" => Some("tandem workspace quotas ID, or tandem policy show, shows the limit"),
        "QUOTA_EXCEEDED" => Some("tandem workspace quotas ID shows them"),
        "CONTENT_UNREADABLE" => {
            Some("put the key back into encryption.key_file of every node; it is read again at once")
        }
        "UNKNOWN_IMAGE" => Some("make image, or docker pull"),
        "DOCKER_UNAVAILABLE" => Some("start Docker on the host of the control plane, then try again"),
        "SANDBOX_NOT_RUNNING" => Some("tandem sandbox start NAME"),
        "SANDBOX_FULL" => {
            Some("tandem sandbox stats NAME says what it takes; tandem sandbox restart NAME ends what runs in it")
        }
        "TOO_MANY_SANDBOXES" => Some("tandem sandbox rm NAME"),
        "UNKNOWN_APPROVAL" => Some("tandem approval list"),
        "APPROVAL_ENDED" => Some("tandem approval show APPROVAL says how, and who said what"),
        "TOO_MANY_HELD" => Some("decide on what waits: tandem approval list"),
        "ROLE_MISSING" => Some("tandem roles"),
        "INBOX_FULL" => Some("read it: tandem sub SANDBOX"),
        _ => None,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker(error) | Self::Advised { error, .. } => error.fmt(f),
            Self::Problem(problem) => problem.fmt(f),
            Self::Usage(text) | Self::TimedOut(text) | Self::Failed { text, .. } => f.write_str(text),
            Self::OutputClosed => f.write_str("standard output was closed"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broker(error)
    }
}

#[cfg(test)]
mod tests {
    use tandem_client::Refusal;

    use super::*;

    fn refused(code: Code, reason: &str) -> Failure {
        Failure::Broker(Error::Refused(Box::new(Refusal {
            code,
            reason: reason.to_owned(),
            text: "text".to_owned(),
            field_violations: Vec::new(),
            retry_delay: None,
        })))
    }

    #[test]
    fn exit_codes_are_as_documented() {
        let cases = [
            (refused(Code::NotFound, "UNKNOWN_SANDBOX"), 3),
            (refused(Code::InvalidArgument, "CONTENT_EMPTY"), 4),
            (refused(Code::AlreadyExists, "WORKSPACE_EXISTS"), 4),
            (refused(Code::Unimplemented, "TTL_NOT_SERVED"), 4),
            (refused(Code::Unavailable, "SHARD_STARTING"), 5),
            (refused(Code::DeadlineExceeded, "X"), 5),
            (refused(Code::ResourceExhausted, "INBOX_FULL"), 6),
            (refused(Code::Internal, "X"), 1),
            (Failure::usage("x"), 2),
            (Failure::TimedOut("x".to_owned()), 5),
            (Failure::failed("LOST", "x"), 1),
            (Failure::Broker(Error::Endpoint { value: "x".to_owned(), cause: "y".to_owned() }), 2),
        ];
        for (failure, exit_code) in cases {
            assert_eq!(failure.exit_code(), exit_code, "{failure:?}");
        }
    }

    #[test]
    fn who_watches_goes_on_where_it_may_pass() {
        let problem = |status| {
            let (code, text) = ("X".to_owned(), "x".to_owned());
            Failure::Problem(Problem { status, code, text, fields: Vec::new(), retry_after_s: None, next: None })
        };
        let cases = [
            (refused(Code::Unavailable, "SHARD_STARTING"), true),
            (refused(Code::NotFound, "UNKNOWN_SANDBOX"), true),
            (refused(Code::Unauthenticated, "TOKEN_EXPIRED"), true),
            (refused(Code::InvalidArgument, "INVALID_ID"), false),
            (Failure::Broker(Error::Endpoint { value: "x".to_owned(), cause: "y".to_owned() }), false),
            (problem(503), true),
            (problem(404), true),
            (problem(400), false),
            (Failure::TimedOut("x".to_owned()), true),
            (Failure::failed("CONTROL_PLANE_UNREACHABLE", "x"), true),
            (Failure::failed("CONTROL_PLANE_ANSWER", "x"), true),
            (Failure::failed("NO_SUCH_CONTAINER", "x"), true),
            (Failure::failed("NOT_WELL", "x"), true),
            (Failure::failed("NOT_A_CLUSTER", "x"), false),
            (Failure::usage("x"), false),
            (Failure::OutputClosed, false),
        ];
        for (failure, may_pass) in cases {
            assert_eq!(failure.may_pass(), may_pass, "{failure:?}");
        }
    }

    #[test]
    fn hints_fit_the_reason() {
        let next = |failure: Failure| failure.next().unwrap_or_default();
        assert!(next(refused(Code::NotFound, "UNKNOWN_WORKSPACE")).contains("workspace create"));
        assert!(next(refused(Code::NotFound, "UNKNOWN_SANDBOX")).contains("sandbox register"));
        assert_eq!(next(refused(Code::Unavailable, "X")), "try again");
        assert_eq!(refused(Code::InvalidArgument, "X").next(), None);
        let (endpoint, cause) = (std::sync::Arc::from("http://b"), "frame with invalid size".to_owned());
        assert!(next(Failure::Broker(Error::ConnectionLost { endpoint, cause })).contains("8001"));
        let (endpoint, cause) =
            (std::sync::Arc::from("https://b"), "invalid peer certificate: UnknownIssuer".to_owned());
        assert!(next(Failure::Broker(Error::Unreachable { endpoint, cause })).contains("--ca-file"));
        assert_eq!(next(refused(Code::Unauthenticated, "TOKEN_MISSING").advised("x")), "x");
        assert_eq!(next(Failure::failed("FILE_UNREADABLE", "x").advised("y")), "y");
    }
}
