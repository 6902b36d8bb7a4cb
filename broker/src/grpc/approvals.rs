//! Messages that wait for approval: what there is, and decisions.

use bytes::Bytes;
use prost::Message as _;
use tandem_proto::{
    approval::v1::{
        Approval, ApprovalState as StateOnWire, ApprovalVote, ApproveMessageRequest, ApproveMessageResponse,
        DenyMessageRequest, DenyMessageResponse, GetApprovalRequest, GetApprovalResponse, ListApprovalsRequest,
        ListApprovalsResponse, approval_service_server::ApprovalService,
    },
    messaging::v1::Message,
};
use tonic::{Request, Response, Status};

use super::{Edge, time::timestamp};
use crate::{
    auth::{Caller, Role},
    command::{Decide, Outcome, Verb},
    error::RequestError,
    field,
    machine::approval::{self, ApprovalState},
    rejection::{Reason, Rejection},
    shard::Shard,
};

/// Bytes of a comment at the most.
const MAX_COMMENT_BYTES: usize = 4 << 10;

#[tonic::async_trait]
impl ApprovalService for Edge {
    async fn list_approvals(
        &self,
        request: Request<ListApprovalsRequest>,
    ) -> Result<Response<ListApprovalsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = caller.workspace(&request.workspace_id)?;
        let state = state(request.state)?;
        let limit = field::page_size(request.page_size)?;
        let through = if request.page_token.is_empty() { u64::MAX } else { page_token(&request.page_token)? };
        let shard = self.shards.of(name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(name)?.number;
        let page = shard.reader.approvals(workspace, state, through, limit)?;
        Ok(Response::new(ListApprovalsResponse {
            approvals: page.found.into_iter().map(|(number, approval)| on_wire(number, approval)).collect(),
            next_page_token: page.next.map(|number| format!("a{number}")).unwrap_or_default(),
        }))
    }

    async fn get_approval(
        &self,
        request: Request<GetApprovalRequest>,
    ) -> Result<Response<GetApprovalResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let name = caller.workspace(&request.workspace_id)?;
        let number = number(request.approval_id)?;
        let shard = self.shards.of(name);
        shard.group.read_barrier().await.map_err(RequestError::from)?;
        let workspace = shard.reader.workspace(name)?.number;
        let found = shard.reader.approval(workspace, number)?;
        // A sandbox that has no other role does not even learn of what others have sent.
        let identity = caller.identity();
        let reads_all = identity.roles.iter().any(|role| role != Role::Sandbox);
        let may_see = |from: &str| reads_all || identity.sandbox.as_deref() == Some(from);
        let Some(found) = found.filter(|found| may_see(&found.from)) else {
            return Err(Rejection::unknown_approval(number).into());
        };
        let message = match shard.reader.approval_message(workspace, number)? {
            Some(held) => {
                let body = shard.delivery.sealer().open(name, held.record(0).body)?;
                let read = Message::decode(body.as_ref());
                Some(read.map_err(|error| RequestError::internal(format!("approval {number}: {error}")))?)
            }
            None => None,
        };
        Ok(Response::new(GetApprovalResponse { approval: Some(on_wire(number, found)), message }))
    }

    async fn approve_message(
        &self,
        request: Request<ApproveMessageRequest>,
    ) -> Result<Response<ApproveMessageResponse>, Status> {
        let caller = Caller::of(&request)?;
        let ApproveMessageRequest { workspace_id, approval_id, comment } = request.into_inner();
        let approval = self.decide(&caller, &workspace_id, approval_id, true, comment).await?;
        Ok(Response::new(ApproveMessageResponse { approval: Some(approval) }))
    }

    async fn deny_message(
        &self,
        request: Request<DenyMessageRequest>,
    ) -> Result<Response<DenyMessageResponse>, Status> {
        let caller = Caller::of(&request)?;
        let DenyMessageRequest { workspace_id, approval_id, comment } = request.into_inner();
        let approval = self.decide(&caller, &workspace_id, approval_id, false, comment).await?;
        Ok(Response::new(DenyMessageResponse { approval: Some(approval) }))
    }
}

impl Edge {
    async fn decide(
        &self,
        caller: &Caller,
        workspace: &str,
        approval_id: u64,
        approve: bool,
        comment: String,
    ) -> Result<Approval, RequestError> {
        let name = caller.workspace(workspace)?;
        let number = number(approval_id)?;
        if comment.len() > MAX_COMMENT_BYTES {
            let text = format!("comment has {} bytes; at most {MAX_COMMENT_BYTES} are kept", comment.len());
            return Err(Rejection::field("comment", text).into());
        }
        let shard = self.shards.of(name);
        let workspace = shard.reader.workspace(name)?.number;
        // The message goes through the log once more when it is let go.
        let bytes = shard.reader.approval(workspace, number)?.map_or(0, |approval| approval.bytes as usize);
        let verb = Decide {
            workspace: name.to_owned(),
            number,
            approve,
            comment: Bytes::from(comment),
            by: caller.identity().subject.clone(),
            sandbox: caller.identity().sandbox.clone().unwrap_or_default(),
        };
        match shard.batcher.call(caller.asks(Verb::Decide(verb)), bytes).await? {
            Outcome::Decide(result) => drop(result?),
            other => return Err(RequestError::internal(format!("a decision came to {other:?}"))),
        }
        read(shard, workspace, number)
    }
}

fn read(shard: &Shard, workspace: u32, number: u64) -> Result<Approval, RequestError> {
    let found = shard.reader.approval(workspace, number)?.ok_or_else(|| Rejection::unknown_approval(number))?;
    Ok(on_wire(number, found))
}

fn number(approval_id: u64) -> Result<u64, Rejection> {
    match approval_id {
        0 => Err(Rejection::field("approval_id", "approval_id is 0; they begin with 1")),
        number => Ok(number),
    }
}

fn page_token(token: &str) -> Result<u64, Rejection> {
    token.strip_prefix('a').and_then(|number| number.parse().ok()).ok_or_else(|| Rejection {
        reason: Reason::InvalidPageToken,
        text: "page_token is not from a listing of approvals".into(),
        field: "page_token".into(),
        retry_ms: 0,
    })
}

fn state(state: i32) -> Result<Option<ApprovalState>, Rejection> {
    Ok(Some(match StateOnWire::try_from(state) {
        Ok(StateOnWire::Unspecified) => return Ok(None),
        Ok(StateOnWire::Waiting) => ApprovalState::Waiting,
        Ok(StateOnWire::Approved) => ApprovalState::Approved,
        Ok(StateOnWire::Denied) => ApprovalState::Denied,
        Ok(StateOnWire::Expired) => ApprovalState::Expired,
        Ok(StateOnWire::Refused) => ApprovalState::Refused,
        Err(_) => return Err(Rejection::field("state", format!("state {state} does not exist; it must be 0 to 5"))),
    }))
}

fn on_wire(approval_id: u64, approval: approval::Approval) -> Approval {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let vote = |vote: approval::Vote| ApprovalVote {
        comment: text(&vote.comment),
        by: vote.by,
        time: Some(timestamp(vote.time_ms)),
        approved: vote.approve,
    };
    Approval {
        approval_id,
        state: approval.state as i32,
        create_time: Some(timestamp(approval.create_ms)),
        expire_time: Some(timestamp(approval.deadline_ms)),
        end_time: (approval.end_ms > 0).then(|| timestamp(approval.end_ms)),
        from_sandbox_id: approval.from,
        to: approval.to,
        r#type: i32::from(approval.message_type),
        size_bytes: u64::from(approval.bytes),
        policy_revision: approval.revision,
        policy_rule: approval.rule,
        approvals_required: approval.needed,
        votes: approval.votes.into_iter().map(vote).collect(),
        text: text(&approval.text),
        sequence: approval.sequence,
    }
}
