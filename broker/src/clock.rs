//! The only place in this crate that reads a clock. What is replicated gets its time from here once, in the batcher.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 on a machine whose clock stands before.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// For measuring durations.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A new id, unique everywhere, that sorts by its time.
pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
