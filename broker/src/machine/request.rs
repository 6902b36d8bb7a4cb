//! Requests whose sender waits for the response itself, so that it does not go through the sender's inbox.

use bytes::Bytes;

use super::{
    Effect,
    keys::{self, DueKind, RECORDS},
    park::{self, Place},
    parked::{Content, Parked},
    state::{State, StateError},
};
use crate::{
    batch::{Batch, RESPONSE, Record},
    command::answered::Answered,
    encoding::{Field as _, encoded},
    rejection::{Reason, Rejection},
};

/// Requests of one sandbox that may wait at once.
const MAX_REQUESTS: u32 = 10_000;

encoded! {
    /// A request that waits. The key tells workspace, sender and correlation id.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct WaitingRequest {
        /// Of the request.
        pub(crate) sequence: u64,
        /// Hash of the request's content, to tell a repeated call from another request.
        pub(crate) digest: u64,
        /// Until when, in milliseconds since 1970.
        pub(crate) deadline_ms: u64,
        /// The response and its sequence, once it is there, as a batch of one.
        pub(crate) response: Option<(u64, Bytes)>,
        /// The response has reached the caller; it is kept for a call that is repeated.
        pub(crate) answered: bool,
    }
}

/// Whether a request may wait for its response; a refusal when not. A repeated one finds its own record.
pub(super) fn check(
    state: &mut State,
    workspace: u32,
    sender: u32,
    record: &Record<'_>,
) -> Result<Option<Rejection>, StateError> {
    if record.reply_timeout_ms == 0 {
        return Ok(None);
    }
    let waiting = state.inbox(workspace, sender)?.map_or(0, |inbox| inbox.counters.requests);
    if waiting < MAX_REQUESTS {
        return Ok(None);
    }
    let text = format!("sandbox {:?} waits for {waiting} responses, as many as it may; try again later", record.from);
    Ok(Some(Rejection::new(Reason::TooManyRequests, text)))
}

/// A request that waits under the same correlation id, if there is one.
pub(super) fn find(
    state: &State,
    workspace: u32,
    sender: u32,
    correlation: u128,
) -> Result<Option<WaitingRequest>, StateError> {
    state.read(RECORDS, &keys::request(workspace, sender, correlation), "request")
}

/// From now on the sender waits.
pub(super) fn expect(
    state: &mut State,
    workspace: u32,
    sender: u32,
    record: &Record<'_>,
    sequence: u64,
) -> Result<(), StateError> {
    if record.reply_timeout_ms == 0 {
        return Ok(());
    }
    let deadline_ms = state.now_ms().saturating_add(record.reply_timeout_ms);
    let correlation = record.correlation;
    let waiting = WaitingRequest { sequence, digest: record.digest, deadline_ms, response: None, answered: false };
    state.put(RECORDS, keys::request(workspace, sender, correlation), waiting.to_bytes());
    if let Some(inbox) = state.inbox_mut(workspace, sender)? {
        inbox.counters.requests += 1;
    }
    state.put_due(deadline_ms, workspace, DueKind::Request { sandbox: sender, correlation }, Bytes::new())
}

/// A request that was published before, by its id: when its time is over already, its sender waits on. A refusal when it may
/// not. Without this a call that is repeated with the same message would end at once.
pub(super) fn wait_on(
    state: &mut State,
    workspace: u32,
    record: &Record<'_>,
    sequence: u64,
) -> Result<Option<Rejection>, StateError> {
    if record.reply_timeout_ms == 0 {
        return Ok(None);
    }
    let Some(sender) = state.sandbox_number(workspace, record.from)? else {
        return Ok(Some(Rejection::unknown_sandbox(record.from)));
    };
    if find(state, workspace, sender, record.correlation)?.is_some() {
        return Ok(None);
    }
    let refused = check(state, workspace, sender, record)?;
    if refused.is_none() {
        expect(state, workspace, sender, record, sequence)?;
    }
    Ok(refused)
}

/// A request was held, and is in the log now.
pub(super) fn released(
    state: &mut State,
    workspace: u32,
    record: &Record<'_>,
    held_as: u64,
    sequence: u64,
) -> Result<(), StateError> {
    let Some(sender) = state.sandbox_number(workspace, record.from)? else { return Ok(()) };
    if let Some(waiting) = find(state, workspace, sender, record.correlation)?.filter(|it| it.sequence == held_as) {
        let waiting = WaitingRequest { sequence, ..waiting };
        state.put(RECORDS, keys::request(workspace, sender, record.correlation), waiting.to_bytes());
    }
    Ok(())
}

/// The request that waits for a message; none when it is not a response or goes through the inbox like any other.
pub(super) fn waited_for(
    state: &mut State,
    workspace: u32,
    recipient: u32,
    record: &Record<'_>,
) -> Result<Option<WaitingRequest>, StateError> {
    if record.message_type != RESPONSE || record.correlation == 0 {
        return Ok(None);
    }
    if state.inbox(workspace, recipient)?.is_none_or(|inbox| inbox.counters.requests == 0) {
        return Ok(None);
    }
    Ok(find(state, workspace, recipient, record.correlation)?.filter(|waiting| waiting.response.is_none()))
}

/// Hands a message to the request that waits for it. False when it is not a response or nobody waits.
pub(super) fn answer(
    state: &mut State,
    workspace: u32,
    recipient: u32,
    batch: &Batch,
    index: usize,
    hops: u8,
) -> Result<bool, StateError> {
    let record = batch.record(index);
    let correlation = record.correlation;
    let Some(mut waiting) = waited_for(state, workspace, recipient, &record)? else { return Ok(false) };
    let sequence = batch.sequence(index);
    // The batch as it came does not say its hops yet.
    let response = Batch::decode(sequence, batch.alone(index))?.with_hops(&[(0, hops)]);
    waiting.response = Some((sequence, response));
    state.put(RECORDS, keys::request(workspace, recipient, correlation), waiting.to_bytes());
    state.effect(Effect::Answered { workspace, sandbox: recipient, correlation });
    Ok(true)
}

/// The response has reached its caller: it is acknowledged.
pub(super) fn answered(state: &mut State, verb: &Answered) -> Result<Result<(), Rejection>, StateError> {
    if let Some(mut waiting) = find(state, verb.workspace, verb.sandbox, verb.correlation)? {
        waiting.answered = true;
        state.put(RECORDS, keys::request(verb.workspace, verb.sandbox, verb.correlation), waiting.to_bytes());
    }
    Ok(Ok(()))
}

/// The time of a request is over. A response that reached nobody goes to the inbox of the sender.
pub(super) fn end(state: &mut State, workspace: u32, sandbox: u32, correlation: u128) -> Result<(), StateError> {
    let Some(waiting) = find(state, workspace, sandbox, correlation)? else { return Ok(()) };
    if waiting.deadline_ms > state.now_ms() {
        return Ok(());
    }
    state.delete(RECORDS, keys::request(workspace, sandbox, correlation));
    let Some(inbox) = state.inbox_mut(workspace, sandbox)? else { return Ok(()) };
    inbox.counters.requests = inbox.counters.requests.saturating_sub(1);
    let Some((sequence, message)) = waiting.response.filter(|_| !waiting.answered) else { return Ok(()) };
    let batch = Batch::decode(sequence, message.clone())?;
    let record = batch.record(0);
    let bytes = record.body.len() as u32;
    // Accepted when it came, so it goes in even if the inbox has filled up since.
    if let Some(inbox) = state.inbox_mut(workspace, sandbox)? {
        inbox.counters.bytes += u64::from(bytes);
    }
    let parked = Parked {
        content: Content::Own(message),
        attempt: 1,
        due_ms: 0,
        expires_ms: record.expires_ms(batch.time_ms),
        ordering: record.ordering,
        bytes,
        blocks: false,
        history: Vec::new(),
    };
    park::park(state, Place { workspace, sandbox, priority: record.priority, sequence }, &parked)
}
