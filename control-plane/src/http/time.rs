//! Times as they are written outside: RFC 3339, in UTC, to the millisecond.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::{clock, error::Failure};

/// A time of the database.
pub(crate) fn of_ms(unix_ms: i64) -> String {
    clock::written(unix_ms)
}

/// A time of the broker; None: it has given none.
pub(crate) fn of(timestamp: Option<&prost_types::Timestamp>) -> Option<String> {
    SystemTime::try_from(*timestamp?).ok().map(of_system)
}

/// A time of this machine.
pub(crate) fn of_system(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(clock::LAST);
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

/// A time that a caller has written.
pub(crate) fn read(field: &str, text: Option<&str>) -> Result<Option<SystemTime>, Failure> {
    let Some(text) = text else { return Ok(None) };
    humantime::parse_rfc3339(text)
        .map(Some)
        .map_err(|_| Failure::field(field, format!("{text:?} is no time such as 2026-11-22T10:00:00Z")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_for_all() {
        assert_eq!(of_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(of_ms(i64::MAX), "9999-12-31T23:59:59.000Z");
        let time = prost_types::Timestamp { seconds: 1, nanos: 5_000_000 };
        assert_eq!(of(Some(&time)).as_deref(), Some("1970-01-01T00:00:01.005Z"));
        assert_eq!(of(None), None);
        assert_eq!(read("t", Some("1970-01-01T00:00:01Z")).unwrap(), Some(UNIX_EPOCH + Duration::from_secs(1)));
        assert!(read("t", Some("yesterday")).unwrap_err().to_string().starts_with("t: "));
    }
}
