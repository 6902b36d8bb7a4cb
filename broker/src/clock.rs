//! The only place in this crate that reads a clock. What is replicated gets its time from here once, in the batcher.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[cfg(test)]
thread_local! {
    /// In a simulation: what the clocks of the node show that runs now.
    static SIMULATED: std::cell::Cell<Option<(u64, Instant)>> = const { std::cell::Cell::new(None) };
}

/// Sets what [`unix_ms`] and [`now`] show on this thread.
#[cfg(test)]
pub(crate) fn simulate(unix_ms: u64, now: Instant) {
    SIMULATED.set(Some((unix_ms, now)));
}

/// Milliseconds since 1970; 0 on a machine whose clock stands before.
pub(crate) fn unix_ms() -> u64 {
    #[cfg(test)]
    if let Some((unix_ms, _)) = SIMULATED.get() {
        return unix_ms;
    }
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// For measuring durations.
pub(crate) fn now() -> Instant {
    #[cfg(test)]
    if let Some((_, now)) = SIMULATED.get() {
        return now;
    }
    Instant::now()
}

/// A new id, unique everywhere, that sorts by its time.
pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}
