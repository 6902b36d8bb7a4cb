//! Shortens the history of a workspace.
//!
//! The history ends for readers at once; what of it inboxes still wait for is kept. A batch that nobody needs is removed, one
//! that is needed in part is written again with only that part, every message at its place. Recipients that are behind in
//! topics or broadcasts by more than their inbox may hold lose the oldest, and are told.

use super::{
    Effect, ack,
    events::{self, EventKind},
    follow::TopicCursors,
    keys::{self, CURSORS, MESSAGES, RECORDS, RUNS},
    state::{State, StateError},
};
use crate::{
    command::{
        AckedRange, Source, Trim, Trimmed,
        trim::{Overflow, SpentBatch},
    },
    rejection::Rejection,
};

pub(super) fn apply(state: &mut State, verb: &Trim) -> Result<Result<Trimmed, Rejection>, StateError> {
    let mut outcome = Trimmed { batches: 0, overflowed: 0 };
    let Some(mut workspace) = state.workspace(&verb.workspace)?.cloned() else { return Ok(Ok(outcome)) };
    if workspace.number != verb.number {
        return Ok(Ok(outcome));
    }
    let cut = workspace.first_sequence;
    for batch in verb.batches.iter().filter(|batch| batch.first_sequence < cut) {
        state.settle_ids(&mut workspace, batch.first_sequence)?;
        outcome.batches += u64::from(shrink(state, workspace.number, batch)?);
    }
    if verb.first_sequence > workspace.first_sequence && verb.first_sequence <= workspace.last_sequence + 1 {
        workspace.first_sequence = verb.first_sequence;
        workspace.trimmed_bytes = verb.trimmed_bytes.clamp(workspace.trimmed_bytes, workspace.committed_bytes);
        state.delete_range(RECORDS, (keys::mark(verb.number, 0), keys::mark(verb.number, verb.first_sequence)));
    }
    state.put_workspace(&verb.workspace, workspace);
    for overflow in &verb.overflows {
        outcome.overflowed += drop_oldest(state, verb.number, overflow)?;
    }
    Ok(Ok(outcome))
}

/// True when the whole batch is gone.
fn shrink(state: &mut State, workspace: u32, spent: &SpentBatch) -> Result<bool, StateError> {
    let key = keys::message(workspace, spent.first_sequence);
    for (sandbox, sequence) in &spent.stale {
        state.delete(RECORDS, keys::held(workspace, spent.first_sequence, *sandbox, *sequence));
    }
    if spent.keep.is_empty() {
        state.forget_batch(workspace, spent.first_sequence);
        state.delete(MESSAGES, key);
        for (source, priority) in &spent.runs {
            state.delete(RUNS, keys::run(workspace, *source, *priority, spent.first_sequence));
        }
        return Ok(true);
    }
    if let Some(batch) = state.batch(workspace, spent.first_sequence)? {
        let rest = batch.without(|index| spent.keep.binary_search(&(index as u16)).is_err());
        state.put(MESSAGES, key, rest);
        state.forget_batch(workspace, spent.first_sequence);
    }
    Ok(false)
}

/// Takes messages from a recipient that is too far behind. Returns how many.
fn drop_oldest(state: &mut State, workspace: u32, overflow: &Overflow) -> Result<u64, StateError> {
    let Overflow { sandbox, lane, sequences } = overflow;
    let Some(through) = sequences.last().copied() else { return Ok(0) };
    let cursor = match lane.source {
        Source::Broadcast => state.inbox(workspace, *sandbox)?.and_then(|inbox| inbox.cursor(*lane).cloned()),
        Source::Topic(topic) => {
            let cursors: Option<TopicCursors> =
                state.read(CURSORS, &keys::cursors(workspace, topic, *sandbox), "topic cursors")?;
            let known = state.inbox(workspace, *sandbox)?.is_some();
            known.then(|| cursors.unwrap_or_default().cursor(lane.priority))
        }
        Source::Direct | Source::Parked => None,
    };
    let Some(cursor) = cursor else { return Ok(0) };
    let waiting: Vec<u64> = sequences.iter().copied().filter(|sequence| !cursor.contains(*sequence)).collect();
    let Some(first) = waiting.first().copied() else { return Ok(0) };
    let count = waiting.len() as u64;
    let range = AckedRange { lane: *lane, after: cursor.floor, through, count: count as u32, bytes: 0 };
    ack::take_range(state, workspace, *sandbox, &range)?;
    let name = state.sandbox_name(workspace, *sandbox)?;
    let text = "the history they stood in was trimmed, and the inbox holds no more";
    events::raise(state, workspace, EventKind::InboxTrimmed, &name, (first, count), text)?;
    state.effect(Effect::Expired { workspace, sandbox: *sandbox, ranges: vec![range] });
    Ok(count)
}
