//! Sandboxes come, say that they are alive, and go.

use bytes::Bytes;
use tandem_storage::WriteBatch;

use super::{
    Effect,
    inbox::Inbox,
    keys::{self, INBOXES, RECORDS, RUNS},
    state::{KnownSandbox, Sandbox, State, StateError},
};
use crate::{
    command::{Heartbeat, RegisterSandbox, Registered, UnregisterSandbox, Unregistered},
    rejection::{Reason, Rejection},
};

pub(super) fn register(
    state: &mut State,
    verb: &RegisterSandbox,
    time_ms: u64,
    writes: &mut WriteBatch,
) -> Result<Result<Registered, Rejection>, StateError> {
    let Some(mut workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let known = state.sandbox(workspace.number, &verb.sandbox)?;
    let created = known.is_none();
    let known = match known {
        Some(known) => known,
        None => {
            if workspace.sandboxes >= verb.max_sandboxes {
                let text = format!(
                    "workspace {:?} has {} sandboxes, as many as it may; unregister one",
                    verb.workspace, verb.max_sandboxes
                );
                return Ok(Err(Rejection::new(Reason::TooManySandboxes, text)));
            }
            let number = workspace.next_sandbox;
            workspace.next_sandbox += 1;
            workspace.sandboxes += 1;
            let inbox = Inbox::new(workspace.last_sequence, workspace.broadcasts);
            state.put_inbox(workspace.number, number, inbox);
            KnownSandbox { number, create_time_ms: time_ms }
        }
    };
    let KnownSandbox { number, create_time_ms } = known;
    let sandbox = Sandbox { number, create_time_ms, description: verb.description.clone() };
    writes.put(RECORDS, keys::sandbox(workspace.number, &verb.sandbox), sandbox.encode());
    put_heartbeat(workspace.number, number, time_ms, writes);
    state.remember_sandbox(workspace.number, &verb.sandbox, Some(known));
    state.put_workspace(&verb.workspace, workspace);
    Ok(Ok(Registered { created }))
}

pub(super) fn heartbeat(
    state: &mut State,
    verb: &Heartbeat,
    time_ms: u64,
    writes: &mut WriteBatch,
) -> Result<Result<(), Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let Some(sandbox) = state.sandbox_number(workspace, &verb.sandbox)? else {
        return Ok(Err(Rejection::unknown_sandbox(&verb.sandbox)));
    };
    put_heartbeat(workspace, sandbox, time_ms, writes);
    Ok(Ok(()))
}

pub(super) fn unregister(
    state: &mut State,
    verb: &UnregisterSandbox,
    writes: &mut WriteBatch,
    effects: &mut Vec<Effect>,
) -> Result<Result<Unregistered, Rejection>, StateError> {
    let Some(mut workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let Some(sandbox) = state.sandbox_number(workspace.number, &verb.sandbox)? else {
        return Ok(Err(Rejection::unknown_sandbox(&verb.sandbox)));
    };
    let abandoned = match state.inbox(workspace.number, sandbox)? {
        Some(inbox) => inbox.pending(workspace.broadcasts),
        None => 0,
    };
    state.remove_inbox(workspace.number, sandbox);
    let (from, to) = keys::runs_of(workspace.number, sandbox);
    writes.delete_range(RUNS, from, to);
    writes.delete(INBOXES, keys::inbox(workspace.number, sandbox));
    writes.delete(RECORDS, keys::sandbox(workspace.number, &verb.sandbox));
    writes.delete(RECORDS, keys::heartbeat(workspace.number, sandbox));
    effects.push(Effect::SandboxGone { workspace: workspace.number, sandbox });
    state.remember_sandbox(workspace.number, &verb.sandbox, None);
    workspace.sandboxes -= 1;
    state.put_workspace(&verb.workspace, workspace);
    Ok(Ok(Unregistered { abandoned }))
}

fn put_heartbeat(workspace: u32, sandbox: u32, time_ms: u64, writes: &mut WriteBatch) {
    let time = Bytes::copy_from_slice(&time_ms.to_be_bytes());
    writes.put(RECORDS, keys::heartbeat(workspace, sandbox), time);
}
