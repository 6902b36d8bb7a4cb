//! Takes acknowledged messages out of an inbox.

use tandem_storage::WriteBatch;

use super::{
    keys::{self, RUNS},
    state::{State, StateError},
};
use crate::{
    command::{Ack, Acked, Lane, Source},
    rejection::{Reason, Rejection},
};

pub(super) fn apply(
    state: &mut State,
    verb: &Ack,
    writes: &mut WriteBatch,
) -> Result<Result<Acked, Rejection>, StateError> {
    let Some(inbox) = state.inbox_mut(verb.workspace, verb.sandbox)? else {
        let text = "the sandbox is not registered any more; its inbox is gone";
        return Ok(Err(Rejection::new(Reason::LeaseLost, text)));
    };
    let mut count = 0;
    for range in &verb.ranges {
        if !inbox.cursor_mut(range.lane).insert(range.after, range.through) {
            continue;
        }
        let taken = u64::from(range.count);
        count += taken;
        match range.lane.source {
            Source::Direct => {
                let waiting = &mut inbox.waiting[usize::from(range.lane.priority)];
                *waiting = waiting.saturating_sub(taken);
            }
            Source::Broadcast => inbox.broadcasts_done += taken,
        }
    }
    for run in &verb.finished {
        let lane = Lane { source: Source::Direct, priority: run.priority };
        if inbox.cursor(lane).floor >= run.last {
            writes.delete(RUNS, keys::run(verb.workspace, verb.sandbox, run.priority, run.first));
        }
    }
    Ok(Ok(Acked { count }))
}
