//! Times on the wire.

use std::ops::RangeInclusive;

use prost_types::{Duration, Timestamp};

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

pub(crate) fn duration(milliseconds: u64) -> Duration {
    Duration { seconds: (milliseconds / 1000) as i64, nanos: (milliseconds % 1000 * 1_000_000) as i32 }
}

/// A duration in milliseconds, rounded up, within a range.
pub(crate) fn milliseconds(
    field: &'static str,
    value: Option<Duration>,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, Rejection> {
    let Some(value) = value else { return Ok(None) };
    let seconds = u64::try_from(value.seconds).ok();
    let nanos = u64::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let milliseconds = seconds.zip(nanos).and_then(|(seconds, nanos)| {
        seconds.checked_mul(1000)?.checked_add(nanos.div_ceil(1_000_000)).filter(|value| range.contains(value))
    });
    milliseconds.map(Some).ok_or_else(|| {
        let text = format!(
            "{field} is {} s and {} ns; it must be {} ms to {} ms",
            value.seconds,
            value.nanos,
            range.start(),
            range.end()
        );
        Rejection::field(field, text)
    })
}
