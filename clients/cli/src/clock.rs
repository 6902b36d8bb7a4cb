//! The only place of this crate that reads a clock or makes up names.
#![allow(clippy::disallowed_methods, reason = "this is the place for it")]

use std::{
    sync::LazyLock,
    time::{Instant, SystemTime},
};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since an instant early in this process; never runs backwards. Comparable between tasks of this process only.
pub(crate) fn nanos() -> u64 {
    // 584 years.
    START.elapsed().as_nanos() as u64
}

/// For measuring durations.
pub(crate) fn instant() -> Instant {
    Instant::now()
}

/// The time of day.
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// An id that nothing else has, a UUID of version 7.
pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A short id that no other run uses: the time in milliseconds and 16 random bits, in base 36. Sorts by time.
pub(crate) fn run_id() -> String {
    let id = uuid::Uuid::now_v7().as_u128();
    let (millis, random) = (id >> 80, id & 0xffff);
    base36(millis << 16 | random)
}

fn base36(mut number: u128) -> String {
    let mut digits = Vec::new();
    while number > 0 || digits.is_empty() {
        digits.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[(number % 36) as usize]);
        number /= 36;
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base36_counts() {
        assert_eq!([0, 35, 36, 1296].map(base36), ["0", "z", "10", "100"]);
        assert_ne!(run_id(), run_id());
    }

    #[test]
    fn nanos_go_forward() {
        let first = nanos();
        assert!(nanos() >= first);
    }
}
