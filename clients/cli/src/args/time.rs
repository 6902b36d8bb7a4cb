//! Points in time.

use std::time::SystemTime;

use crate::clock;

/// RFC 3339 (`2026-01-31T12:00:00Z`), or how long ago (`10m`, `2h 30m`).
pub(super) fn parse(text: &str) -> Result<SystemTime, String> {
    parse_at(text, clock::now())
}

/// RFC 3339 only, for times that are mostly to come.
pub(super) fn parse_absolute(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339_weak(text).map_err(|_| "write it like 2026-01-31T12:00:00Z".to_owned())
}

fn parse_at(text: &str, now: SystemTime) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text.trim())
        .map_err(|_| "write it like 2026-01-31T12:00:00Z, or like 10m for ten minutes ago".to_owned())?;
    now.checked_sub(ago).ok_or_else(|| "that is too long ago".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(parse_at("10m", now), Ok(now - Duration::from_secs(600)));
        assert_eq!(parse_at("1970-01-01T00:00:01Z", now), Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
        assert!(parse_at("yesterday", now).is_err());
        assert!(parse_at("10", now).is_err());
        assert_eq!(parse_absolute("1970-01-01T00:00:01Z"), Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
        assert!(parse_absolute("10m").is_err());
    }
}
