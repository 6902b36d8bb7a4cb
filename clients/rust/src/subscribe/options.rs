//! What a subscription may be told.

use std::time::Duration;

use tandem_proto::raw::messaging::v1 as raw;

use crate::{AckMode, wire_duration};

/// How much the broker may send ahead of what has been taken from the subscription, and for how long it lends a delivery.
///
/// A delivery counts as lent from the moment it is sent: who works long on each message takes little credit, or
/// [extends](super::Subscription::extend_all) what it holds.
///
/// ```
/// use std::time::Duration;
/// use tandem_client::SubscribeOptions;
///
/// let one_at_a_time = SubscribeOptions::default().credit(1, 1 << 20).ack_deadline(Duration::from_secs(600));
/// assert_eq!(one_at_a_time.credit_messages, 1);
/// ```
#[derive(Debug, Clone)]
pub struct SubscribeOptions {
    /// Messages. The broker allows up to 65,536 unless its settings say otherwise. Default: 1,024.
    pub credit_messages: u32,
    /// Bytes of encoded messages. The broker allows up to 64 MiB unless its settings say otherwise. Default: 8 MiB.
    pub credit_bytes: u64,
    /// How long a delivery may take before it counts as failed: 1 s to 24 h. Default: None, the broker's 30 s.
    pub ack_deadline: Option<Duration>,
    /// What an acknowledgement can do after its lease has lapsed: nothing (strict), or still take the message out of the
    /// inbox as long as nobody else holds it (lenient). Default: unspecified, which is strict.
    pub ack_mode: AckMode,
    /// Of 100 deliveries while messages of several priorities wait, how many go to the oldest message that is not of the
    /// highest of them: 0 (strict priority) to 50. Default: 0.
    pub low_priority_percent: u32,
}

impl Default for SubscribeOptions {
    fn default() -> Self {
        Self {
            credit_messages: 1024,
            credit_bytes: 8 << 20,
            ack_deadline: None,
            ack_mode: AckMode::Unspecified,
            low_priority_percent: 0,
        }
    }
}

impl SubscribeOptions {
    /// How much may be sent ahead: messages, and bytes of encoded messages.
    #[must_use]
    pub fn credit(self, messages: u32, bytes: u64) -> Self {
        Self { credit_messages: messages, credit_bytes: bytes, ..self }
    }

    /// How long a delivery may take before it counts as failed: 1 s to 24 h.
    #[must_use]
    pub fn ack_deadline(self, deadline: Duration) -> Self {
        Self { ack_deadline: Some(deadline), ..self }
    }

    /// An acknowledgement after the deadline still counts, as long as nobody else holds the message.
    #[must_use]
    pub fn lenient(self) -> Self {
        Self { ack_mode: AckMode::Lenient, ..self }
    }

    /// The share of low priorities, in percent: 0 to 50.
    #[must_use]
    pub fn low_priority_percent(self, percent: u32) -> Self {
        Self { low_priority_percent: percent, ..self }
    }

    pub(super) fn open(&self, workspace_id: String, sandbox_id: String) -> raw::Open {
        raw::Open {
            workspace_id,
            sandbox_id,
            ack_deadline: self.ack_deadline.map(wire_duration),
            ack_mode: self.ack_mode.into(),
            low_priority_percent: self.low_priority_percent,
        }
    }
}
