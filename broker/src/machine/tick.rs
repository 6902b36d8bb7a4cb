//! What happens because time has passed. Entries come up in the order of their times; nothing is looked for.

use std::collections::BTreeSet;

use super::{
    Effect, api_key, approval, audit, dead_letter,
    events::{self, EventKind},
    keys::{self, DUE, DueKind},
    park::{self, Place},
    parked::Parked,
    publish::{self, Expiring},
    registry, request,
    state::{State, StateError},
    token, wanted,
};
use bytes::Bytes;

use crate::{
    command::{Lane, Source, Tick, Ticked, tick::Leased},
    encoding::Field as _,
    rejection::Rejection,
};

/// Messages that one tick looks at, about: a tick must not hold up publishes.
const MAX_MESSAGES: usize = 4_096;
/// What an approval that expires counts for: its whole message is read, to tell its sender.
const APPROVAL_WEIGHT: usize = 64;
/// How long a message is left alone that should expire and cannot yet, in milliseconds.
const AGAIN_MS: u64 = 10_000;

pub(super) fn apply(state: &mut State, verb: &Tick) -> Result<Result<Ticked, Rejection>, StateError> {
    let now_ms = state.now_ms();
    let floor_ms = state.shard()?.due_floor_ms;
    let range = keys::due_between(floor_ms, now_ms);
    let due = state.scan(DUE, &range, verb.max_entries as usize + 1)?;
    let leased: BTreeSet<Leased> = verb.leased.iter().copied().collect();
    let (mut entries, mut weight) = (0, 0);
    let mut next_floor_ms = now_ms;
    let mut more = false;
    for (key, value) in due {
        let (time_ms, workspace, kind) = keys::due_parts(&key)?;
        if entries >= verb.max_entries || weight >= MAX_MESSAGES {
            next_floor_ms = time_ms;
            more = true;
            break;
        }
        state.delete(DUE, key);
        entries += 1;
        weight += happen(state, workspace, kind, value, verb, &leased)?;
    }
    let mut shard = state.shard()?;
    shard.due_floor_ms = shard.due_floor_ms.max(next_floor_ms);
    state.put_shard(shard);
    Ok(Ok(Ticked { entries, more }))
}

/// Lets one thing happen. Returns how many messages were looked at.
fn happen(
    state: &mut State,
    workspace: u32,
    kind: DueKind,
    value: Bytes,
    verb: &Tick,
    leased: &BTreeSet<Leased>,
) -> Result<usize, StateError> {
    match kind {
        DueKind::Parked { sandbox, priority, sequence } => {
            parked(state, Place { workspace, sandbox, priority, sequence }, leased)?;
        }
        DueKind::Runs { first_sequence } => {
            let expiring = Vec::<Expiring>::from_bytes(value, "expiring messages")?;
            return publish::expire_runs(state, workspace, first_sequence, &expiring, leased);
        }
        DueKind::Leased { sandbox, lane, sequence } => {
            let place = <(u64, u64)>::from_bytes(value, "leased message")?;
            publish::expire_leased(state, (workspace, sandbox, lane, sequence), place, leased)?;
        }
        DueKind::Liveness { sandbox } => registry::check_alive(state, workspace, sandbox, verb.heartbeat_timeout_ms)?,
        DueKind::Assign { sandbox } => return wanted::assign(state, workspace, sandbox, &value),
        DueKind::Key { id } => api_key::forget(state, id)?,
        DueKind::Token { hash } => token::forget(state, hash)?,
        DueKind::Audit => audit::due(state, workspace)?,
        DueKind::Approval { number } => {
            approval::expire(state, workspace, number)?;
            return Ok(APPROVAL_WEIGHT);
        }
        DueKind::Request { sandbox, correlation } => request::end(state, workspace, sandbox, correlation)?,
    }
    Ok(1)
}

/// A message on its own may be delivered, or has expired, or has moved on since.
fn parked(state: &mut State, place: Place, leased: &BTreeSet<Leased>) -> Result<(), StateError> {
    let Some((parked, deferred)) = park::find(state, place)? else { return Ok(()) };
    let now_ms = state.now_ms();
    if parked.expires_ms == 0 || parked.expires_ms > now_ms {
        if deferred && parked.due_ms <= now_ms {
            park::make_ready(state, place, &parked)?;
        }
        return Ok(());
    }
    let lane = Lane { source: Source::Parked, priority: place.priority };
    let key = Leased { workspace: place.workspace, sandbox: place.sandbox, lane, sequence: place.sequence };
    let Some(message) = park::content(state, place.workspace, &parked.content, place.sequence)? else { return Ok(()) };
    let waits_for_room = message.record().dead_letter_on_expiry && !dead_letter::has_room(state, place)?;
    if leased.contains(&key) || waits_for_room {
        let kind = DueKind::Parked { sandbox: place.sandbox, priority: place.priority, sequence: place.sequence };
        return state.put_due(now_ms + AGAIN_MS, place.workspace, kind, Bytes::new());
    }
    expire(state, place, &parked, &message)
}

fn expire(
    state: &mut State,
    place: Place,
    parked: &Parked,
    message: &crate::batch::MessageRef,
) -> Result<(), StateError> {
    park::unpark(state, place)?;
    if place.sandbox == wanted::NOBODY {
        wanted::forget(state, place, message);
    }
    park::release_bytes(state, place, u64::from(parked.bytes))?;
    publish::bury_or_tell(state, place, message, parked.history.clone())?;
    let name = state.sandbox_name(place.workspace, place.sandbox)?;
    events::raise(state, place.workspace, EventKind::Expired, &name, (place.sequence, 1), "its ttl ended")?;
    state.effect(Effect::Left { place, ordering: parked.ordering });
    Ok(())
}
