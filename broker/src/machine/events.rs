//! What happened in a workspace, as a log of its own: for dashboards and supervisors that must not miss anything.

use super::{
    Effect,
    keys::{self, EVENTS},
    state::{State, StateError},
};
use crate::{
    command::{ReportEvents, ReportedEvent},
    encoding::{DecodeError, Field, Reader, encoded},
    rejection::Rejection,
};

/// Events of a workspace that are kept, the newest.
pub(crate) const MAX_EVENTS: u64 = 100_000;

/// What happened. Numbers are those of the contract, and frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    SandboxRegistered = 1,
    SandboxOffline = 2,
    SandboxOnline = 3,
    SandboxGone = 4,
    DeadLettered = 5,
    Expired = 6,
    Looped = 7,
    InboxFull = 8,
    InboxTrimmed = 9,
    /// Of these the number of the approval stands in the place of the sequence.
    ApprovalRequested = 10,
    ApprovalGranted = 11,
    ApprovalDenied = 12,
    ApprovalExpired = 13,
    // From here on: reported by who runs sandboxes.
    OutOfMemory = 14,
    DiskLimit = 15,
    ProcessLimit = 16,
    Restarting = 17,
    Failed = 18,
    TimedOut = 19,
    IdleStopped = 20,
}

/// The first type that is reported, and the last.
pub(crate) const REPORTED: std::ops::RangeInclusive<u8> = EventKind::OutOfMemory as u8..=EventKind::IdleStopped as u8;

impl EventKind {
    /// Its name among the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SandboxRegistered => "sandbox_registered",
            Self::SandboxOffline => "sandbox_offline",
            Self::SandboxOnline => "sandbox_online",
            Self::SandboxGone => "sandbox_gone",
            Self::DeadLettered => "message_dead_lettered",
            Self::Expired => "message_expired",
            Self::Looped => "message_looped",
            Self::InboxFull => "inbox_full",
            Self::InboxTrimmed => "inbox_trimmed",
            Self::ApprovalRequested => "approval_requested",
            Self::ApprovalGranted => "approval_granted",
            Self::ApprovalDenied => "approval_denied",
            Self::ApprovalExpired => "approval_expired",
            Self::OutOfMemory => "sandbox_out_of_memory",
            Self::DiskLimit => "sandbox_disk_limit",
            Self::ProcessLimit => "sandbox_process_limit",
            Self::Restarting => "sandbox_restarting",
            Self::Failed => "sandbox_failed",
            Self::TimedOut => "sandbox_timed_out",
            Self::IdleStopped => "sandbox_idle_stopped",
        }
    }

    /// The one that is reported by this number.
    pub(crate) fn reported(number: i32) -> Option<Self> {
        let number = u8::try_from(number).ok().filter(|number| REPORTED.contains(number))?;
        Self::numbered(number)
    }

    fn numbered(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::SandboxRegistered,
            2 => Self::SandboxOffline,
            3 => Self::SandboxOnline,
            4 => Self::SandboxGone,
            5 => Self::DeadLettered,
            6 => Self::Expired,
            7 => Self::Looped,
            8 => Self::InboxFull,
            9 => Self::InboxTrimmed,
            10 => Self::ApprovalRequested,
            11 => Self::ApprovalGranted,
            12 => Self::ApprovalDenied,
            13 => Self::ApprovalExpired,
            14 => Self::OutOfMemory,
            15 => Self::DiskLimit,
            16 => Self::ProcessLimit,
            17 => Self::Restarting,
            18 => Self::Failed,
            19 => Self::TimedOut,
            20 => Self::IdleStopped,
            _ => return None,
        })
    }

    /// Whether it is about an approval, by its number.
    pub(crate) fn is_of_approval(self) -> bool {
        matches!(self, Self::ApprovalRequested | Self::ApprovalGranted | Self::ApprovalDenied | Self::ApprovalExpired)
    }
}

impl Field for EventKind {
    fn put(&self, out: &mut bytes::BytesMut) {
        (*self as u8).put(out);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        let number = reader.u8()?;
        Self::numbered(number).ok_or(DecodeError::Unknown { what: "event kind", value: number })
    }
}

encoded! {
    /// Something that happened. The key tells workspace and number.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Event {
        pub(crate) time_ms: u64,
        pub(crate) kind: EventKind,
        /// The name of the sandbox it is about.
        pub(crate) sandbox: String,
        /// Of the message, or the first of them, or of an approval; 0 when it is about none.
        pub(crate) sequence: u64,
        /// How many messages.
        pub(crate) count: u64,
        /// UTF-8.
        pub(crate) text: bytes::Bytes,
    }
}

/// What who runs sandboxes has seen.
pub(super) fn report(state: &mut State, verb: ReportEvents) -> Result<Result<(), Rejection>, StateError> {
    let Some(workspace) = state.workspace(&verb.workspace)? else {
        return Ok(Err(Rejection::unknown_workspace(&verb.workspace)));
    };
    let workspace = workspace.number;
    for ReportedEvent { kind, sandbox, text } in verb.events {
        raise(state, workspace, kind, &sandbox, (0, 1), text)?;
    }
    Ok(Ok(()))
}

/// Writes an event. The oldest ones make room for it.
pub(super) fn raise(
    state: &mut State,
    workspace: u32,
    kind: EventKind,
    sandbox: &str,
    (sequence, count): (u64, u64),
    text: impl Into<bytes::Bytes>,
) -> Result<(), StateError> {
    let Some(name) = state.workspace_name(workspace)? else { return Ok(()) };
    let Some(mut record) = state.workspace(&name)?.cloned() else { return Ok(()) };
    record.last_event += 1;
    let number = record.last_event;
    state.put_workspace(&name, record);
    let event = Event { time_ms: state.now_ms(), kind, sandbox: sandbox.into(), sequence, count, text: text.into() };
    state.put(EVENTS, keys::event(workspace, number), event.to_bytes());
    if let Some(oldest) = number.checked_sub(MAX_EVENTS) {
        state.delete(EVENTS, keys::event(workspace, oldest));
    }
    state.effect(Effect::Event { kind, count });
    Ok(())
}
