//! Messages in lanes that expire. One entry for each batch and time, not for each message, and none is ever looked for: the
//! entry comes up when its time has come.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{
    Effect, ack,
    dead_letter::{self, DeadReason, Death},
    events::{self, EventKind},
    keys::{self, DueKind, RUNS},
    park::Place,
    parked::{Content, FailedAttempt},
    state::{State, StateError},
};
use crate::{
    batch::{Batch, MessageRef, Record},
    command::{AckedRange, Lane, Source, tick::Leased},
    encoding::{Field, encoded},
};

/// Times of expiry are rounded up to this, so that a batch has few of them.
const ROUND_MS: u64 = 100;
/// How long a message that is being worked on when it should expire is left alone, in milliseconds.
const LEASED_MS: u64 = 10_000;

encoded! {
    /// A message of a direct lane that expires.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::machine) struct Expiring {
        recipient: u32,
        priority: u8,
        index: u16,
        /// The message before it in the lane.
        after: u64,
    }
}

/// What of one publish expires when.
#[derive(Default)]
pub(super) struct Expiries(BTreeMap<u64, Vec<Expiring>>);

impl Expiries {
    /// A message went into a direct lane, behind the message with the sequence `after`.
    pub(super) fn add(&mut self, recipient: u32, after: u64, batch: &Batch, index: usize, record: &Record<'_>) {
        let expires_ms = record.expires_ms(batch.time_ms);
        if expires_ms > 0 {
            let time_ms = expires_ms.div_ceil(ROUND_MS).saturating_mul(ROUND_MS);
            let expiring = Expiring { recipient, priority: record.priority, index: index as u16, after };
            self.0.entry(time_ms).or_default().push(expiring);
        }
    }

    pub(super) fn write(self, state: &mut State, workspace: u32, first_sequence: u64) -> Result<(), StateError> {
        for (time_ms, expiring) in self.0 {
            state.put_due(time_ms, workspace, DueKind::Runs { first_sequence }, expiring.to_bytes())?;
        }
        Ok(())
    }
}

/// What expired of one inbox.
#[derive(Default)]
struct Expired {
    ranges: Vec<AckedRange>,
}

/// The time has come for messages of a batch. Returns how many were looked at.
pub(in crate::machine) fn expire_runs(
    state: &mut State,
    workspace: u32,
    first_sequence: u64,
    expiring: &[Expiring],
    leased: &BTreeSet<Leased>,
) -> Result<usize, StateError> {
    let mut by_inbox: BTreeMap<u32, Expired> = BTreeMap::new();
    for message in expiring {
        let sequence = first_sequence + u64::from(message.index);
        let lane = Lane { source: Source::Direct, priority: message.priority };
        let Some(inbox) = state.inbox(workspace, message.recipient)? else { continue };
        if inbox.cursor(lane).is_none_or(|cursor| cursor.contains(sequence)) {
            continue;
        }
        let key = Leased { workspace, sandbox: message.recipient, lane, sequence };
        if leased.contains(&key) {
            let kind = DueKind::Leased { sandbox: message.recipient, lane, sequence };
            let again = (message.after, first_sequence).to_bytes();
            state.put_due(state.now_ms() + LEASED_MS, workspace, kind, again)?;
            continue;
        }
        let place = Place { workspace, sandbox: message.recipient, priority: message.priority, sequence };
        if let Some(range) = expire(state, place, message.after, first_sequence)? {
            by_inbox.entry(message.recipient).or_default().ranges.push(range);
        }
    }
    for (sandbox, expired) in by_inbox {
        tell(state, workspace, sandbox, expired)?;
    }
    Ok(expiring.len())
}

/// The time has come for a message that was being worked on when it should have expired.
pub(in crate::machine) fn expire_leased(
    state: &mut State,
    (workspace, sandbox, lane, sequence): (u32, u32, Lane, u64),
    (after, first_sequence): (u64, u64),
    leased: &BTreeSet<Leased>,
) -> Result<(), StateError> {
    let expiring = Expiring {
        recipient: sandbox,
        priority: lane.priority,
        index: sequence.saturating_sub(first_sequence) as u16,
        after,
    };
    expire_runs(state, workspace, first_sequence, &[expiring], leased).map(|_| ())
}

/// Takes one message out of its lane. None when it has to stay: it is to become a dead letter, and there is no room.
fn expire(state: &mut State, place: Place, after: u64, first_sequence: u64) -> Result<Option<AckedRange>, StateError> {
    let content = Content::Stored(first_sequence);
    let Some(message) = super::super::park::content(state, place.workspace, &content, place.sequence)? else {
        return Ok(None);
    };
    let record = message.record();
    let lane = Lane { source: Source::Direct, priority: place.priority };
    if record.dead_letter_on_expiry && !dead_letter::has_room(state, place)? {
        let kind = DueKind::Leased { sandbox: place.sandbox, lane, sequence: place.sequence };
        let again = (after, first_sequence).to_bytes();
        state.put_due(state.now_ms() + LEASED_MS, place.workspace, kind, again)?;
        return Ok(None);
    }
    let bytes = record.body.len() as u64;
    let range = AckedRange { lane, after, through: place.sequence, count: 1, bytes };
    ack::take_range(state, place.workspace, place.sandbox, &range)?;
    remove_run(state, place, &message)?;
    bury_or_tell(state, place, &message, Vec::new())?;
    Ok(Some(range))
}

/// Removes the run of a message when the lane is done with all of it.
fn remove_run(state: &mut State, place: Place, message: &MessageRef) -> Result<(), StateError> {
    let last = message.batch.first_sequence + message.batch.len() as u64 - 1;
    let lane = Lane { source: Source::Direct, priority: place.priority };
    let Some(inbox) = state.inbox(place.workspace, place.sandbox)? else { return Ok(()) };
    let done =
        inbox.cursor(lane).is_some_and(|cursor| cursor.floor >= last.min(inbox.newest[usize::from(place.priority)]));
    if done {
        let key = keys::run(place.workspace, place.sandbox, place.priority, message.batch.first_sequence);
        state.unread().delete(RUNS, key);
    }
    Ok(())
}

/// What becomes of an expired message beside being gone.
pub(in crate::machine) fn bury_or_tell(
    state: &mut State,
    place: Place,
    message: &MessageRef,
    history: Vec<FailedAttempt>,
) -> Result<(), StateError> {
    let record = message.record();
    let text = format!("it waited for longer than its ttl of {} ms", record.ttl_ms);
    if record.dead_letter_on_expiry {
        let death = Death { reason: DeadReason::Expired, text: text.into(), history, chain: Vec::new() };
        return dead_letter::bury(state, place, message, death);
    }
    if record.requires_response {
        let sandbox = state.sandbox_name(place.workspace, place.sandbox)?;
        state.tell_sender(place.workspace, message.clone(), &sandbox, DeadReason::Expired.code(), text.into());
    }
    Ok(())
}

fn tell(state: &mut State, workspace: u32, sandbox: u32, expired: Expired) -> Result<(), StateError> {
    let name = state.sandbox_name(workspace, sandbox)?;
    let first = expired.ranges.first().map_or(0, |range| range.through);
    let count = expired.ranges.len() as u64;
    events::raise(state, workspace, EventKind::Expired, &name, (first, count), "their ttl ended")?;
    state.effect(Effect::Expired { workspace, sandbox, ranges: expired.ranges });
    Ok(())
}
