//! The only place of this crate that reads a clock or makes up ids, so that everything else can be replayed in a test.
#![allow(clippy::disallowed_methods, reason = "this is the place for it")]

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// A new message id: a UUID of version 7, so that ids made later sort later.
pub(crate) fn new_message_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A time of the contract; the epoch when the server sent none or one that this machine cannot hold.
pub(crate) fn from_timestamp(timestamp: Option<Timestamp>) -> SystemTime {
    timestamp.and_then(|timestamp| SystemTime::try_from(timestamp).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A wait before attempt number `attempt` (from 1): 100 ms, doubled each time, at most 2 s.
pub(crate) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << attempt.saturating_sub(1).min(5)).min(Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_a_limit() {
        let waits: Vec<_> = [1, 2, 3, 40].map(|attempt| backoff(attempt).as_millis()).into();
        assert_eq!(waits, [100, 200, 400, 2000]);
    }

    #[test]
    fn message_ids_are_different() {
        assert_ne!(new_message_id(), new_message_id());
    }
}
