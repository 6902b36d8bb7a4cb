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
        let given = match seconds.zip(nanos).and_then(|(seconds, nanos)| Some((seconds.checked_mul(1000)?, nanos))) {
            Some((ms, nanos)) if nanos.is_multiple_of(1_000_000) => shown(ms.saturating_add(nanos / 1_000_000)),
            _ => format!("{} s and {} ns", value.seconds, value.nanos),
        };
        let text = format!("{field} is {given}; it must be {} to {}", shown(*range.start()), shown(*range.end()));
        Rejection::field(field, text)
    })
}

/// A duration in the largest unit that needs no fraction.
fn shown(milliseconds: u64) -> String {
    let units = [(24 * 3_600_000, "days"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    let unit = units.into_iter().find(|(size, _)| milliseconds >= 2 * size && milliseconds.is_multiple_of(*size));
    let (size, name) = unit.unwrap_or(if milliseconds == 1_000 { (1_000, "s") } else { (1, "ms") });
    format!("{} {name}", milliseconds / size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_shown_in_units_that_people_use() {
        let texts: Vec<_> = [0, 10, 1_000, 1_500, 59_000, 60_000, 86_400_000, 366 * 86_400_000].map(shown).into();
        assert_eq!(texts, ["0 ms", "10 ms", "1 s", "1500 ms", "59 s", "60 s", "24 h", "366 days"]);
    }

    #[test]
    fn a_duration_out_of_range_is_named_with_the_range() {
        let refused = |seconds, nanos| {
            milliseconds("ttl", Some(Duration { seconds, nanos }), 1_000..=86_400_000).unwrap_err().text
        };
        assert_eq!(refused(0, 100_000_000), "ttl is 100 ms; it must be 1 s to 24 h");
        assert_eq!(refused(-1, 0), "ttl is -1 s and 0 ns; it must be 1 s to 24 h");
        assert_eq!(refused(i64::MAX, 1), format!("ttl is {} s and 1 ns; it must be 1 s to 24 h", i64::MAX));
    }
}
