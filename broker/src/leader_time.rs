//! The time that a leader says with its commands: the clock of its machine, except where that stands behind the shard's own time.
//!
//! The time of a shard never runs backwards. Once a leader's clock was ahead, as when somebody has set it, the others come
//! after with clocks that are behind what the shard has seen. If time stood still until they have caught up, no retry, delay or ttl
//! would end for as long as the clock was wrong by. So it goes on, at half speed: nothing stops, and the clock catches up.

use std::time::Instant;

use parking_lot::Mutex;

use crate::clock;

/// How much slower time passes while it is ahead of the clock.
const SLOWER: u64 = 2;

/// The time of one shard on this node. Shared by all that stamp commands or wait for a time.
#[derive(Debug)]
pub(crate) struct LeaderTime(Mutex<Anchor>);

/// At this moment it was so late.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    time_ms: u64,
    at: Instant,
}

impl LeaderTime {
    /// `newest_ms`: the newest time in the log.
    pub(crate) fn new(newest_ms: u64) -> Self {
        Self(Mutex::new(Anchor { time_ms: newest_ms, at: clock::now() }))
    }

    /// Now, in milliseconds since 1970: never less than it was before.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.lock().tell(clock::unix_ms(), clock::now())
    }

    /// The same, where the log has a newer time than this node has seen so far.
    pub(crate) fn not_before(&self, newest_ms: u64) -> u64 {
        let (clock_ms, at) = (clock::unix_ms(), clock::now());
        let mut anchor = self.0.lock();
        if anchor.tell(clock_ms, at) < newest_ms {
            *anchor = Anchor { time_ms: newest_ms, at };
        }
        anchor.tell(clock_ms, at)
    }
}

impl Anchor {
    fn tell(&mut self, clock_ms: u64, at: Instant) -> u64 {
        let passed_ms = at.saturating_duration_since(self.at).as_millis() as u64;
        let on_its_own_ms = self.time_ms.saturating_add(passed_ms / SLOWER);
        if clock_ms >= on_its_own_ms {
            *self = Self { time_ms: clock_ms, at };
        }
        clock_ms.max(on_its_own_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn time_goes_on_while_the_clock_is_behind_and_the_clock_catches_up() {
        let start = clock::now();
        let after = |ms: u64| start + Duration::from_millis(ms);
        let mut time = Anchor { time_ms: 1_000, at: start };
        assert_eq!(time.tell(5_000, after(0)), 5_000, "it is the clock's");
        assert_eq!(time.tell(5_010, after(10)), 5_010);
        // Set ten minutes ahead for a moment, then right again.
        assert_eq!(time.tell(605_010, after(20)), 605_010);
        let told: Vec<_> = (0..5).map(|step| time.tell(5_030 + step * 100, after(30 + step * 100))).collect();
        assert_eq!(told, [605_015, 605_065, 605_115, 605_165, 605_215], "half as fast, and never back");
        // After twice as long the clock has caught up.
        assert_eq!(time.tell(1_205_020, after(1_200_020)), 1_205_020);
        assert_eq!(time.tell(1_205_030, after(1_200_030)), 1_205_030);
    }

    #[test]
    fn a_new_leader_goes_on_from_the_newest_time_of_the_log() {
        let time = LeaderTime::new(0);
        let newest_ms = clock::unix_ms() + 3_600_000;
        assert_eq!(time.not_before(newest_ms), newest_ms);
        assert!(time.now_ms() >= newest_ms);
        let ahead = time.now_ms();
        assert!(time.not_before(5) >= ahead, "an older time turns nothing back");
    }
}
