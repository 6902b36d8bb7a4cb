//! `/dead-letters`: messages that left their inbox without being acknowledged.

use std::pin::pin;

use axum::{Extension, Json as JsonAnswer};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tandem_client::{AttemptError, DeadLetter, DeadLetterQuery, DeadLetterReason, RedriveOptions};
use utoipa::{IntoParams, ToSchema};

use super::{
    body::{Json, Query},
    message::{Kind, ShownMessage},
    problem::{Problem, ProblemDocument},
    some, time,
};
use crate::{error::Failure, service::caller::Caller};

const DEFAULT_MOST: usize = 50;
const MAX_MOST: usize = 500;

/// Why a message is a dead letter.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// All attempts failed.
    AttemptsExhausted,
    /// A subscriber refused it for good.
    Rejected,
    /// Its time was over.
    Expired,
    /// Its conversation went in circles.
    Loop,
}

impl Reason {
    fn of(reason: DeadLetterReason) -> Option<Self> {
        match reason {
            DeadLetterReason::AttemptsExhausted => Some(Self::AttemptsExhausted),
            DeadLetterReason::Rejected => Some(Self::Rejected),
            DeadLetterReason::Expired => Some(Self::Expired),
            DeadLetterReason::Loop => Some(Self::Loop),
            DeadLetterReason::Unspecified => None,
        }
    }

    fn wire(self) -> DeadLetterReason {
        match self {
            Self::AttemptsExhausted => DeadLetterReason::AttemptsExhausted,
            Self::Rejected => DeadLetterReason::Rejected,
            Self::Expired => DeadLetterReason::Expired,
            Self::Loop => DeadLetterReason::Loop,
        }
    }
}

/// An attempt that failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Attempt {
    attempt: u32,
    /// How it failed, as the contract of the broker calls it.
    error: String,
    /// Of a nack, its reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    time: Option<String>,
}

/// A message with the reason why it left its inbox, and its history.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownDeadLetter {
    /// Whose inbox it left.
    sandbox_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    reason_text: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    dead_time: Option<String>,
    attempts: Vec<Attempt>,
    /// Of a conversation that went in circles: its sequences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chain: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<ShownMessage>,
}

impl From<DeadLetter> for ShownDeadLetter {
    fn from(dead: DeadLetter) -> Self {
        let reason = Reason::of(dead.reason());
        let attempts = dead.attempts.into_iter().map(|attempt| Attempt {
            attempt: attempt.attempt,
            error: error_name(attempt.error()),
            time: time::of(attempt.time.as_ref()),
            text: attempt.text,
        });
        Self {
            sandbox_id: dead.sandbox_id,
            reason,
            reason_text: dead.reason_text,
            dead_time: time::of(dead.dead_time.as_ref()),
            attempts: attempts.collect(),
            chain: dead.chain,
            message: dead.message.map(Into::into),
        }
    }
}

fn error_name(error: AttemptError) -> String {
    error.as_str_name().trim_start_matches("ATTEMPT_ERROR_").to_lowercase()
}

/// Some dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeadLetterList {
    dead_letters: Vec<ShownDeadLetter>,
    /// There are more than were asked for.
    truncated: bool,
}

/// Which are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// The workspace.
    #[param(max_length = 128)]
    workspace_id: String,
    /// Of this sandbox.
    sandbox_id: Option<String>,
    /// For this reason.
    reason: Option<Reason>,
    /// Sent by this sandbox.
    from_sandbox_id: Option<String>,
    /// Of this conversation.
    correlation_id: Option<String>,
    /// Of this type.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    /// With this sequence.
    sequence: Option<u64>,
    /// How many at most: 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 50)]
    limit: Option<usize>,
}

/// Which are put back, and where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redrive {
    /// The workspace.
    #[schema(max_length = 128)]
    workspace_id: String,
    /// Of this sandbox. Unset: of all.
    sandbox_id: Option<String>,
    /// For this reason.
    reason: Option<Reason>,
    /// Sent by this sandbox.
    from_sandbox_id: Option<String>,
    /// Of this conversation.
    correlation_id: Option<String>,
    /// Of this type.
    #[serde(rename = "type")]
    kind: Option<Kind>,
    /// With this sequence.
    sequence: Option<u64>,
    /// Into the inbox of this sandbox. Unset: where they came from.
    to_sandbox_id: Option<String>,
    /// So many in a second. Unset: as fast as it goes.
    #[serde(default)]
    #[schema(format = Int64, minimum = 0, maximum = 4_294_967_295_u64)]
    max_per_second: u32,
}

/// What came of putting them back.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Redriven {
    redriven: u64,
    /// Left alone: their inbox is full, or gone.
    skipped: u64,
}

/// Lists dead letters.
#[utoipa::path(get, path = "/dead-letters", operation_id = "list_dead_letters", tag = "dead-letters", params(Wanted), responses(
    (status = 200, description = "Those that there are", body = DeadLetterList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<JsonAnswer<DeadLetterList>, Problem> {
    let most = some::most(wanted.limit, DEFAULT_MOST, MAX_MOST)?;
    let query = DeadLetterQuery {
        sandbox_id: wanted.sandbox_id,
        reason: wanted.reason.map(Reason::wire),
        from_sandbox_id: wanted.from_sandbox_id,
        correlation_id: wanted.correlation_id,
        message_type: wanted.kind.map(Kind::wire),
        sequence: wanted.sequence,
        ..DeadLetterQuery::default()
    };
    let (dead_letters, next) = some::first(most, caller.broker.dead_letters(wanted.workspace_id).list(query)).await?;
    Ok(JsonAnswer(DeadLetterList { dead_letters, truncated: next.is_some() }))
}

/// Puts dead letters back into an inbox, as if they had never failed. Each moves in one step: a call that breaks is repeated.
#[utoipa::path(post, path = "/dead-letters/redrive", operation_id = "redrive_dead_letters", tag = "dead-letters",
    request_body = Redrive, responses(
    (status = 200, description = "How many were put back", body = Redriven),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn redrive(
    Extension(caller): Extension<Caller>,
    Json(wanted): Json<Redrive>,
) -> Result<JsonAnswer<Redriven>, Problem> {
    let query = DeadLetterQuery {
        sandbox_id: wanted.sandbox_id,
        reason: wanted.reason.map(Reason::wire),
        from_sandbox_id: wanted.from_sandbox_id,
        correlation_id: wanted.correlation_id,
        message_type: wanted.kind.map(Kind::wire),
        sequence: wanted.sequence,
        ..DeadLetterQuery::default()
    };
    let options = RedriveOptions { to_sandbox_id: wanted.to_sandbox_id, max_per_second: wanted.max_per_second };
    let mut progress = pin!(caller.broker.dead_letters(wanted.workspace_id).redrive(query, options));
    let mut done = Redriven { redriven: 0, skipped: 0 };
    while let Some(so_far) = progress.try_next().await.map_err(Failure::from)? {
        done = Redriven { redriven: so_far.redriven, skipped: so_far.skipped };
    }
    Ok(JsonAnswer(done))
}
