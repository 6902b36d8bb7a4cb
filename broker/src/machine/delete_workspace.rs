//! Removes a workspace with all that is in it: whole ranges, never key by key.

use tandem_storage::WriteBatch;

use super::{
    Effect,
    keys::{self, IDS, INBOXES, MESSAGES, RECORDS, RUNS},
    state::{State, StateError},
};
use crate::{command::DeleteWorkspace, rejection::Rejection};

pub(super) fn apply(
    state: &mut State,
    verb: &DeleteWorkspace,
    writes: &mut WriteBatch,
    effects: &mut Vec<Effect>,
) -> Result<Result<(), Rejection>, StateError> {
    let Some(number) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let (from, to) = keys::of_workspace(number);
    for space in [MESSAGES, RUNS, INBOXES, IDS] {
        writes.delete_range(space, from.clone(), to.clone());
    }
    for (from, to) in [keys::sandboxes(number), keys::heartbeats(number)] {
        writes.delete_range(RECORDS, from, to);
    }
    writes.delete(RECORDS, keys::workspace(&verb.workspace));
    state.remove_workspace(&verb.workspace, number);
    effects.push(Effect::WorkspaceGone { workspace: number });
    Ok(Ok(()))
}
