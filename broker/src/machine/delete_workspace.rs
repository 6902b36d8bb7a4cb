//! Removes a workspace with all that is in it: whole ranges, never key by key.

use super::{
    Effect,
    keys::{self, BY_WORKSPACE, RECORDS},
    state::{State, StateError},
};
use crate::{command::DeleteWorkspace, rejection::Rejection};

pub(super) fn apply(state: &mut State, verb: &DeleteWorkspace) -> Result<Result<(), Rejection>, StateError> {
    let Some(number) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    for space in BY_WORKSPACE {
        state.delete_range(space, keys::of_workspace(number));
    }
    for range in keys::records_of(number) {
        state.delete_range(RECORDS, range);
    }
    state.delete(RECORDS, keys::workspace(&verb.workspace));
    // What is due is passed over when its time comes: numbers of workspaces are never given twice.
    let mut shard = state.shard()?;
    shard.workspaces -= 1;
    state.put_shard(shard);
    state.remove_workspace(&verb.workspace, number);
    state.effect(Effect::WorkspaceGone { workspace: number });
    Ok(Ok(()))
}
