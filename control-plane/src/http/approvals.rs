//! `/approvals`: messages that wait for a human.

use axum::{Extension, Json as JsonAnswer};
use serde::{Deserialize, Serialize};
use tandem_client::{Approval, ApprovalState, Decision};
use utoipa::{IntoParams, ToSchema};

use super::{
    body::{Json, Path, Query},
    message::{Kind, ShownMessage},
    messages::InWorkspace,
    problem::{Problem, ProblemDocument},
    some, time,
};
use crate::{error::Failure, service::caller::Caller};

const DEFAULT_MOST: usize = 100;
const MAX_MOST: usize = 1_000;

/// What becomes of a message that somebody should see.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    Waiting,
    Approved,
    Denied,
    /// Nobody decided in time.
    Expired,
    /// Approved, and not let through all the same.
    Refused,
}

impl State {
    fn of(state: ApprovalState) -> Option<Self> {
        match state {
            ApprovalState::Waiting => Some(Self::Waiting),
            ApprovalState::Approved => Some(Self::Approved),
            ApprovalState::Denied => Some(Self::Denied),
            ApprovalState::Expired => Some(Self::Expired),
            ApprovalState::Refused => Some(Self::Refused),
            ApprovalState::Unspecified => None,
        }
    }

    fn wire(self) -> ApprovalState {
        match self {
            Self::Waiting => ApprovalState::Waiting,
            Self::Approved => ApprovalState::Approved,
            Self::Denied => ApprovalState::Denied,
            Self::Expired => ApprovalState::Expired,
            Self::Refused => ApprovalState::Refused,
        }
    }
}

/// What somebody has said.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Vote {
    by: String,
    approved: bool,
    comment: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    time: Option<String>,
}

/// A message that a policy holds, or held.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ShownApproval {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<State>,
    from_sandbox_id: String,
    /// As a policy writes it.
    to: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<Kind>,
    size_bytes: u64,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    create_time: Option<String>,
    /// Until when it waits. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    expire_time: Option<String>,
    /// When it ended. RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    end_time: Option<String>,
    /// The policy that holds it.
    policy_revision: u64,
    /// The rule, from 1.
    policy_rule: u32,
    /// How many must approve.
    approvals_required: u32,
    votes: Vec<Vote>,
    /// Why it ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    text: String,
    /// In the log, once it is approved.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    /// What waits; left out in lists, and once it is in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<ShownMessage>,
}

impl From<Approval> for ShownApproval {
    fn from(approval: Approval) -> Self {
        let (state, kind) = (State::of(approval.state()), Kind::of(approval.r#type()));
        let votes = approval.votes.into_iter().map(|vote| Vote {
            by: vote.by,
            approved: vote.approved,
            comment: vote.comment,
            time: time::of(vote.time.as_ref()),
        });
        Self {
            id: approval.approval_id,
            state,
            from_sandbox_id: approval.from_sandbox_id,
            to: approval.to,
            kind,
            size_bytes: approval.size_bytes,
            create_time: time::of(approval.create_time.as_ref()),
            expire_time: time::of(approval.expire_time.as_ref()),
            end_time: time::of(approval.end_time.as_ref()),
            policy_revision: approval.policy_revision,
            policy_rule: approval.policy_rule,
            approvals_required: approval.approvals_required,
            votes: votes.collect(),
            text: approval.text,
            sequence: Some(approval.sequence).filter(|sequence| *sequence > 0),
            message: None,
        }
    }
}

/// Some of them, the newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalList {
    approvals: Vec<ShownApproval>,
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
    /// In this state.
    state: Option<State>,
    /// How many at most: 1 to 1,000.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
}

/// What somebody says to it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Comment {
    /// For the sender and whoever asks later.
    #[serde(default)]
    #[schema(max_length = 4096)]
    comment: String,
}

/// Lists what waits for approval, or did, the newest first.
#[utoipa::path(get, path = "/approvals", operation_id = "list_approvals", tag = "approvals", params(Wanted), responses(
    (status = 200, description = "Those that there are", body = ApprovalList),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn list(
    Extension(caller): Extension<Caller>,
    Query(wanted): Query<Wanted>,
) -> Result<JsonAnswer<ApprovalList>, Problem> {
    let most = some::most(wanted.limit, DEFAULT_MOST, MAX_MOST)?;
    let found = caller.broker.approvals(wanted.workspace_id).list(wanted.state.map(State::wire));
    let (approvals, next) = some::first(most, found).await?;
    Ok(JsonAnswer(ApprovalList { approvals, truncated: next.is_some() }))
}

/// Returns one, with its message while that waits.
#[utoipa::path(get, path = "/approvals/{id}", operation_id = "get_approval", tag = "approvals",
    params(("id" = u64, Path, description = "Its number"), InWorkspace), responses(
    (status = 200, description = "It", body = ShownApproval),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn get(
    Extension(caller): Extension<Caller>,
    Path(id): Path<u64>,
    Query(place): Query<InWorkspace>,
) -> Result<JsonAnswer<ShownApproval>, Problem> {
    let (approval, message) =
        caller.broker.approvals(place.workspace_id).get(id).await.map_err(Failure::of_question)?;
    Ok(JsonAnswer(ShownApproval { message: message.map(Into::into), ..approval.into() }))
}

async fn decided(
    caller: &Caller,
    (workspace, id): (String, u64),
    decision: Decision,
    comment: String,
) -> Result<JsonAnswer<ShownApproval>, Problem> {
    let approvals = caller.broker.approvals(workspace);
    Ok(JsonAnswer(approvals.decide(id, decision, comment).await.map_err(Failure::from)?.into()))
}

/// Lets a message go, as far as the caller has to say.
#[utoipa::path(post, path = "/approvals/{id}/approve", operation_id = "approve_message", tag = "approvals",
    params(("id" = u64, Path, description = "Its number"), InWorkspace), request_body = Comment, responses(
    (status = 200, description = "As it is now", body = ShownApproval),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn approve(
    Extension(caller): Extension<Caller>,
    Path(id): Path<u64>,
    Query(place): Query<InWorkspace>,
    Json(said): Json<Comment>,
) -> Result<JsonAnswer<ShownApproval>, Problem> {
    decided(&caller, (place.workspace_id, id), Decision::Approve, said.comment).await
}

/// Does not let a message go.
#[utoipa::path(post, path = "/approvals/{id}/deny", operation_id = "deny_message", tag = "approvals",
    params(("id" = u64, Path, description = "Its number"), InWorkspace), request_body = Comment, responses(
    (status = 200, description = "As it is now", body = ShownApproval),
    (status = "default", description = "Why not", body = ProblemDocument, content_type = "application/problem+json"),
))]
pub(super) async fn deny(
    Extension(caller): Extension<Caller>,
    Path(id): Path<u64>,
    Query(place): Query<InWorkspace>,
    Json(said): Json<Comment>,
) -> Result<JsonAnswer<ShownApproval>, Problem> {
    decided(&caller, (place.workspace_id, id), Decision::Deny, said.comment).await
}
