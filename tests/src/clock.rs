//! The clock, for tests that measure or wait.

#![allow(clippy::disallowed_methods, reason = "the one door of this crate to the clock")]

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Now, to measure by.
pub fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds since 1970: different in every run, for seeds.
pub fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock stands after 1970");
    since.as_nanos() as u64
}
