//! A message that waits on its own, outside of its lane: a retry, a delayed message, one that was put back or replayed.
//!
//! In a lane messages wait in batches, at next to no cost each; a lane has no place for one that is to come later. Such a
//! message leaves its lane, as if it were acknowledged, and gets a record of its own, in one and the same command: in
//! DEFERRED while it waits for its time, in READY while it may be delivered.

use bytes::Bytes;

use crate::{
    command::nack::AttemptError,
    encoding::{DecodeError, Field, Reader, encoded},
};

/// Failed attempts that are kept, the newest.
pub(crate) const MAX_HISTORY: usize = 32;

encoded! {
    /// One delivery that did not end with an ack.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct FailedAttempt {
        pub(crate) attempt: u32,
        pub(crate) time_ms: u64,
        pub(crate) error: AttemptError,
        /// UTF-8, in the words of the subscriber.
        pub(crate) text: Bytes,
    }
}

/// Where the message itself is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// In the batch that begins with this sequence.
    Stored(u64),
    /// Here, as a batch of one: it is kept whatever becomes of the history.
    Own(Bytes),
}

impl Field for Content {
    fn put(&self, out: &mut bytes::BytesMut) {
        match self {
            Self::Stored(first) => {
                0_u8.put(out);
                first.put(out);
            }
            Self::Own(batch) => {
                1_u8.put(out);
                batch.put(out);
            }
        }
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.u8()? {
            0 => Ok(Self::Stored(reader.u64()?)),
            1 => Ok(Self::Own(reader.bytes()?)),
            value => Err(DecodeError::Unknown { what: "content", value }),
        }
    }
}

encoded! {
    /// See the module. The key tells workspace, recipient, priority and sequence.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Parked {
        pub(crate) content: Content,
        /// The number of the next or current attempt, from 1. Written before that attempt is made.
        pub(crate) attempt: u32,
        /// When it may be delivered, in milliseconds since 1970.
        pub(crate) due_ms: u64,
        /// When it expires, in milliseconds since 1970; 0 never.
        pub(crate) expires_ms: u64,
        /// Hash of its ordering key; 0 without one.
        pub(crate) ordering: u64,
        /// Bytes of its body.
        pub(crate) bytes: u32,
        /// Whether later messages of its ordering key wait for it: it was delivered before.
        pub(crate) blocks: bool,
        pub(crate) history: Vec<FailedAttempt>,
    }
}

impl Parked {
    /// Adds a failed attempt to the history; the next one is due.
    pub(crate) fn fail(&mut self, time_ms: u64, error: AttemptError, text: Bytes) {
        if self.history.len() >= MAX_HISTORY {
            self.history.remove(0);
        }
        self.history.push(FailedAttempt { attempt: self.attempt, time_ms, error, text });
        self.attempt = self.attempt.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked() -> Parked {
        Parked {
            content: Content::Stored(7),
            attempt: 1,
            due_ms: 2,
            expires_ms: 3,
            ordering: 4,
            bytes: 5,
            blocks: true,
            history: Vec::new(),
        }
    }

    #[test]
    fn a_parked_message_has_these_bytes_and_comes_back() {
        let eight = |value: u8| [0, 0, 0, 0, 0, 0, 0, value];
        let golden: Vec<u8> =
            [[0].as_slice(), &eight(7), &[0, 0, 0, 1], &eight(2), &eight(3), &eight(4), &[0, 0, 0, 5, 1, 0, 0, 0, 0]]
                .concat();
        assert_eq!(parked().to_bytes().as_ref(), golden);
        let mut failed = Parked { content: Content::Own(Bytes::from_static(b"batch")), ..parked() };
        failed.fail(9, AttemptError::Lapsed, Bytes::from_static(b"slow"));
        assert_eq!((failed.attempt, failed.history[0].attempt), (2, 1));
        assert_eq!(Parked::from_bytes(failed.to_bytes(), "parked").unwrap(), failed);
    }

    #[test]
    fn the_history_keeps_the_newest() {
        let mut parked = parked();
        (0..40).for_each(|time| parked.fail(time, AttemptError::Nacked, Bytes::new()));
        assert_eq!((parked.history.len(), parked.history[0].attempt, parked.attempt), (MAX_HISTORY, 9, 41));
    }
}
