//! Arguments about events.

use clap::{Args, ValueEnum};
use tandem_client::EventType;

/// `tandem events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Events are numbered from 1. To miss none over a break, go on with --from-event, one above the
last that was printed. The broker keeps the newest 100000 of a workspace.")]
pub struct EventsArgs {
    /// Go on with what happens from now on
    #[arg(long, short)]
    pub follow: bool,
    /// The first event; unless given: the first of all, with --follow the next that happens
    #[arg(long, value_name = "EVENT", value_parser = clap::value_parser!(u64).range(1..))]
    pub from_event: Option<u64>,
    /// Only these; may be repeated
    #[arg(long = "type", value_enum)]
    pub kinds: Vec<EventName>,
    /// Only events about this sandbox
    #[arg(long, value_name = "ID")]
    pub sandbox: Option<String>,
    /// At most so many; 0 for all; unless given: 100, and all with --follow
    #[arg(long)]
    pub limit: Option<usize>,
}

/// What happens in a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventName {
    /// A sandbox was registered
    SandboxRegistered,
    /// Its heartbeats were missed, and no subscription is open
    SandboxOffline,
    /// It was offline and is back
    SandboxOnline,
    /// It was unregistered
    SandboxGone,
    /// A message became a dead letter
    MessageDeadLettered,
    /// The ttl of a message ended
    MessageExpired,
    /// A conversation went to and fro too often
    MessageLooped,
    /// A message was refused because of a full inbox
    InboxFull,
    /// Messages that were still waiting were trimmed
    InboxTrimmed,
    /// A message waits for approval
    ApprovalRequested,
    /// It was approved, and is in the log
    ApprovalGranted,
    /// It was denied, or approved and not let through
    ApprovalDenied,
    /// Nobody decided in time
    ApprovalExpired,
    /// A process in it was killed: it has no more memory
    SandboxOutOfMemory,
    /// It was stopped: it has written more than it may
    SandboxDiskLimit,
    /// It has as many processes as it may, or nearly
    SandboxProcessLimit,
    /// It ended by itself, and is started again
    SandboxRestarting,
    /// It ended by itself, and is not started again
    SandboxFailed,
    /// It was stopped: its time was over
    SandboxTimedOut,
    /// It was stopped: it had nothing to do
    SandboxIdleStopped,
}

impl From<EventName> for EventType {
    fn from(name: EventName) -> Self {
        match name {
            EventName::SandboxRegistered => Self::SandboxRegistered,
            EventName::SandboxOffline => Self::SandboxOffline,
            EventName::SandboxOnline => Self::SandboxOnline,
            EventName::SandboxGone => Self::SandboxGone,
            EventName::MessageDeadLettered => Self::MessageDeadLettered,
            EventName::MessageExpired => Self::MessageExpired,
            EventName::MessageLooped => Self::MessageLooped,
            EventName::InboxFull => Self::InboxFull,
            EventName::InboxTrimmed => Self::InboxTrimmed,
            EventName::ApprovalRequested => Self::ApprovalRequested,
            EventName::ApprovalGranted => Self::ApprovalGranted,
            EventName::ApprovalDenied => Self::ApprovalDenied,
            EventName::ApprovalExpired => Self::ApprovalExpired,
            EventName::SandboxOutOfMemory => Self::SandboxOutOfMemory,
            EventName::SandboxDiskLimit => Self::SandboxDiskLimit,
            EventName::SandboxProcessLimit => Self::SandboxProcessLimit,
            EventName::SandboxRestarting => Self::SandboxRestarting,
            EventName::SandboxFailed => Self::SandboxFailed,
            EventName::SandboxTimedOut => Self::SandboxTimedOut,
            EventName::SandboxIdleStopped => Self::SandboxIdleStopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::word;

    #[test]
    fn events_are_printed_as_the_option_takes_them() {
        for &name in EventName::value_variants() {
            let option = name.to_possible_value().map(|value| value.get_name().to_owned());
            assert_eq!(option, Some(word(EventType::from(name).as_str_name(), "EVENT_TYPE_")));
        }
    }
}
