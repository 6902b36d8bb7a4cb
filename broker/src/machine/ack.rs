//! Takes acknowledged messages out of an inbox.

use super::{
    follow,
    keys::{self, RUNS},
    park::{self, Place},
    state::{State, StateError},
};
use crate::{
    command::{Ack, Acked, AckedRange, FinishedRun, Lane, Source},
    rejection::{Reason, Rejection},
};

pub(super) fn apply(state: &mut State, verb: &Ack) -> Result<Result<Acked, Rejection>, StateError> {
    if state.inbox(verb.workspace, verb.sandbox)?.is_none() {
        let text = "the sandbox is not registered any more; its inbox is gone";
        return Ok(Err(Rejection::new(Reason::LeaseLost, text)));
    }
    let mut count = 0;
    for range in &verb.ranges {
        if take_range(state, verb.workspace, verb.sandbox, range)? {
            count += u64::from(range.count);
        }
    }
    for (priority, sequence) in &verb.parked {
        let place =
            Place { workspace: verb.workspace, sandbox: verb.sandbox, priority: *priority, sequence: *sequence };
        if let Some(parked) = park::unpark(state, place)? {
            park::release_bytes(state, place, u64::from(parked.bytes))?;
            count += 1;
        }
    }
    remove_finished(state, verb.workspace, verb.sandbox, &verb.finished)?;
    Ok(Ok(Acked { count }))
}

/// Marks a part of a lane as done. False when it was already.
pub(super) fn take_range(
    state: &mut State,
    workspace: u32,
    sandbox: u32,
    range: &AckedRange,
) -> Result<bool, StateError> {
    let taken = u64::from(range.count);
    if let Source::Topic(topic) = range.lane.source {
        return follow::take(state, workspace, topic, sandbox, range);
    }
    let Some(inbox) = state.inbox_mut(workspace, sandbox)? else { return Ok(false) };
    let Some(cursor) = inbox.cursor_mut(range.lane) else { return Ok(false) };
    if !cursor.insert(range.after, range.through) {
        return Ok(false);
    }
    if range.lane.source == Source::Direct {
        let waiting = &mut inbox.waiting[usize::from(range.lane.priority)];
        *waiting = waiting.saturating_sub(taken);
        inbox.counters.bytes = inbox.counters.bytes.saturating_sub(range.bytes);
    } else {
        inbox.broadcasts_done += taken;
    }
    Ok(true)
}

/// Removes the runs that the floor has passed.
pub(super) fn remove_finished(
    state: &mut State,
    workspace: u32,
    sandbox: u32,
    finished: &[FinishedRun],
) -> Result<(), StateError> {
    for run in finished {
        let lane = Lane { source: Source::Direct, priority: run.priority };
        let Some(inbox) = state.inbox(workspace, sandbox)? else { return Ok(()) };
        if inbox.cursor(lane).is_some_and(|cursor| cursor.floor >= run.last) {
            state.unread().delete(RUNS, keys::run(workspace, sandbox, run.priority, run.first));
        }
    }
    Ok(())
}
