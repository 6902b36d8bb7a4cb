//! Appends messages to the log of a workspace and to the lanes of their recipients.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use tandem_storage::WriteBatch;

use super::{
    Appended, Effect,
    keys::{self, BROADCAST, MESSAGES, RUNS},
    state::{KnownId, State, StateError},
};
use crate::{
    batch::{Batch, Kind, Record},
    command::{Lane, Publish, Published, Source, publish::Exception},
    rejection::{Reason, Rejection},
};

/// Gaps in what others have said that own broadcasts may make. The record of an inbox is written with each of them, so it must
/// not grow with all of them; what is not marked here is left out when it would be delivered.
const MAX_OWN_RANGES: usize = 1_024;

/// Which messages of a batch go where.
#[derive(Default)]
struct Routes {
    direct: BTreeMap<(u32, u8), Vec<u16>>,
    broadcast: BTreeMap<u8, Vec<u16>>,
    /// The newest broadcast of each priority before this batch.
    newest_broadcast: [u64; 10],
    exceptions: Vec<(u32, Exception)>,
}

pub(super) fn apply(
    state: &mut State,
    verb: Publish,
    max_inbox_messages: u64,
    writes: &mut WriteBatch,
    effects: &mut Vec<Effect>,
) -> Result<Result<Published, Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)? else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let (number, first_sequence) = (workspace.number, workspace.last_sequence + 1);
    let newest_broadcast = workspace.newest_broadcast;
    let mut batch = Batch::decode(first_sequence, verb.batch)?;
    let mut routes = Routes { newest_broadcast, ..Routes::default() };
    for index in 0..batch.len() {
        let record = batch.record(index);
        if let Some(exception) = route(state, number, &batch, index, &record, max_inbox_messages, &mut routes, writes)?
        {
            routes.exceptions.push((index as u32, exception));
        }
    }
    let published = Published { first_sequence, time_ms: batch.time_ms, exceptions: routes.exceptions };
    if published.exceptions.len() == batch.len() {
        return Ok(Ok(published));
    }
    if !published.exceptions.is_empty() {
        let refused = |index: usize| published.exceptions.binary_search_by_key(&(index as u32), |(at, _)| *at).is_ok();
        batch = Batch::decode(first_sequence, batch.without(refused))?;
    }
    writes.put(MESSAGES, keys::message(number, first_sequence), batch.bytes().clone());
    let direct = write_direct(number, first_sequence, routes.direct, writes);
    let broadcast = write_broadcast(number, first_sequence, routes.broadcast, writes);

    let Some(mut workspace) = state.workspace(&verb.workspace)?.cloned() else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    workspace.last_sequence += batch.len() as u64;
    for (priority, indexes) in &broadcast {
        workspace.broadcasts += indexes.len() as u64;
        let newest = indexes.last().map_or(0, |index| batch.sequence(usize::from(*index)));
        workspace.newest_broadcast[usize::from(*priority)] = newest;
    }
    state.put_workspace(&verb.workspace, workspace);
    effects.push(Effect::Appended(Appended { workspace: number, batch: Arc::new(batch), direct, broadcast }));
    Ok(Ok(published))
}

/// Decides on one message: where it goes, or why it goes nowhere.
#[allow(clippy::too_many_arguments, reason = "one step of `apply`, with all of its view")]
fn route(
    state: &mut State,
    workspace: u32,
    batch: &Batch,
    index: usize,
    record: &Record<'_>,
    max_inbox_messages: u64,
    routes: &mut Routes,
    writes: &mut WriteBatch,
) -> Result<Option<Exception>, StateError> {
    let refused = |rejection| Ok(Some(Exception::Refused(rejection)));
    let mut new_id = None;
    if !record.id.is_empty() {
        let hash = keys::id_hash(record.id);
        if let Some(known) = state.known_id(workspace, hash)? {
            return Ok(Some(repeated(record, known)));
        }
        new_id = Some(hash);
    }
    let Some(sender) = state.sandbox_number(workspace, record.from)? else {
        return refused(Rejection::unknown_sandbox(record.from));
    };
    match record.kind {
        Kind::Direct => {
            let Some(recipient) = state.sandbox_number(workspace, record.to)? else {
                return refused(Rejection::unknown_sandbox(record.to));
            };
            let Some(inbox) = state.inbox_mut(workspace, recipient)? else {
                return refused(Rejection::unknown_sandbox(record.to));
            };
            if inbox.direct_waiting() >= max_inbox_messages {
                return refused(inbox_full(record.to, max_inbox_messages));
            }
            inbox.waiting[usize::from(record.priority)] += 1;
            routes.direct.entry((recipient, record.priority)).or_default().push(index as u16);
        }
        Kind::Broadcast => {
            let priority = record.priority;
            let own = routes.broadcast.entry(priority).or_default();
            let before = own.last().map(|index| batch.sequence(usize::from(*index)));
            let before = before.unwrap_or(routes.newest_broadcast[usize::from(priority)]);
            if let Some(inbox) = state.inbox_mut(workspace, sender)? {
                // Done with before it is there, so that who only speaks need not read all it has said.
                inbox.broadcasts_done += 1;
                let cursor = inbox.cursor_mut(Lane { source: Source::Broadcast, priority });
                if cursor.ranges.len() < MAX_OWN_RANGES {
                    cursor.insert(before, batch.sequence(index));
                }
            }
            own.push(index as u16);
        }
        Kind::Void => return refused(Rejection::field("destination", "the message goes nowhere")),
    }
    if let Some(hash) = new_id {
        let known = KnownId { sequence: batch.sequence(index), digest: record.digest, time_ms: batch.time_ms };
        state.put_id(workspace, hash, known, writes);
    }
    Ok(None)
}

fn repeated(record: &Record<'_>, known: KnownId) -> Exception {
    if known.digest == record.digest {
        return Exception::Duplicate { sequence: known.sequence, time_ms: known.time_ms };
    }
    let text = format!(
        "message id {:?} was used for another message, with sequence {}; choose a new id for new content",
        record.id, known.sequence
    );
    Exception::Refused(Rejection::new(Reason::MessageIdReused, text))
}

fn inbox_full(sandbox: &str, limit: u64) -> Rejection {
    let text = format!("the inbox of sandbox {sandbox:?} holds {limit} messages, as many as it may; try again later");
    Rejection::new(Reason::InboxFull, text)
}

fn write_direct(
    workspace: u32,
    first_sequence: u64,
    routes: BTreeMap<(u32, u8), Vec<u16>>,
    writes: &mut WriteBatch,
) -> Vec<(u32, u8, Arc<[u16]>)> {
    let mut direct = Vec::with_capacity(routes.len());
    for ((recipient, priority), indexes) in routes {
        writes.put(RUNS, keys::run(workspace, recipient, priority, first_sequence), encode_run(&indexes));
        direct.push((recipient, priority, indexes.into()));
    }
    direct
}

fn write_broadcast(
    workspace: u32,
    first_sequence: u64,
    routes: BTreeMap<u8, Vec<u16>>,
    writes: &mut WriteBatch,
) -> Vec<(u8, Arc<[u16]>)> {
    let mut broadcast = Vec::with_capacity(routes.len());
    for (priority, indexes) in routes {
        writes.put(RUNS, keys::run(workspace, BROADCAST, priority, first_sequence), encode_run(&indexes));
        broadcast.push((priority, indexes.into()));
    }
    broadcast
}

fn encode_run(indexes: &[u16]) -> Bytes {
    let mut out = BytesMut::with_capacity(indexes.len() * 2);
    indexes.iter().for_each(|index| out.put_u16(*index));
    out.freeze()
}

/// Reads the indexes of a run.
pub(crate) fn decode_run(bytes: &[u8]) -> Arc<[u16]> {
    bytes.as_chunks::<2>().0.iter().map(|pair| u16::from_be_bytes(*pair)).collect()
}
