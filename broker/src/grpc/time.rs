//! Times on the wire.

use prost_types::Timestamp;

use crate::rejection::Rejection;

pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    Timestamp { seconds: (unix_ms / 1000) as i64, nanos: (unix_ms % 1000 * 1_000_000) as i32 }
}

/// Milliseconds since 1970, rounded up, so that "at or after" holds for the finer time too.
pub(crate) fn unix_ms(field: &'static str, time: Option<Timestamp>) -> Result<Option<u64>, Rejection> {
    let Some(time) = time else { return Ok(None) };
    if !(0..=253_402_300_799).contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos) {
        let text = format!("{field} is {} s and {} ns; it must lie between 1970 and 9999", time.seconds, time.nanos);
        return Err(Rejection::field(field, text));
    }
    Ok(Some(time.seconds as u64 * 1000 + u64::from(time.nanos as u32).div_ceil(1_000_000)))
}
