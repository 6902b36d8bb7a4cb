//! A limit to how fast snapshots leave a node, so that those who publish meanwhile do not feel it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;

/// How far behind the clock the limit may be: what was not used for longer than this is not made up for.
const LARGEST_BURST: Duration = Duration::from_millis(20);

/// Shared by all snapshots that a node sends.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// 0: no limit.
    bytes_per_second: u64,
    /// When what was let through so far is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, paid: Mutex::new(None) }
    }

    /// Waits until this many bytes more may leave.
    pub(crate) async fn pass(&self, bytes: usize) {
        let wait = self.reserve(clock::now(), bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    fn reserve(&self, now: Instant, bytes: usize) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid = self.paid.lock();
        let earliest = now.checked_sub(LARGEST_BURST).unwrap_or(now);
        let next = paid.unwrap_or(earliest).max(earliest) + cost;
        *paid = Some(next);
        next.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_passes_and_idle_time_is_not_saved_up() {
        let throttle = Throttle::new(1_000_000);
        let start = clock::now();
        let waits: Vec<_> = (0..4).map(|_| throttle.reserve(start, 100_000).as_millis()).collect();
        assert_eq!(waits, [80, 180, 280, 380]);
        let later = start + Duration::from_secs(100);
        assert_eq!(throttle.reserve(later, 100_000).as_millis(), 80, "and not none, for 100 s without a byte");
        assert_eq!(Throttle::new(0).reserve(start, usize::MAX), Duration::ZERO);
    }
}
