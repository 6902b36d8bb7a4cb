//! Work in the background that must leave the disk and the processors to others.

use std::{thread, time::Duration};

use crate::{clock, throttle::Bucket};

/// Shorter waits are not worth a switch of threads.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);
/// Who waits looks this often whether the work is still wanted.
const LONGEST_WAIT: Duration = Duration::from_millis(200);

/// How far behind the clock the work may be: what a slow disk held up for longer than this is not made up for.
const LARGEST_BURST: Duration = Duration::from_millis(100);

/// Holds a thread back to a number of bytes a second.
#[derive(Debug)]
pub(crate) struct Pace(Bucket);

impl Pace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self(Bucket::new(bytes_per_second, LARGEST_BURST))
    }

    /// Counts bytes, and sleeps as long as there were too many. False, and at once, when the work is not wanted any more.
    pub(crate) fn spend(&mut self, bytes: u64, wanted: impl Fn() -> bool) -> bool {
        let due = self.0.reserve(clock::now(), bytes);
        while wanted() {
            match due.checked_duration_since(clock::now()) {
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
        for _ in 0..20 {
            assert!(pace.spend(10_000, || true));
        }
        assert!(begun.elapsed() >= Duration::from_millis(90), "{:?}", begun.elapsed());
        assert!(!pace.spend(u64::MAX / 2, || false), "nobody waits for what is not wanted");
    }

    #[test]
    fn time_in_which_nothing_was_read_is_not_saved_up() {
        let mut pace = Pace::new(1_000_000);
        let later = clock::now() + Duration::from_secs(100);
        let due: Vec<_> = (0..3).map(|_| pace.0.reserve(later, 1_000_000).duration_since(later).as_millis()).collect();
        assert_eq!(due, [900, 1_900, 2_900]);
    }
}
