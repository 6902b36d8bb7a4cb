//! Puts messages on their own and takes them up again, with all indexes and counters.

use bytes::Bytes;

use super::{
    Effect,
    keys::{self, DEFERRED, DueKind, READY, RECORDS},
    parked::{Content, Parked},
    state::{State, StateError},
};
use crate::batch::MessageRef;

/// Where a message on its own is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) workspace: u32,
    /// The recipient.
    pub(crate) sandbox: u32,
    pub(crate) priority: u8,
    pub(crate) sequence: u64,
}

impl Place {
    pub(super) fn key(self) -> Bytes {
        keys::parked(self.workspace, self.sandbox, self.priority, self.sequence)
    }

    fn due(self) -> DueKind {
        DueKind::Parked { sandbox: self.sandbox, priority: self.priority, sequence: self.sequence }
    }
}

/// Puts a message on its own. Its bytes are counted already. One that waits there takes the place of another copy, such as a
/// redriven one, so that it is counted once.
pub(super) fn park(state: &mut State, place: Place, parked: &Parked) -> Result<(), StateError> {
    if let Some(other) = unpark(state, place)? {
        release_bytes(state, place, u64::from(other.bytes))?;
    }
    park_new(state, place, parked)
}

/// The same for a message that was never there before.
pub(super) fn park_new(state: &mut State, place: Place, parked: &Parked) -> Result<(), StateError> {
    let deferred = parked.due_ms > state.now_ms();
    if let Some(inbox) = state.inbox_mut(place.workspace, place.sandbox)? {
        inbox.counters.parked += 1;
        inbox.counters.deferred += u64::from(deferred);
        inbox.counters.keyed += u64::from(parked.blocks);
    }
    if parked.blocks {
        let key = keys::keyed(place.workspace, place.sandbox, parked.ordering, place.sequence);
        state.put(RECORDS, key, Bytes::new());
    }
    if let Content::Stored(first) = parked.content {
        state.put(RECORDS, keys::held(place.workspace, first, place.sandbox, place.sequence), Bytes::new());
    }
    put(state, place, parked, deferred);
    // Without an end to wait for, nothing is due.
    if parked.due_ms > state.now_ms() && parked.due_ms < u64::MAX {
        state.put_due(parked.due_ms, place.workspace, place.due(), Bytes::new())?;
    }
    if parked.expires_ms > 0 {
        state.put_due(parked.expires_ms, place.workspace, place.due(), Bytes::new())?;
    }
    Ok(())
}

fn put(state: &mut State, place: Place, parked: &Parked, deferred: bool) {
    use crate::encoding::Field as _;
    state.put(if deferred { DEFERRED } else { READY }, place.key(), parked.to_bytes());
    if !deferred {
        state.effect(Effect::Ready(place));
    }
}

/// A message on its own, and whether it waits for its time.
pub(super) fn find(state: &State, place: Place) -> Result<Option<(Parked, bool)>, StateError> {
    if let Some(parked) = state.read(READY, &place.key(), "ready message")? {
        return Ok(Some((parked, false)));
    }
    Ok(state.read(DEFERRED, &place.key(), "deferred message")?.map(|parked| (parked, true)))
}

/// Takes up a message that was on its own. Its bytes stay counted.
pub(super) fn unpark(state: &mut State, place: Place) -> Result<Option<Parked>, StateError> {
    let Some((parked, deferred)) = find(state, place)? else { return Ok(None) };
    state.delete(if deferred { DEFERRED } else { READY }, place.key());
    if let Content::Stored(first) = parked.content {
        state.delete(RECORDS, keys::held(place.workspace, first, place.sandbox, place.sequence));
    }
    if parked.blocks {
        state.delete(RECORDS, keys::keyed(place.workspace, place.sandbox, parked.ordering, place.sequence));
    }
    if let Some(inbox) = state.inbox_mut(place.workspace, place.sandbox)? {
        let counters = &mut inbox.counters;
        counters.parked = counters.parked.saturating_sub(1);
        counters.deferred = counters.deferred.saturating_sub(u64::from(deferred));
        counters.keyed = counters.keyed.saturating_sub(u64::from(parked.blocks));
    }
    Ok(Some(parked))
}

/// Its time has come: from now on it may be delivered.
pub(super) fn make_ready(state: &mut State, place: Place, parked: &Parked) -> Result<(), StateError> {
    state.delete(DEFERRED, place.key());
    if let Some(inbox) = state.inbox_mut(place.workspace, place.sandbox)? {
        inbox.counters.deferred = inbox.counters.deferred.saturating_sub(1);
    }
    put(state, place, parked, false);
    Ok(())
}

/// Bytes of a message that left the inbox count no more.
pub(super) fn release_bytes(state: &mut State, place: Place, bytes: u64) -> Result<(), StateError> {
    if let Some(inbox) = state.inbox_mut(place.workspace, place.sandbox)? {
        inbox.counters.bytes = inbox.counters.bytes.saturating_sub(bytes);
    }
    Ok(())
}

/// The message itself.
pub(super) fn content(
    state: &mut State,
    workspace: u32,
    content: &Content,
    sequence: u64,
) -> Result<Option<MessageRef>, StateError> {
    let batch = match content {
        Content::Stored(first) => state.batch(workspace, *first)?,
        Content::Own(bytes) => Some(crate::batch::Batch::decode(sequence, bytes.clone())?.into()),
    };
    Ok(batch.and_then(|batch| {
        let index = sequence.checked_sub(batch.first_sequence)?;
        let within = index < batch.len() as u64;
        within.then(|| MessageRef { batch, index: index as u16 })
    }))
}
