//! What rules and alerts are, outside and in the database.

use serde::{Deserialize, Serialize};
use tandem_client::EventType;
use utoipa::ToSchema;

use super::{
    values::Sealed,
    workspace::{MAX_NAME_CHARS, check_id, text},
};
use crate::error::Failure;

const MAX_COUNT: u64 = 10_000;
const MAX_SECONDS: u64 = 86_400;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident $(= $wire:ident)?;)*) => {
        /// What a rule can wait for: events of the broker, and what the control plane sees of containers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum AlertEvent {
            $($(#[$doc])* $name,)*
        }

        impl AlertEvent {
            /// All of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As the broker calls it; None: the control plane sees it.
            pub(crate) fn wire(self) -> Option<EventType> {
                match self { $(Self::$name => events!(@wire $($wire)?),)* }
            }
        }
    };
    (@wire) => { None };
    (@wire $wire:ident) => { Some(EventType::$wire) };
}

events! {
    SandboxRegistered = SandboxRegistered;
    /// Heartbeats were missed, and no subscription is open.
    SandboxOffline = SandboxOffline;
    SandboxOnline = SandboxOnline;
    SandboxGone = SandboxGone;
    MessageDeadLettered = MessageDeadLettered;
    MessageExpired = MessageExpired;
    MessageLooped = MessageLooped;
    InboxFull = InboxFull;
    InboxTrimmed = InboxTrimmed;
    ApprovalRequested = ApprovalRequested;
    ApprovalGranted = ApprovalGranted;
    ApprovalDenied = ApprovalDenied;
    ApprovalExpired = ApprovalExpired;
    /// Its container was killed: it took more memory than it may.
    OutOfMemory;
    /// It has written as much as it may.
    DiskLimit;
    /// It has as many processes as it may, or nearly.
    ProcessLimit;
    /// Its container ended, and is started again.
    Restarting;
    /// Its container does not run, and is not started again.
    Failed;
    /// It was stopped: its time was over.
    TimedOut;
    /// It was stopped: nobody needed it.
    IdleStopped;
    /// Somebody has ended what connected it.
    Disconnected;
}

impl AlertEvent {
    /// As it is written outside.
    pub(crate) fn name(self) -> String {
        // What is a word in JSON is a text.
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    Info,
    #[default]
    Warning,
    Critical,
}

fn one() -> u64 {
    1
}

fn minute() -> u64 {
    60
}

/// When a rule fires: at least `count` of an event within a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Condition {
    pub(crate) event: AlertEvent,
    /// About this sandbox. Unset: about any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub(crate) sandbox_id: Option<String>,
    /// How many; where an event is about several messages, each of them counts.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 10_000, default = 1)]
    pub(crate) count: u64,
    /// Within how many seconds, to about a sixtieth of it.
    #[serde(default = "minute")]
    #[schema(minimum = 1, maximum = 86_400, default = 60)]
    pub(crate) window_seconds: u64,
}

impl Condition {
    fn check(&self) -> Result<(), Failure> {
        for (field, number, most) in
            [("condition.count", self.count, MAX_COUNT), ("condition.window_seconds", self.window_seconds, MAX_SECONDS)]
        {
            if !(1..=most).contains(&number) {
                return Err(Failure::field(field, format!("{number} is not 1 to {most}")));
            }
        }
        match &self.sandbox_id {
            Some(id) if check_id(id).is_err() => {
                Err(Failure::field("condition.sandbox_id", "it is no id of a sandbox"))
            }
            _ => Ok(()),
        }
    }
}

/// Whom a rule tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Webhook {
    pub(crate) url: String,
    pub(crate) secret: Sealed,
}

/// What there is to say about a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleDocument {
    pub(crate) enabled: bool,
    pub(crate) condition: Condition,
    pub(crate) severity: Severity,
    pub(crate) quiet_seconds: u64,
    pub(crate) webhook: Option<Webhook>,
    /// The first event of the broker that counts: what was before the rule does not. 0: the rule waits for none of the broker's.
    pub(crate) from_event: u64,
    /// The same of what the control plane sees, in milliseconds since 1970.
    pub(crate) since_ms: i64,
}

impl RuleDocument {
    pub(crate) fn check(&self, name: &str) -> Result<(), Failure> {
        text("name", name, 1, MAX_NAME_CHARS)?;
        self.condition.check()?;
        if self.quiet_seconds > MAX_SECONDS {
            return Err(Failure::field("quiet_seconds", format!("{} is not 0 to {MAX_SECONDS}", self.quiet_seconds)));
        }
        Ok(())
    }
}

/// Whether the webhook of a rule has heard of an alert.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliveryState {
    /// The rule has no webhook.
    #[default]
    None,
    /// It is tried, again where it failed.
    Waiting,
    Delivered,
    /// It was tried as often as it may be, or the receiver wants it no more.
    Failed,
}

/// What there is to say about an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AlertDocument {
    pub(crate) rule_id: String,
    /// When it fired.
    pub(crate) rule_name: String,
    pub(crate) severity: Severity,
    /// The name of what happened, or `events_missed`.
    pub(crate) event: String,
    /// For whom it fired; empty: it is about none.
    pub(crate) sandbox_id: String,
    pub(crate) text: String,
    /// How many, those of the quiet time behind it included.
    pub(crate) count: u64,
    /// The last one, in milliseconds since 1970.
    pub(crate) last_ms: i64,
    pub(crate) acknowledged_by: String,
    /// In milliseconds since 1970; 0: nobody has.
    pub(crate) acknowledge_ms: i64,
    pub(crate) delivery: DeliveryState,
    pub(crate) attempts: i64,
    /// Of the last attempt that failed.
    pub(crate) delivery_error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_called_as_the_broker_calls_them() {
        for event in AlertEvent::ALL {
            if let Some(wire) = event.wire() {
                let expected = wire.as_str_name().trim_start_matches("EVENT_TYPE_").to_lowercase();
                assert_eq!(event.name(), expected);
            }
        }
        // From there on they are what this side reports.
        let own = 1..i32::from(EventType::SandboxOutOfMemory);
        let known = own.map_while(|number| EventType::try_from(number).ok()).count();
        assert_eq!(AlertEvent::ALL.iter().filter(|event| event.wire().is_some()).count(), known, "all of the broker's");
        assert_eq!(AlertEvent::OutOfMemory.name(), "out_of_memory");
    }

    #[test]
    fn what_cannot_be_is_named() {
        let of = |text: &str| serde_json::from_str::<Condition>(text).unwrap().check();
        of(r#"{"event":"sandbox_offline"}"#).unwrap();
        for (text, field) in [
            (r#"{"event":"failed","count":0}"#, "condition.count"),
            (r#"{"event":"failed","count":10001}"#, "condition.count"),
            (r#"{"event":"failed","window_seconds":86401}"#, "condition.window_seconds"),
            (r#"{"event":"failed","sandbox_id":"a b"}"#, "condition.sandbox_id"),
        ] {
            assert!(of(text).unwrap_err().to_string().starts_with(field));
        }
        assert!(serde_json::from_str::<Condition>(r#"{"event":"nonsense"}"#).is_err());
    }
}
