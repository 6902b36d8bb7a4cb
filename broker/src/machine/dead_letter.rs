//! Dead letters: messages that left an inbox without being acknowledged, whole, with the reason and the history.

use bytes::Bytes;

use super::{
    audit::{self, Entry},
    events::{self, EventKind},
    keys::{self, DEAD},
    park::{self, Place},
    parked::{Content, FailedAttempt, Parked},
    state::{State, StateError},
    wanted,
};
use crate::{
    audit::Kind,
    batch::{Batch, MessageRef},
    command::{Purge, Purged, Redrive, Redriven, Replay, Replayed},
    encoding::{DecodeError, Field, Reader, encoded},
    rejection::{Reason, Rejection},
};

/// Why a message is dead. Numbers are those of the contract, and frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeadReason {
    AttemptsExhausted = 1,
    Rejected = 2,
    Expired = 3,
    Loop = 4,
}

impl DeadReason {
    /// The stable code of the reason.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "ATTEMPTS_EXHAUSTED",
            Self::Rejected => "REJECTED",
            Self::Expired => "EXPIRED",
            Self::Loop => "LOOP",
        }
    }
}

impl Field for DeadReason {
    fn put(&self, out: &mut bytes::BytesMut) {
        (*self as u8).put(out);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::AttemptsExhausted),
            2 => Ok(Self::Rejected),
            3 => Ok(Self::Expired),
            4 => Ok(Self::Loop),
            value => Err(DecodeError::Unknown { what: "dead letter reason", value }),
        }
    }
}

encoded! {
    /// A dead letter. The key tells workspace, recipient and sequence.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct DeadLetter {
        /// The name of the recipient, which may be gone.
        pub(crate) sandbox: String,
        /// The message as a batch of one.
        pub(crate) message: Bytes,
        pub(crate) reason: DeadReason,
        /// UTF-8, in plain words.
        pub(crate) text: Bytes,
        pub(crate) time_ms: u64,
        pub(crate) history: Vec<FailedAttempt>,
        /// Of a loop: a sequence for each hop.
        pub(crate) chain: Vec<u64>,
    }
}

/// Why and after what a message dies.
pub(super) struct Death {
    pub(super) reason: DeadReason,
    pub(super) text: Bytes,
    pub(super) history: Vec<FailedAttempt>,
    pub(super) chain: Vec<u64>,
}

/// Whether a recipient may have one more dead letter.
pub(super) fn has_room(state: &mut State, place: Place) -> Result<bool, StateError> {
    let limit = state.header().max_dead_letters;
    Ok(state.inbox(place.workspace, place.sandbox)?.is_some_and(|inbox| inbox.counters.dead_letters < limit))
}

/// Makes a message, which the caller has taken out of the inbox, a dead letter, and tells its sender.
pub(super) fn bury(state: &mut State, place: Place, message: &MessageRef, death: Death) -> Result<(), StateError> {
    let sandbox = state.sandbox_name(place.workspace, place.sandbox)?;
    let key = keys::dead(place.workspace, place.sandbox, place.sequence);
    if state.get(DEAD, &key)?.is_none()
        && let Some(inbox) = state.inbox_mut(place.workspace, place.sandbox)?
    {
        inbox.counters.dead_letters += 1;
    }
    let letter = DeadLetter {
        sandbox,
        message: message.batch.alone(usize::from(message.index)),
        reason: death.reason,
        text: death.text,
        time_ms: state.now_ms(),
        history: death.history,
        chain: death.chain,
    };
    state.put(DEAD, key, letter.to_bytes());
    let kind = if death.reason == DeadReason::Loop { EventKind::Looped } else { EventKind::DeadLettered };
    let text = [death.reason.code().as_bytes(), b": ", &letter.text].concat();
    events::raise(state, place.workspace, kind, &letter.sandbox, (place.sequence, 1), text.clone())?;
    let entry = Entry::new(Kind::DeadLettered, &*letter.sandbox).numbered(place.sequence).saying(text);
    let origin = state.origin.clone();
    audit::note_act(state, place.workspace, origin, entry)?;
    if message.record().requires_response {
        state.tell_sender(place.workspace, message.clone(), &letter.sandbox, death.reason.code(), letter.text);
    }
    Ok(())
}

pub(super) fn redrive(state: &mut State, verb: &Redrive) -> Result<Result<Redriven, Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let target = if verb.to_sandbox.is_empty() {
        None
    } else {
        match state.sandbox_number(workspace, &verb.to_sandbox)? {
            Some(number) => Some(number),
            None => return Ok(Err(Rejection::unknown_sandbox(&verb.to_sandbox))),
        }
    };
    let mut outcome = Redriven { redriven: 0, skipped: 0 };
    for (sandbox, sequence) in &verb.dead_letters {
        let key = keys::dead(workspace, *sandbox, *sequence);
        let Some(letter) = state.read::<DeadLetter>(DEAD, &key, "dead letter")? else { continue };
        let to = target.unwrap_or(*sandbox);
        if put_back(state, workspace, to, *sequence, letter.message, letter.history)? != PutBack::NoRoom {
            remove(state, workspace, *sandbox, key)?;
            outcome.redriven += 1;
        } else {
            outcome.skipped += 1;
        }
    }
    Ok(Ok(outcome))
}

pub(super) fn replay(state: &mut State, verb: &Replay) -> Result<Result<Replayed, Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let Some(sandbox) = state.sandbox_number(workspace, &verb.sandbox)? else {
        return Ok(Err(Rejection::unknown_sandbox(&verb.sandbox)));
    };
    let mut replayed = 0;
    for (sequence, message) in &verb.messages {
        match put_back(state, workspace, sandbox, *sequence, message.clone(), Vec::new())? {
            PutBack::Done => replayed += 1,
            PutBack::WaitsAlready => {}
            PutBack::NoRoom => {
                let text = format!(
                    "the inbox of sandbox {:?} is full after {replayed} messages; those before {sequence} are in it",
                    verb.sandbox
                );
                return Ok(Err(Rejection::new(Reason::InboxFull, text)));
            }
        }
    }
    Ok(Ok(Replayed { replayed }))
}

/// How putting a message back ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PutBack {
    Done,
    /// It waits there on its own already.
    WaitsAlready,
    /// No room, or no inbox.
    NoRoom,
}

/// Parks a message in an inbox, as a first attempt, whatever its ttl was: whoever puts it back wants it to be delivered.
fn put_back(
    state: &mut State,
    workspace: u32,
    sandbox: u32,
    sequence: u64,
    message: Bytes,
    history: Vec<FailedAttempt>,
) -> Result<PutBack, StateError> {
    let header = state.header();
    let batch = Batch::decode(sequence, message.clone())?;
    let record = batch.record(0);
    let (bytes, priority) = (record.body.len() as u32, record.priority);
    let place = Place { workspace, sandbox, priority, sequence };
    let Some(inbox) = state.inbox_mut(workspace, sandbox)? else { return Ok(PutBack::NoRoom) };
    let has_room = inbox.has_room(u64::from(bytes), &header);
    if park::find(state, place)?.is_some() {
        return Ok(PutBack::WaitsAlready);
    }
    if !has_room {
        return Ok(PutBack::NoRoom);
    }
    let parked = Parked {
        content: Content::Own(message.clone()),
        attempt: 1,
        due_ms: 0,
        expires_ms: 0,
        ordering: record.ordering,
        bytes,
        blocks: false,
        history,
    };
    if sandbox == wanted::NOBODY {
        let sender = state.sandbox_number(workspace, record.from)?.unwrap_or(wanted::NOBODY);
        if let Some(recipient) = wanted::online(state, workspace, (sender, true), &record, None)? {
            return put_back(state, workspace, recipient, sequence, message, parked.history);
        }
        wanted::wait(state, workspace, (sender, true), (sequence, &record), parked)?;
        return Ok(PutBack::Done);
    }
    if let Some(inbox) = state.inbox_mut(workspace, sandbox)? {
        inbox.counters.bytes += u64::from(bytes);
        inbox.counters.full = false;
    }
    park::park_new(state, place, &parked)?;
    Ok(PutBack::Done)
}

pub(super) fn purge(state: &mut State, verb: &Purge) -> Result<Result<Purged, Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let mut purged = 0;
    for (sandbox, sequence) in &verb.dead_letters {
        let key = keys::dead(workspace, *sandbox, *sequence);
        if state.get(DEAD, &key)?.is_some() {
            remove(state, workspace, *sandbox, key)?;
            purged += 1;
        }
    }
    Ok(Ok(Purged { purged }))
}

fn remove(state: &mut State, workspace: u32, sandbox: u32, key: Bytes) -> Result<(), StateError> {
    state.delete(DEAD, key);
    if let Some(inbox) = state.inbox_mut(workspace, sandbox)? {
        inbox.counters.dead_letters = inbox.counters.dead_letters.saturating_sub(1);
    }
    Ok(())
}
