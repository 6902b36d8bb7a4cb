//! A limit to how fast snapshots leave a node, so that those who publish meanwhile do not feel it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{clock, pace::Pace};

/// How far behind the clock the limit may be: what was not used for longer than this is not made up for.
const LARGEST_BURST: Duration = Duration::from_millis(20);

/// Verifying what came reads it twice, out of memory as a rule: so much faster than it may come.
const VERIFY_FACTOR: u64 = 4;

/// Bytes against a number of them a second.
#[derive(Debug)]
pub(crate) struct Bucket {
    bytes_per_second: u64,
    /// How far behind the clock `paid` may be.
    burst: Duration,
    /// When what was let through so far is paid for.
    paid: Option<Instant>,
}

impl Bucket {
    pub(crate) fn new(bytes_per_second: u64, burst: Duration) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), burst, paid: None }
    }

    /// When this many bytes more are paid for.
    pub(crate) fn reserve(&mut self, now: Instant, bytes: u64) -> Instant {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let earliest = now.checked_sub(self.burst).unwrap_or(now);
        let paid = self.paid.unwrap_or(earliest).max(earliest) + cost;
        self.paid = Some(paid);
        paid
    }
}

/// Shared by all snapshots that a node sends.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// 0: no limit.
    bytes_per_second: u64,
    bucket: Mutex<Bucket>,
}

impl Throttle {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, bucket: Mutex::new(Bucket::new(bytes_per_second, LARGEST_BURST)) }
    }

    /// Waits until this many bytes more may leave.
    pub(crate) async fn pass(&self, bytes: usize) {
        let wait = self.reserve(clock::now(), bytes);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How fast what came from another node is read again. None: no limit.
    pub(crate) fn for_verifying(&self) -> Option<Pace> {
        let limited = self.bytes_per_second > 0;
        limited.then(|| Pace::new(self.bytes_per_second.saturating_mul(VERIFY_FACTOR)))
    }

    fn reserve(&self, now: Instant, bytes: usize) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        self.bucket.lock().reserve(now, bytes as u64).saturating_duration_since(now)
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
