//! Messages to a capability that nobody had: they wait, each on its own, until somebody comes who has it, or their ttl ends.
//!
//! They wait in an inbox of nobody, whose limits are those of any other. Whoever registers with the capability, or comes
//! online again, gets what waits for it, highest priority and oldest first, as long as there is room.

use bytes::Bytes;

use super::{
    inbox::Inbox,
    keys::{self, DueKind, RECORDS},
    park::{self, Place},
    parked::Parked,
    policy::{self, Judged, Judging},
    publish,
    registry::Heard,
    state::{Sandbox, State, StateError},
};
use crate::{
    batch::{MessageRef, Record},
    encoding::Field as _,
};

/// The number that no sandbox has, and under which messages wait for one.
pub(crate) const NOBODY: u32 = 0;
/// Beside the number of the sender of a message that is approved; no sandbox has so high a number.
const APPROVED_BIT: u32 = 1 << 31;
/// When a message waits for somebody.
const NEVER_MS: u64 = u64::MAX;
/// Sandboxes that are looked at for one message.
const MAX_CANDIDATES: usize = 1_000;
/// Messages that are looked at when somebody comes; the next tick goes on.
const MAX_ASSIGNED: usize = if cfg!(test) { 3 } else { 1_024 };
/// Until the next try when there was no room, in milliseconds.
const AGAIN_MS: u64 = 1_000;

/// The inbox of nobody, which is made when it is needed first.
pub(super) fn open(state: &mut State, workspace: u32) -> Result<(), StateError> {
    if state.inbox(workspace, NOBODY)?.is_none() {
        state.put_inbox(workspace, NOBODY, Inbox::new(0, 0));
    }
    Ok(())
}

/// Somebody online who has the capability and is not the sender: the one with the fewest messages, or, with an ordering key,
/// always the same one.
pub(super) fn online(
    state: &mut State,
    workspace: u32,
    (sender, approved): (u32, bool),
    record: &Record<'_>,
    judging: Option<&Judging<'_>>,
) -> Result<Option<u32>, StateError> {
    let mut chosen: Option<((u64, u64), u32)> = None;
    for (key, _) in state.scan(RECORDS, &keys::capable_of(workspace, record.to), MAX_CANDIDATES)? {
        let number = keys::capable_sandbox(&key);
        let heard: Option<Heard> = state.read(RECORDS, &keys::heartbeat(workspace, number), "heartbeat")?;
        if number == sender || heard.is_none_or(|heard| !heard.online) {
            continue;
        }
        if !may_have(&policy::judge_for(state, workspace, judging, number)?, approved) {
            continue;
        }
        let Some(inbox) = state.inbox(workspace, number)? else { continue };
        let weight = match record.ordering {
            0 => (inbox.held(), u64::from(number)),
            ordering => (u64::MAX - keys::weight(ordering, number), u64::from(number)),
        };
        if chosen.is_none_or(|(lightest, _)| weight < lightest) {
            chosen = Some((weight, number));
        }
    }
    Ok(chosen.map(|(_, number)| number))
}

/// Who may have a message only with approval may have one that is approved.
fn may_have(judged: &Judged, approved: bool) -> bool {
    match judged {
        Judged::Allowed => true,
        Judged::Held(_) => approved,
        Judged::Denied(_) => false,
    }
}

/// Lets a message wait. The inbox of nobody is open and has room.
pub(super) fn wait(
    state: &mut State,
    workspace: u32,
    (sender, approved): (u32, bool),
    message: (u64, &Record<'_>),
    mut parked: Parked,
) -> Result<(), StateError> {
    let (sequence, record) = message;
    if let Some(inbox) = state.inbox_mut(workspace, NOBODY)? {
        inbox.counters.bytes += u64::from(parked.bytes);
        inbox.counters.full = false;
    }
    let place = Place { workspace, sandbox: NOBODY, priority: record.priority, sequence };
    parked.due_ms = NEVER_MS;
    let sender = if approved { sender | APPROVED_BIT } else { sender };
    state.put(RECORDS, keys::wanted(workspace, record.to, record.priority, sequence), sender.to_bytes());
    park::park(state, place, &parked)
}

/// A message waits no more.
pub(super) fn forget(state: &mut State, place: Place, message: &MessageRef) {
    let record = message.record();
    state.delete(RECORDS, keys::wanted(place.workspace, record.to, record.priority, place.sequence));
}

/// A sandbox is there: it gets what waits for what it can do, with the next tick.
pub(super) fn come(state: &mut State, workspace: u32, sandbox: u32) -> Result<(), StateError> {
    if state.inbox(workspace, NOBODY)?.is_none_or(|inbox| inbox.counters.deferred == 0) {
        return Ok(());
    }
    state.put_due(state.now_ms(), workspace, DueKind::Assign { sandbox }, Bytes::new())
}

/// Gives to a sandbox what waits behind a place in what it can do; empty: from the beginning. Returns how many messages were
/// looked at.
pub(super) fn assign(state: &mut State, workspace: u32, sandbox: u32, behind: &Bytes) -> Result<usize, StateError> {
    let name = state.sandbox_name(workspace, sandbox)?;
    let heard: Option<Heard> = state.read(RECORDS, &keys::heartbeat(workspace, sandbox), "heartbeat")?;
    let Some(record) = state.get(RECORDS, &keys::sandbox(workspace, &name))? else { return Ok(1) };
    if heard.is_none_or(|heard| !heard.online) {
        return Ok(1);
    }
    let capabilities = Sandbox::decode(record)?.capabilities;
    let mut ranges: Vec<_> = capabilities.iter().map(|capability| keys::wanted_of(workspace, capability)).collect();
    ranges.sort_unstable();
    let from = if behind.is_empty() { Bytes::new() } else { keys::behind(behind) };
    let mut looked_at = 0;
    for (first, to) in ranges.into_iter().filter(|(_, to)| from < *to) {
        for (key, sender) in state.scan(RECORDS, &(first.max(from.clone()), to), MAX_ASSIGNED - looked_at)? {
            looked_at += 1;
            let sender = u32::from_bytes(sender, "sender")?;
            let approved = sender & APPROVED_BIT != 0;
            let own = sender & !APPROVED_BIT == sandbox;
            if !own && !give(state, workspace, (sandbox, approved), key.clone())? {
                // On the full second, so that whatever asked for it, there is one next try.
                let again_ms = (state.now_ms() / AGAIN_MS + 1) * AGAIN_MS;
                state.put_due(again_ms, workspace, DueKind::Assign { sandbox }, Bytes::new())?;
                return Ok(looked_at);
            }
            if looked_at == MAX_ASSIGNED {
                state.put_due(state.now_ms(), workspace, DueKind::Assign { sandbox }, key)?;
                return Ok(looked_at);
            }
        }
    }
    Ok(looked_at.max(1))
}

/// Gives one message to a sandbox. False when there is no room.
fn give(state: &mut State, workspace: u32, (sandbox, approved): (u32, bool), key: Bytes) -> Result<bool, StateError> {
    let (priority, sequence) = keys::wanted_parts(&key);
    let from = Place { workspace, sandbox: NOBODY, priority, sequence };
    let Some((parked, _)) = park::find(state, from)? else {
        state.delete(RECORDS, key);
        return Ok(true);
    };
    let header = state.header();
    let bytes = u64::from(parked.bytes);
    let message = park::content(state, workspace, &parked.content, sequence)?;
    if let Some(message) = &message {
        let judging = policy::judging(state, workspace, &message.record())?;
        if !may_have(&policy::judge_for(state, workspace, judging.as_ref(), sandbox)?, approved) {
            // It waits for somebody else.
            return Ok(true);
        }
    }
    if state.inbox(workspace, sandbox)?.is_none_or(|inbox| !inbox.has_room(bytes, &header)) {
        return Ok(false);
    }
    let Some(mut parked) = park::unpark(state, from)? else { return Ok(true) };
    park::release_bytes(state, from, bytes)?;
    state.delete(RECORDS, key);
    if let Some(inbox) = state.inbox_mut(workspace, sandbox)? {
        inbox.counters.bytes += bytes;
        inbox.counters.full = false;
    }
    if let Some(message) = message {
        let record = message.record();
        parked.due_ms = record.not_before_ms;
        publish::received(state, workspace, sandbox, &record)?;
    }
    park::park(state, Place { sandbox, ..from }, &parked)?;
    Ok(true)
}
