//! Who takes part in a workspace, as the broker sees it, and ending that a sandbox does.

use futures_util::TryStreamExt as _;
use tandem_client::Error as BrokerError;

use super::{alert::AlertEvent, alerts::Alerts, caller::Caller};
use crate::error::{Failure, Reason};

/// Keys, and tokens, that one call revokes; who has more calls again.
const MAX_REVOKED: usize = 1_000;
const MAX_REASON_CHARS: usize = 500;

/// What connects a sandbox with the broker, by the time it was ended.
#[derive(Debug, Default)]
pub(crate) struct Disconnected {
    /// Ids.
    pub(crate) keys: Vec<String>,
    /// Ids.
    pub(crate) tokens: Vec<String>,
    /// Messages that were given up with its inbox; None: it keeps its inbox.
    pub(crate) abandoned: Option<u64>,
}

/// Revokes what is bound to a sandbox, so that its streams end within a second, and unregisters it if that is wanted. It is done as the
/// caller, step by step: one that broke off is asked again, and goes on.
///
/// # Errors
/// What the broker says, such as `UNKNOWN_SANDBOX` where there is neither a sandbox nor anything that is bound to one of this name.
pub(crate) async fn disconnect(
    caller: &Caller,
    alerts: &Alerts,
    (workspace, sandbox): (&str, &str),
    reason: &str,
    unregister: bool,
) -> Result<Disconnected, Failure> {
    if reason.chars().count() > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
        let text = format!("it has more than {MAX_REASON_CHARS} characters, or a control character");
        return Err(Failure::field("reason", text));
    }
    caller.in_workspace(workspace)?;
    let there = caller.broker.registry(workspace).get(sandbox).await;
    match &there {
        Err(error) if error.reason() != "UNKNOWN_SANDBOX" => return Err(Failure::of_question(error.clone())),
        _ => {}
    }
    let mut done = Disconnected::default();
    // Keys first: with one of them a token may be made.
    let bound = |of: (&str, &str)| of == (workspace, sandbox);
    let keys: Vec<_> = caller.broker.keys().list().try_collect().await.map_err(Failure::of_question)?;
    let keys = keys.into_iter().filter(|key| bound((&key.workspace_id, &key.sandbox_id)) && key.revoke_time.is_none());
    for key in keys.take(MAX_REVOKED) {
        caller.broker.keys().revoke(key.key_id.as_str()).await?;
        done.keys.push(key.key_id);
    }
    let tokens: Vec<_> = caller.broker.tokens().list().try_collect().await.map_err(Failure::of_question)?;
    let tokens = tokens
        .into_iter()
        .filter(|token| bound((&token.workspace_id, &token.sandbox_id)) && token.revoke_time.is_none());
    for token in tokens.take(MAX_REVOKED) {
        let (id, issuer) = (token.token_id.as_str(), token.issuer.as_str());
        caller.broker.tokens().revoke(id, issuer, token.end_time).await?;
        done.tokens.push(token.token_id);
    }
    if let (Err(error), true) = (&there, done.keys.is_empty() && done.tokens.is_empty()) {
        return Err(Failure::of_question(error.clone()));
    }
    if unregister && there.is_ok() {
        let abandoned = caller.broker.registry(workspace).unregister(sandbox).await;
        done.abandoned = match abandoned {
            // Somebody else was quicker.
            Err(error) if error.reason() == "UNKNOWN_SANDBOX" => Some(0),
            abandoned => Some(abandoned?),
        };
    }
    tracing::info!(
        workspace,
        sandbox,
        by = caller.subject(),
        reason,
        keys = done.keys.len(),
        tokens = done.tokens.len(),
        "disconnected"
    );
    // It is done; a rule that does not hear of it is no reason to say that it is not.
    if let Err(why) = alerts.happened(workspace, sandbox, AlertEvent::Disconnected, reason).await {
        tracing::warn!(workspace, sandbox, %why, "no rule hears of a disconnection");
    }
    Ok(done)
}

/// Whether the broker knows the workspace, and the caller may see it.
///
/// # Errors
/// `UNKNOWN_WORKSPACE`, `OTHER_WORKSPACE`, `BROKER_UNAVAILABLE`.
pub(crate) async fn workspace(caller: &Caller, workspace: &str) -> Result<tandem_client::Workspace, Failure> {
    caller.in_workspace(workspace)?;
    let found: Result<_, BrokerError> = caller.broker.workspaces().get(workspace).await;
    match found {
        Err(error) if error.reason() == "UNKNOWN_WORKSPACE" => {
            Err(Failure::about(Reason::UnknownWorkspace, "workspace_id", error.to_string()))
        }
        found => found.map_err(Failure::of_question),
    }
}
