//! The only place in this crate that reads a clock.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The last second that RFC 3339 can write, for what is never.
pub(crate) const LAST: Duration = Duration::from_secs(253_402_300_799);

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

/// Milliseconds since 1970 in RFC 3339.
pub(crate) fn written(unix_ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0)).min(LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}
