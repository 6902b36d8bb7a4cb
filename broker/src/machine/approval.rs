//! Messages that wait for approval. Each is kept whole beside the log until it is decided on: approved, it is published like
//! any other message, by the command that approves it; else its sender is told.
//!
//! One decision is the last one, whatever races: decisions are commands of the log, and the first that ends the wait ends it for
//! all that follow. What ended is kept for a while, the newest of a workspace, within the bounds of an inbox.

use bytes::{Bytes, BytesMut};

use super::{
    audit::{self, Entry},
    events::{self, EventKind},
    keys::{self, DUE, DueKind, RECORDS},
    notice::Notice,
    policy::Held,
    publish, request,
    state::{State, StateError},
};
use crate::{
    audit::Kind as Act,
    batch::{self, Batch, Kind, MessageRef, Record},
    command::{Decide, Decided, Origin, publish::Exception},
    encoding::{DecodeError, Field, Reader, encoded},
    message::Said,
    rejection::{Reason, Rejection},
};

/// Approvals of a workspace that are kept after their end, at the most.
const MAX_ENDED: u64 = if cfg!(test) { 4 } else { 10_000 };
/// Of what may wait in a workspace, one sandbox may have this part.
const SHARES: u64 = 4;
/// In the place of a sequence: the rest is the number of an approval. No sequence comes so far.
const HELD: u64 = 1 << 63;

/// What has become of a message that was held. Numbers are those of the contract, and frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApprovalState {
    Waiting = 1,
    Approved = 2,
    Denied = 3,
    Expired = 4,
    /// Approved, and not let through all the same: by another policy, or because nobody is there any more who could have it.
    Refused = 5,
}

impl ApprovalState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Refused => "refused",
        }
    }

    /// How the sender is told.
    fn code(self) -> &'static str {
        match self {
            Self::Waiting => "APPROVAL_WAITING",
            Self::Approved => "APPROVED",
            Self::Denied => "APPROVAL_DENIED",
            Self::Expired => "APPROVAL_EXPIRED",
            Self::Refused => "APPROVAL_REFUSED",
        }
    }

    fn event(self) -> EventKind {
        match self {
            Self::Waiting => EventKind::ApprovalRequested,
            Self::Approved => EventKind::ApprovalGranted,
            Self::Denied | Self::Refused => EventKind::ApprovalDenied,
            Self::Expired => EventKind::ApprovalExpired,
        }
    }
}

impl Field for ApprovalState {
    fn put(&self, out: &mut BytesMut) {
        (*self as u8).put(out);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8()? {
            1 => Self::Waiting,
            2 => Self::Approved,
            3 => Self::Denied,
            4 => Self::Expired,
            5 => Self::Refused,
            value => return Err(DecodeError::Unknown { what: "approval state", value }),
        })
    }
}

encoded! {
    /// What somebody has said of a message that waits.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Vote {
        pub(crate) by: String,
        pub(crate) time_ms: u64,
        pub(crate) approve: bool,
        /// UTF-8.
        pub(crate) comment: Bytes,
    }
}

encoded! {
    /// A message that waits for approval, or did. The key tells workspace and number; the message itself has a key of its own.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Approval {
        pub(crate) state: ApprovalState,
        pub(crate) create_ms: u64,
        /// Until when it waits.
        pub(crate) deadline_ms: u64,
        /// When it ended; 0 while it waits.
        pub(crate) end_ms: u64,
        /// Of the policy that holds it.
        pub(crate) revision: u64,
        /// The rule that does, from 1.
        pub(crate) rule: u32,
        /// How many must approve.
        pub(crate) needed: u32,
        pub(crate) from: String,
        pub(crate) to: String,
        pub(crate) message_type: u8,
        /// Bytes of the message.
        pub(crate) bytes: u32,
        pub(crate) votes: Vec<Vote>,
        /// Why it ended, where no comment says so. UTF-8.
        pub(crate) text: Bytes,
        /// Where it is in the log once it is approved; else 0.
        pub(crate) sequence: u64,
    }
}

impl Approval {
    /// How many have approved.
    pub(crate) fn approvals(&self) -> u32 {
        self.votes.iter().filter(|vote| vote.approve).count() as u32
    }

    fn has_said(&self, verb: &Decide) -> bool {
        self.votes.iter().any(|vote| vote.by == verb.by && vote.approve == verb.approve)
    }

    fn decided(&self) -> Decided {
        Decided { state: self.state, sequence: self.sequence }
    }
}

encoded! {
    /// What a workspace holds of approvals.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Approvals {
        /// The newest number.
        pub(crate) last: u64,
        /// How many wait, and the bytes of their messages.
        pub(crate) waiting: u64,
        pub(crate) waiting_bytes: u64,
        /// Those that ended are counted: the oldest that is kept, the newest, and the bytes of their messages.
        pub(crate) first_ended: u64,
        pub(crate) last_ended: u64,
        pub(crate) ended_bytes: u64,
    }
}

fn counters(state: &State, workspace: u32) -> Result<Approvals, StateError> {
    let known = state.read(RECORDS, &keys::approvals(workspace), "approvals")?;
    Ok(known.unwrap_or(Approvals { first_ended: 1, ..Approvals::default() }))
}

/// An approval by its number, if it is kept.
pub(super) fn find(state: &State, workspace: u32, number: u64) -> Result<Option<Approval>, StateError> {
    state.read(RECORDS, &keys::approval(workspace, number), "approval")
}

/// What is remembered in the place of a sequence of a message that is held.
pub(super) fn in_place_of_sequence(number: u64) -> u64 {
    HELD | number
}

/// A sequence, or 0 for what stands in the place of one.
pub(crate) fn in_log(sequence: u64) -> u64 {
    if sequence & HELD == 0 { sequence } else { 0 }
}

/// The answer to a message that came before, where it was held then: what has become of it.
pub(super) fn known_by_now(state: &State, workspace: u32, known: Exception) -> Result<Exception, StateError> {
    let Exception::Duplicate { sequence, .. } = known else { return Ok(known) };
    if sequence & HELD == 0 {
        return Ok(known);
    }
    let number = sequence & !HELD;
    let Some(approval) = find(state, workspace, number)? else {
        // Too long ago to know.
        return Ok(Exception::Duplicate { sequence: 0, time_ms: 0 });
    };
    Ok(match approval.state {
        ApprovalState::Waiting => Exception::Held { approval: number },
        ApprovalState::Approved => Exception::Duplicate { sequence: approval.sequence, time_ms: approval.end_ms },
        ended => {
            let text = format!(
                "approval {number} of the message has ended: {}; send a new message to ask again",
                ended.name()
            );
            Exception::Refused(Rejection::new(Reason::ApprovalDenied, text))
        }
    })
}

/// Counts one more of a sender that waits, or says why it may have no more: nobody fills the place of all.
fn count_for(state: &mut State, workspace: u32, from: &str, bytes: u64) -> Result<Result<(), Rejection>, StateError> {
    let header = state.header();
    let share = |most: u64| (most / SHARES).max(1);
    let (messages, size) = (share(header.max_inbox_messages), share(header.max_inbox_bytes));
    let key = keys::approvals_of(workspace, from);
    let (waiting, waiting_bytes): (u64, u64) = state.read(RECORDS, &key, "approvals of a sender")?.unwrap_or((0, 0));
    // One message of any size has room.
    if waiting >= messages || (waiting > 0 && waiting_bytes + bytes > size) {
        let text = format!(
            "{waiting} messages and {waiting_bytes} bytes of sandbox {from:?} wait for approval; {messages} messages and {size} \
             bytes are allowed for each: try again later"
        );
        return Ok(Err(Rejection::new(Reason::TooManyHeld, text)));
    }
    state.put(RECORDS, key, (waiting + 1, waiting_bytes + bytes).to_bytes());
    Ok(Ok(()))
}

/// One of a sender waits no more.
fn uncount_for(state: &mut State, workspace: u32, from: &str, bytes: u64) -> Result<(), StateError> {
    let key = keys::approvals_of(workspace, from);
    let (waiting, waiting_bytes): (u64, u64) = state.read(RECORDS, &key, "approvals of a sender")?.unwrap_or((0, 0));
    match waiting.saturating_sub(1) {
        0 => state.delete(RECORDS, key),
        left => state.put(RECORDS, key, (left, waiting_bytes.saturating_sub(bytes)).to_bytes()),
    }
    Ok(())
}

/// Lets a message wait for approval; its number, or why it cannot.
pub(super) fn hold(
    state: &mut State,
    workspace: u32,
    (time_ms, window_ms): (u64, u64),
    record: &Record<'_>,
    held: &Held,
) -> Result<Result<u64, Rejection>, StateError> {
    let mut counters = counters(state, workspace)?;
    let header = state.header();
    let bytes = record.body.len() as u64;
    if counters.waiting >= header.max_inbox_messages || counters.waiting_bytes + bytes > header.max_inbox_bytes {
        let text = format!(
            "{} messages and {} bytes wait for approval in this workspace; {} messages and {} bytes are allowed: try again later",
            counters.waiting, counters.waiting_bytes, header.max_inbox_messages, header.max_inbox_bytes
        );
        return Ok(Err(Rejection::new(Reason::TooManyHeld, text)));
    }
    if let Err(rejection) = count_for(state, workspace, record.from, bytes)? {
        return Ok(Err(rejection));
    }
    counters.last += 1;
    counters.waiting += 1;
    counters.waiting_bytes += bytes;
    let number = counters.last;
    state.put(RECORDS, keys::approvals(workspace), counters.to_bytes());

    let now_ms = state.now_ms();
    let expires_ms = record.expires_ms(time_ms);
    // Not for longer than its id is remembered: one that is sent again must find it.
    let mut deadline_ms = now_ms.saturating_add(held.terms.timeout_ms.min(window_ms));
    if expires_ms > 0 {
        deadline_ms = deadline_ms.min(expires_ms);
    }
    // Who waits for the response is remembered already, and so is the position of the producer.
    let mut message = BytesMut::with_capacity(record.body.len() + 256);
    batch::encode_header(time_ms, 1, &mut message);
    Record { reply_timeout_ms: 0, producer: (0, 0), ..*record }.encode(&mut message);
    state.put(RECORDS, keys::approval_message(workspace, number), message.freeze());
    let approval = Approval {
        state: ApprovalState::Waiting,
        create_ms: now_ms,
        deadline_ms,
        end_ms: 0,
        revision: held.revision,
        rule: held.rule,
        needed: held.terms.approvals,
        from: record.from.into(),
        to: recipient(record),
        message_type: record.message_type,
        bytes: bytes as u32,
        votes: Vec::new(),
        text: Bytes::new(),
        sequence: 0,
    };
    state.put(RECORDS, keys::approval(workspace, number), approval.to_bytes());
    state.put(RECORDS, keys::approval_waiting(workspace, number), Bytes::new());
    state.put_due(deadline_ms, workspace, DueKind::Approval { number }, Bytes::new())?;
    let text = format!(
        "a message to {} waits for {} by rule {} of revision {} of the policy",
        approval.to,
        if approval.needed == 1 { "approval".to_owned() } else { format!("{} approvals", approval.needed) },
        approval.rule,
        approval.revision
    );
    events::raise(state, workspace, EventKind::ApprovalRequested, &approval.from, (number, 1), text.clone())?;
    let origin = Origin { by: approval.from, ..Origin::default() };
    let entry = Entry::new(Act::MessageHeld, approval.to).numbered(number).saying(text);
    audit::note_act(state, workspace, origin, entry)?;
    Ok(Ok(number))
}

/// Where a message goes, as a policy writes it.
fn recipient(record: &Record<'_>) -> String {
    match record.kind {
        Kind::Direct => record.to.into(),
        Kind::Topic => format!("topic:{}", record.to),
        Kind::Wanted => format!("capability:{}", record.to),
        Kind::Several => format!("capability:{}", Said::in_body(record.body).capability),
        Kind::Broadcast | Kind::Void => "broadcast".into(),
    }
}

pub(super) fn decide(state: &mut State, verb: &Decide) -> Result<Result<Decided, Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)?.map(|workspace| workspace.number) else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let Some(mut approval) = find(state, workspace, verb.number)? else {
        return Ok(Err(Rejection::unknown_approval(verb.number)));
    };
    if approval.state == ApprovalState::Waiting && approval.deadline_ms <= state.now_ms() {
        // Not what this one asks for.
        let asks = std::mem::take(&mut state.origin);
        end(state, workspace, verb.number, &mut approval, ApprovalState::Expired, "nobody decided in time".into())?;
        state.origin = asks;
    }
    // A call that is repeated finds what it has done.
    if approval.has_said(verb) {
        return Ok(Ok(approval.decided()));
    }
    if approval.state != ApprovalState::Waiting {
        let text = format!("approval {} has ended before: {}", verb.number, approval.state.name());
        return Ok(Err(Rejection::new(Reason::ApprovalEnded, text)));
    }
    if verb.sandbox == approval.from {
        let text = format!("sandbox {:?} has sent the message; somebody else must decide on it", approval.from);
        return Ok(Err(Rejection::new(Reason::OwnMessage, text)));
    }
    if !verb.sandbox.is_empty()
        && let Some(held) = message(state, workspace, verb.number)?
        && publish::chain(state, workspace, &held.record(0))?.contains(&verb.sandbox)
    {
        let text =
            format!("the message is sent on behalf of sandbox {:?}; somebody else must decide on it", verb.sandbox);
        return Ok(Err(Rejection::new(Reason::OwnMessage, text)));
    }
    let (by, comment) = (verb.by.clone(), verb.comment.clone());
    let said = if verb.approve { Act::MessageApproved } else { Act::MessageDenied };
    let said = Entry::new(said, &*approval.to).numbered(verb.number).saying(comment.clone());
    approval.votes.push(Vote { by, time_ms: state.now_ms(), approve: verb.approve, comment });
    if !verb.approve {
        audit::note(state, workspace, said)?;
        end(state, workspace, verb.number, &mut approval, ApprovalState::Denied, Bytes::new())?;
    } else if approval.approvals() >= approval.needed {
        let released = release(state, &verb.workspace, workspace, verb.number)?;
        let (ended, text) = match released {
            Released::Published(sequence) => {
                approval.sequence = sequence;
                (ApprovalState::Approved, Bytes::new())
            }
            Released::Refused(text) => (ApprovalState::Refused, text),
            Released::Later(rejection) => return Ok(Err(rejection)),
        };
        audit::note(state, workspace, said)?;
        end(state, workspace, verb.number, &mut approval, ended, text)?;
    } else {
        audit::note(state, workspace, said)?;
        state.put(RECORDS, keys::approval(workspace, verb.number), approval.to_bytes());
    }
    Ok(Ok(approval.decided()))
}

/// What became of a message that was to be let go.
enum Released {
    /// It has this sequence.
    Published(u64),
    /// It never will be, and why.
    Refused(Bytes),
    /// It may be later; nothing has happened.
    Later(Rejection),
}

/// Publishes a message that was approved, as the policy of now lets it.
fn release(state: &mut State, name: &str, workspace: u32, number: u64) -> Result<Released, StateError> {
    let Some(held) = message(state, workspace, number)? else {
        return Ok(Released::Later(Rejection::unknown_approval(number)));
    };
    Ok(match publish::release(state, name, &held)? {
        Ok(sequence) => {
            request::released(state, workspace, &held.record(0), in_place_of_sequence(number), sequence)?;
            Released::Published(sequence)
        }
        Err(rejection) => match rejection.reason {
            Reason::PolicyDenied
            | Reason::UnknownSandbox
            | Reason::UnknownTopic
            | Reason::NoCapableSandbox
            | Reason::TooManyHops => Released::Refused(rejection.text.into()),
            _ => Released::Later(rejection),
        },
    })
}

fn message(state: &State, workspace: u32, number: u64) -> Result<Option<Batch>, StateError> {
    let bytes = state.get(RECORDS, &keys::approval_message(workspace, number))?;
    Ok(bytes.map(|bytes| Batch::decode(0, bytes)).transpose()?)
}

/// The time is over in which somebody could decide.
pub(super) fn expire(state: &mut State, workspace: u32, number: u64) -> Result<(), StateError> {
    let Some(mut approval) = find(state, workspace, number)? else { return Ok(()) };
    if approval.state == ApprovalState::Waiting && approval.deadline_ms <= state.now_ms() {
        end(state, workspace, number, &mut approval, ApprovalState::Expired, "nobody decided in time".into())?;
    }
    Ok(())
}

/// It waits no more: its sender is told, and whoever watches.
fn end(
    state: &mut State,
    workspace: u32,
    number: u64,
    approval: &mut Approval,
    ended: ApprovalState,
    text: Bytes,
) -> Result<(), StateError> {
    approval.state = ended;
    approval.end_ms = state.now_ms();
    approval.text = text.clone();
    let decided = matches!(ended, ApprovalState::Approved | ApprovalState::Denied);
    let told: Bytes = match approval.votes.last().filter(|_| decided) {
        Some(vote) if vote.comment.is_empty() => format!("decided by {}", vote.by).into(),
        Some(vote) => [b"decided by ", vote.by.as_bytes(), b": ", &vote.comment].concat().into(),
        None => text,
    };
    if let Some(message) = message(state, workspace, number)? {
        let message = MessageRef { batch: message.into(), index: 0 };
        state.tell(Notice::of_approval(workspace, message, ended.code(), told.clone(), (number, approval.sequence)));
    }
    events::raise(state, workspace, ended.event(), &approval.from, (number, 1), told.clone())?;
    let entry = Entry::new(Act::ApprovalEnded, ended.name()).numbered(number).saying(told);
    if decided {
        audit::note(state, workspace, entry)?;
    } else {
        // Nobody has done anything, so it may be as many as were held.
        let origin = Origin { by: approval.from.clone(), ..Origin::default() };
        audit::note_act(state, workspace, origin, entry)?;
    }

    let bytes = u64::from(approval.bytes);
    uncount_for(state, workspace, &approval.from, bytes)?;
    let mut counters = counters(state, workspace)?;
    counters.waiting = counters.waiting.saturating_sub(1);
    counters.waiting_bytes = counters.waiting_bytes.saturating_sub(bytes);
    counters.last_ended += 1;
    state.delete(RECORDS, keys::approval_waiting(workspace, number));
    let due_ms = approval.deadline_ms.max(approval.create_ms);
    state.delete(DUE, keys::due(due_ms, workspace, DueKind::Approval { number }));
    state.put(RECORDS, keys::approval_ended(workspace, counters.last_ended), number.to_bytes());
    if ended == ApprovalState::Approved {
        // It is in the log.
        state.delete(RECORDS, keys::approval_message(workspace, number));
    } else {
        counters.ended_bytes += bytes;
    }
    state.put(RECORDS, keys::approval(workspace, number), approval.to_bytes());
    make_room(state, workspace, &mut counters)?;
    state.put(RECORDS, keys::approvals(workspace), counters.to_bytes());
    Ok(())
}

/// Forgets the oldest of those that ended, as far as they are too many.
fn make_room(state: &mut State, workspace: u32, counters: &mut Approvals) -> Result<(), StateError> {
    let most_bytes = state.header().max_inbox_bytes;
    while counters.first_ended < counters.last_ended
        && (counters.last_ended - counters.first_ended >= MAX_ENDED || counters.ended_bytes > most_bytes)
    {
        let key = keys::approval_ended(workspace, counters.first_ended);
        counters.first_ended += 1;
        let Some(number) = state.read::<u64>(RECORDS, &key, "ended approval")? else { continue };
        state.delete(RECORDS, key);
        if let Some(oldest) = find(state, workspace, number)?
            && oldest.state != ApprovalState::Approved
        {
            counters.ended_bytes = counters.ended_bytes.saturating_sub(u64::from(oldest.bytes));
            state.delete(RECORDS, keys::approval_message(workspace, number));
        }
        state.delete(RECORDS, keys::approval(workspace, number));
    }
    Ok(())
}
