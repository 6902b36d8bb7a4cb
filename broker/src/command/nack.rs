//! Nack: deliveries to one recipient failed. Each message leaves its lane and is parked until its next attempt, or becomes a
//! dead letter.

use bytes::{Bytes, BytesMut};

use super::ack::{FinishedRun, Lane, Source};
use crate::encoding::{DecodeError, Field, Reader, encoded};

/// How a delivery failed. Numbers are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptError {
    /// The subscriber refused it.
    Nacked = 1,
    /// The ack deadline passed.
    Lapsed = 2,
    /// The stream broke.
    StreamBroken = 3,
}

impl Field for AttemptError {
    fn put(&self, out: &mut BytesMut) {
        (*self as u8).put(out);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8()? {
            1 => Ok(Self::Nacked),
            2 => Ok(Self::Lapsed),
            3 => Ok(Self::StreamBroken),
            value => Err(DecodeError::Unknown { what: "attempt error", value }),
        }
    }
}

encoded! {
    /// One message whose delivery failed.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Failed {
        pub(crate) lane: Lane,
        pub(crate) sequence: u64,
        /// The message before it in the lane. 0 for what was parked.
        pub(crate) after: u64,
        /// First sequence of its batch. 0 for what was parked.
        pub(crate) batch: u64,
    }
}

encoded! {
    /// Deliveries to one recipient that failed in the same way.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Nack {
        pub(crate) workspace: u32,
        pub(crate) sandbox: u32,
        pub(crate) messages: Vec<Failed>,
        /// As in an ack.
        pub(crate) finished: Vec<FinishedRun>,
        pub(crate) error: AttemptError,
        /// UTF-8, in the words of the subscriber.
        pub(crate) text: Bytes,
        /// Until the next attempt, in milliseconds; none for the backoff of the recipient.
        pub(crate) delay_ms: Option<u64>,
        /// No further attempt.
        pub(crate) dead_letter: bool,
    }
}

impl Nack {
    /// The messages in it that waited on their own: priority and sequence.
    pub(crate) fn alone(&self) -> impl Iterator<Item = (u8, u64)> {
        let alone = self.messages.iter().filter(|failed| failed.lane.source == Source::Parked);
        alone.map(|failed| (failed.lane.priority, failed.sequence))
    }
}

encoded! {
    /// What a nack came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Nacked {
        /// Messages that will be attempted again.
        pub(crate) deferred: u64,
        /// Messages that became dead letters.
        pub(crate) dead_lettered: u64,
    }
}
