//! Work in the background that must leave the disk and the processors to others.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::clock;

/// Shorter waits are not worth a switch of threads.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);
/// Who waits looks this often whether the work is still wanted.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// Holds a thread back to a number of bytes a second.
#[derive(Debug)]
pub(crate) struct Pace {
    begun: Instant,
    spent: u64,
    bytes_per_second: u64,
}

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { begun: clock::now(), spent: 0, bytes_per_second: bytes_per_second.max(1) }
    }

    /// Counts bytes, and sleeps as long as there were too many. False, and at once, when the work is not wanted any more.
    pub(crate) fn spend(&mut self, bytes: u64, wanted: impl Fn() -> bool) -> bool {
        self.spent += bytes;
        let due = Duration::from_secs_f64(self.spent as f64 / self.bytes_per_second as f64);
        while wanted() {
            match due.checked_sub(self.begun.elapsed()) {
                Some(ahead) if ahead >= SHORTEST_WAIT => thread::sleep(ahead.min(LONGEST_WAIT)),
                _ => return true,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_the_time_that_its_bytes_allow() {
        let begun = clock::now();
        let mut pace = Pace::new(1_000_000);
        for _ in 0..10 {
            assert!(pace.spend(10_000, || true));
        }
        assert!(begun.elapsed() >= Duration::from_millis(90), "{:?}", begun.elapsed());
        assert!(!pace.spend(u64::MAX / 2, || false), "nobody waits for what is not wanted");
    }
}
