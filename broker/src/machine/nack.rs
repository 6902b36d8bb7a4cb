//! Deliveries that failed: each message leaves its lane and waits for its next attempt, or becomes a dead letter, in one step.

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Effect, ack,
    dead_letter::{self, DeadReason, Death},
    park::{self, Place},
    parked::{Content, Parked},
    state::{State, StateError},
};
use crate::{
    batch::MessageRef,
    command::{AckedRange, Nack, Nacked, Source, nack::Failed},
    rejection::{Reason, Rejection},
};

pub(super) fn apply(state: &mut State, verb: &Nack) -> Result<Result<Nacked, Rejection>, StateError> {
    if state.inbox(verb.workspace, verb.sandbox)?.is_none() {
        let text = "the sandbox is not registered any more; its inbox is gone";
        return Ok(Err(Rejection::new(Reason::LeaseLost, text)));
    }
    let mut outcome = Nacked { deferred: 0, dead_lettered: 0 };
    for failed in &verb.messages {
        let place = Place {
            workspace: verb.workspace,
            sandbox: verb.sandbox,
            priority: failed.lane.priority,
            sequence: failed.sequence,
        };
        let (message, parked) = match take(state, place, failed)? {
            Taken::Failed(message, parked) => (message, parked),
            Taken::Nothing { ordering } => {
                // Who takes away a message on its own says so; and another copy of this one may wait there, for which its key waits.
                if failed.lane.source != Source::Parked && park::find(state, place)?.is_none() {
                    state.effect(Effect::LeftBefore { place, ordering });
                }
                continue;
            }
        };
        if fail(state, place, &message, parked, verb)? {
            outcome.dead_lettered += 1;
        } else {
            outcome.deferred += 1;
        }
    }
    ack::remove_finished(state, verb.workspace, verb.sandbox, &verb.finished)?;
    Ok(Ok(outcome))
}

/// What was found of a message whose delivery failed.
enum Taken {
    Failed(MessageRef, Parked),
    /// It left meanwhile; this is its ordering key, if that is known.
    Nothing {
        ordering: Option<u64>,
    },
}

/// Takes a message out of where it waits.
fn take(state: &mut State, place: Place, failed: &Failed) -> Result<Taken, StateError> {
    let nothing = Taken::Nothing { ordering: None };
    if failed.lane.source == Source::Parked {
        let Some(parked) = park::unpark(state, place)? else { return Ok(nothing) };
        let message = park::content(state, place.workspace, &parked.content, place.sequence)?;
        return Ok(message.map_or(nothing, |message| Taken::Failed(message, parked)));
    }
    let content = Content::Stored(failed.batch);
    let Some(message) = park::content(state, place.workspace, &content, place.sequence)? else { return Ok(nothing) };
    let record = message.record();
    let range = AckedRange {
        lane: failed.lane,
        after: failed.after,
        through: failed.sequence,
        count: 1,
        // They stay in the inbox and stay counted; those of a broadcast were never counted.
        bytes: 0,
    };
    if !ack::take_range(state, place.workspace, place.sandbox, &range)? {
        return Ok(Taken::Nothing { ordering: Some(record.ordering) });
    }
    let bytes = record.body.len() as u32;
    if failed.lane.source != Source::Direct
        && let Some(inbox) = state.inbox_mut(place.workspace, place.sandbox)?
    {
        inbox.counters.bytes += u64::from(bytes);
    }
    let parked = Parked {
        content,
        attempt: 1,
        due_ms: 0,
        expires_ms: record.expires_ms(message.batch.time_ms),
        ordering: record.ordering,
        bytes,
        blocks: false,
        history: Vec::new(),
    };
    Ok(Taken::Failed(message, parked))
}

/// True when the message became a dead letter.
fn fail(
    state: &mut State,
    place: Place,
    message: &MessageRef,
    mut parked: Parked,
    verb: &Nack,
) -> Result<bool, StateError> {
    let now_ms = state.now_ms();
    parked.fail(now_ms, verb.error, verb.text.clone());
    let Some(inbox) = state.inbox(place.workspace, place.sandbox)? else { return Ok(false) };
    let exhausted = parked.attempt > inbox.max_attempts();
    let seed = xxh3_64(&[place.key().as_ref(), &parked.attempt.to_be_bytes()].concat());
    let backoff_ms = inbox.backoff_ms(parked.attempt, seed);
    if (exhausted || verb.dead_letter) && dead_letter::has_room(state, place)? {
        let (reason, text) = if verb.dead_letter {
            (DeadReason::Rejected, verb.text.clone())
        } else {
            (DeadReason::AttemptsExhausted, exhausted_text(parked.attempt - 1, &verb.text))
        };
        let ordering = parked.ordering;
        park::release_bytes(state, place, u64::from(parked.bytes))?;
        let history = std::mem::take(&mut parked.history);
        dead_letter::bury(state, place, message, Death { reason, text, history, chain: Vec::new() })?;
        state.effect(Effect::Left { place, ordering });
        return Ok(true);
    }
    // Without room for a dead letter it stays: nothing is dropped.
    parked.due_ms = now_ms.saturating_add(verb.delay_ms.unwrap_or(backoff_ms));
    parked.blocks = parked.ordering != 0;
    park::park(state, place, &parked)?;
    Ok(false)
}

/// Why a message is dead whose attempts are used up, with the error of the last one.
fn exhausted_text(attempts: u32, error: &[u8]) -> Bytes {
    let text = match attempts {
        1 => "its only attempt failed".to_owned(),
        _ if error.is_empty() => format!("all {attempts} attempts failed"),
        _ => format!("all {attempts} attempts failed, the last one"),
    };
    let colon: &[u8] = if error.is_empty() { b"" } else { b": " };
    [text.as_bytes(), colon, error].concat().into()
}
