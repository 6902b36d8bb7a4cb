//! The only place in this crate that reads a clock.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 on a machine whose clock stands before.
pub(crate) fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

/// For measuring durations.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// For times that others read.
pub(crate) fn system() -> SystemTime {
    SystemTime::now()
}
