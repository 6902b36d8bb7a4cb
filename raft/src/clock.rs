//! The only place in this crate that reads a clock; for measurements, never for what is replicated.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What timers go by: in a simulation, its time.
pub(crate) fn timer_now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// Seconds since 1970; 0 on a machine whose clock stands before.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
