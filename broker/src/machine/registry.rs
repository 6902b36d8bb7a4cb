//! Sandboxes come, say that they are alive, and go.

use bytes::Bytes;

use super::{
    Effect,
    events::{self, EventKind},
    inbox::Inbox,
    keys::{self, DEFERRED, DueKind, READY, RECORDS, RUNS},
    state::{KnownSandbox, Sandbox, State, StateError},
    topic, wanted,
};
use crate::{
    command::{Alive, Heartbeat, RegisterSandbox, Registered, UnregisterSandbox, Unregistered},
    encoding::{Field as _, encoded},
    rejection::{Reason, Rejection},
};

encoded! {
    /// When a sandbox was heard last.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Heard {
        pub(crate) time_ms: u64,
        /// Its going offline has not been told.
        pub(crate) online: bool,
        /// Without a sign for this long it is offline, in milliseconds.
        pub(crate) timeout_ms: u64,
    }
}

pub(super) fn register(state: &mut State, verb: &RegisterSandbox) -> Result<Result<Registered, Rejection>, StateError> {
    let Some(mut workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let known = state.sandbox(workspace.number, &verb.sandbox)?;
    let created = known.is_none();
    let known = match known {
        Some(known) => {
            forget_capabilities(state, workspace.number, &verb.sandbox, known.number)?;
            known
        }
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
            state.put(RECORDS, keys::sandbox_by_number(workspace.number, number), verb.sandbox.to_bytes());
            KnownSandbox { number, create_time_ms: state.now_ms() }
        }
    };
    let KnownSandbox { number, create_time_ms } = known;
    if let Some(inbox) = state.inbox_mut(workspace.number, number)? {
        inbox.settings = verb.settings;
    }
    let sandbox = Sandbox {
        number,
        create_time_ms,
        capabilities: verb.capabilities.clone(),
        description: verb.description.clone(),
    };
    state.put(RECORDS, keys::sandbox(workspace.number, &verb.sandbox), sandbox.encode());
    for capability in &verb.capabilities {
        state.put(RECORDS, keys::capable(workspace.number, capability, number), verb.sandbox.to_bytes());
    }
    state.remember_sandbox(workspace.number, &verb.sandbox, Some(known));
    let workspace_number = workspace.number;
    state.put_workspace(&verb.workspace, workspace);
    if created {
        events::raise(state, workspace_number, EventKind::SandboxRegistered, &verb.sandbox, (0, 0), "")?;
    }
    hear(state, workspace_number, number, verb.heartbeat_timeout_ms)?;
    wanted::come(state, workspace_number, number)?;
    Ok(Ok(Registered { created }))
}

pub(super) fn heartbeat(state: &mut State, verb: &Heartbeat) -> Result<Result<(), Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let Some(sandbox) = state.sandbox_number(workspace, &verb.sandbox)? else {
        return Ok(Err(Rejection::unknown_sandbox(&verb.sandbox)));
    };
    hear(state, workspace, sandbox, 0)?;
    Ok(Ok(()))
}

/// Sandboxes with open subscriptions are alive.
pub(super) fn alive(state: &mut State, verb: &Alive) -> Result<Result<(), Rejection>, StateError> {
    for (workspace, sandbox) in &verb.sandboxes {
        if state.inbox(*workspace, *sandbox)?.is_some() {
            hear(state, *workspace, *sandbox, 0)?;
        }
    }
    Ok(Ok(()))
}

/// A sandbox was heard. One entry watches over it as long as it is online, however often it is heard.
fn hear(state: &mut State, workspace: u32, sandbox: u32, timeout_ms: u64) -> Result<(), StateError> {
    let key = keys::heartbeat(workspace, sandbox);
    let known: Option<Heard> = state.read(RECORDS, &key, "heartbeat")?;
    let time_ms = state.now_ms();
    let timeout_ms = if timeout_ms == 0 { known.map_or(30_000, |known| known.timeout_ms) } else { timeout_ms };
    state.put(RECORDS, key, Heard { time_ms, online: true, timeout_ms }.to_bytes());
    match known {
        Some(known) if known.online => return Ok(()),
        Some(_) => {
            let name = state.sandbox_name(workspace, sandbox)?;
            events::raise(state, workspace, EventKind::SandboxOnline, &name, (0, 0), "")?;
            wanted::come(state, workspace, sandbox)?;
        }
        None => {}
    }
    state.put_due(time_ms + timeout_ms, workspace, DueKind::Liveness { sandbox }, Bytes::new())
}

/// It may be that a sandbox has not been heard for too long.
pub(super) fn check_alive(state: &mut State, workspace: u32, sandbox: u32, timeout_ms: u64) -> Result<(), StateError> {
    let key = keys::heartbeat(workspace, sandbox);
    let Some(heard) = state.read::<Heard>(RECORDS, &key, "heartbeat")? else { return Ok(()) };
    let until_ms = heard.time_ms.saturating_add(timeout_ms);
    if until_ms > state.now_ms() {
        return state.put_due(until_ms, workspace, DueKind::Liveness { sandbox }, Bytes::new());
    }
    state.put(RECORDS, key, Heard { online: false, ..heard }.to_bytes());
    let name = state.sandbox_name(workspace, sandbox)?;
    let text = format!("not heard for {} ms", state.now_ms() - heard.time_ms);
    events::raise(state, workspace, EventKind::SandboxOffline, &name, (0, 0), text)
}

pub(super) fn unregister(
    state: &mut State,
    verb: &UnregisterSandbox,
) -> Result<Result<Unregistered, Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let number = workspace.number;
    let Some(sandbox) = state.sandbox_number(number, &verb.sandbox)? else {
        return Ok(Err(Rejection::unknown_sandbox(&verb.sandbox)));
    };
    let abandoned = match state.inbox(number, sandbox)? {
        Some(inbox) => inbox.pending(workspace.broadcasts),
        None => 0,
    };
    let abandoned = abandoned + topic::forget(state, number, sandbox)?;
    forget_capabilities(state, number, &verb.sandbox, sandbox)?;
    state.remove_inbox(number, sandbox);
    for space in [READY, DEFERRED] {
        state.delete_range(space, keys::parked_of(number, sandbox));
    }
    let (from, to) = keys::runs_of(number, sandbox);
    state.unread().delete_range(RUNS, from, to);
    state.delete_range(RECORDS, keys::keyed_of(number, sandbox));
    state.delete_range(RECORDS, keys::requests_of(number, sandbox));
    for key in [
        keys::sandbox(number, &verb.sandbox),
        keys::heartbeat(number, sandbox),
        keys::sandbox_by_number(number, sandbox),
    ] {
        state.delete(RECORDS, key);
    }
    state.effect(Effect::SandboxGone { workspace: number, sandbox });
    state.remember_sandbox(number, &verb.sandbox, None);
    let mut workspace = workspace;
    workspace.sandboxes -= 1;
    state.put_workspace(&verb.workspace, workspace);
    events::raise(state, number, EventKind::SandboxGone, &verb.sandbox, (0, abandoned), "")?;
    Ok(Ok(Unregistered { abandoned }))
}

fn forget_capabilities(state: &mut State, workspace: u32, name: &str, number: u32) -> Result<(), StateError> {
    let record = state.get(RECORDS, &keys::sandbox(workspace, name))?;
    for capability in record.map(Sandbox::decode).transpose()?.map(|known| known.capabilities).unwrap_or_default() {
        state.delete(RECORDS, keys::capable(workspace, &capability, number));
    }
    Ok(())
}
