//! `tandem approval`.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use serde_json::{Value, json};
use tandem_client::{Approval, ApprovalState, Decision, Message};

use crate::{
    args::{ApprovalArgs, ApprovalCommand, DecisionArgs},
    exit::Failure,
    output::{MORE, message, time, word},
    run::Context,
};

pub(crate) async fn run(context: &Context, args: ApprovalArgs) -> Result<(), Failure> {
    match args.command {
        ApprovalCommand::List { state, limit } => list(context, state.into(), limit).await,
        ApprovalCommand::Show { id } => {
            let (approval, message) = context.client()?.approvals(context.workspace.as_str()).get(id).await?;
            show(context, &approval, message.as_ref())
        }
        ApprovalCommand::Approve(args) => decide(context, args, Decision::Approve).await,
        ApprovalCommand::Deny(args) => decide(context, args, Decision::Deny).await,
    }
}

async fn list(context: &Context, state: Option<ApprovalState>, limit: usize) -> Result<(), Failure> {
    let mut found = pin!(context.client()?.approvals(context.workspace.as_str()).list(state));
    let mut rows = Vec::new();
    while let Some(approval) = found.try_next().await? {
        if limit > 0 && rows.len() == limit {
            context.output.note(MORE);
            break;
        }
        rows.push((json(&approval), row(&approval)));
    }
    context.output.rows(&["APPROVAL", "STATE", "FROM", "TO", "TYPE", "BYTES", "APPROVED", "SINCE", "UNTIL"], &rows)
}

fn show(context: &Context, approval: &Approval, held: Option<&Message>) -> Result<(), Failure> {
    let told = || {
        let mut told = json(approval);
        told["message"] = held.map(message::json).unwrap_or_default();
        told
    };
    context.output.result(told, || {
        let mut lines = vec![line(approval)];
        let said = |approved| if approved { "approved" } else { "denied" };
        lines.extend(approval.votes.iter().map(|vote| {
            let comment = if vote.comment.is_empty() { String::new() } else { format!(": {}", vote.comment) };
            format!("{} {} by {}{comment}", time(vote.time), said(vote.approved), vote.by)
        }));
        if !approval.text.is_empty() {
            lines.push(approval.text.clone());
        }
        lines.extend(held.map(message::text));
        lines.join("\n")
    })
}

async fn decide(context: &Context, args: DecisionArgs, decision: Decision) -> Result<(), Failure> {
    let approvals = context.client()?.approvals(context.workspace.as_str());
    let approval = approvals.decide(args.id, decision, args.comment).await?;
    context.output.result(|| json(&approval), || line(&approval))
}

fn state(approval: &Approval) -> String {
    word(approval.state().as_str_name(), "APPROVAL_STATE_")
}

fn approvals(approval: &Approval) -> usize {
    approval.votes.iter().filter(|vote| vote.approved).count()
}

/// What has become of it, in one line.
fn line(approval: &Approval) -> String {
    let id = approval.approval_id;
    match approval.state() {
        ApprovalState::Waiting => {
            let (seen, needed) = (approvals(approval), approval.approvals_required);
            format!("approval {id} waits until {}: {seen} of {needed} have approved", time(approval.expire_time))
        }
        ApprovalState::Approved => format!("approval {id} approved: published #{}", approval.sequence),
        _ => format!("approval {id} {}", state(approval)),
    }
}

fn json(approval: &Approval) -> Value {
    let votes: Vec<Value> = approval
        .votes
        .iter()
        .map(|vote| {
            json!({ "by": vote.by, "time": time(vote.time), "approved": vote.approved, "comment": vote.comment })
        })
        .collect();
    json!({
        "approval_id": approval.approval_id, "state": state(approval), "from_sandbox_id": approval.from_sandbox_id,
        "to": approval.to, "type": kind(approval), "size_bytes": approval.size_bytes,
        "create_time": time(approval.create_time), "expire_time": time(approval.expire_time),
        "end_time": time(approval.end_time), "policy_revision": approval.policy_revision,
        "policy_rule": approval.policy_rule, "approvals_required": approval.approvals_required, "votes": votes,
        "text": approval.text, "sequence": approval.sequence,
    })
}

fn kind(approval: &Approval) -> String {
    word(approval.r#type().as_str_name(), "MESSAGE_TYPE_")
}

fn row(approval: &Approval) -> Vec<String> {
    vec![
        approval.approval_id.to_string(),
        state(approval),
        approval.from_sandbox_id.clone(),
        approval.to.clone(),
        kind(approval),
        approval.size_bytes.to_string(),
        format!("{}/{}", approvals(approval), approval.approvals_required),
        time(approval.create_time),
        time(approval.expire_time),
    ]
}
