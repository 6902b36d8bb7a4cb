//! The only place of this crate that reads a clock or makes up ids, so that everything else can be replayed in a test.
#![allow(clippy::disallowed_methods, reason = "this is the place for it")]

use std::time::Duration;

use tokio::time::Instant;

/// A new id, of a message, a producer or a conversation: a UUID of version 7, so that ids made later sort later.
pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// How much is left of a time limit that began when this was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    start: Instant,
    limit: Duration,
}

impl Allowance {
    pub(crate) fn of(limit: Duration) -> Self {
        Self { start: Instant::now(), limit }
    }

    /// Zero once the time is up.
    pub(crate) fn left(self) -> Duration {
        self.limit.saturating_sub(self.start.elapsed())
    }
}

/// A wait before attempt number `attempt` (from 1): 100 ms, doubled each time, at most 2 s.
pub(crate) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(100).saturating_mul(1 << attempt.saturating_sub(1).min(5)).min(Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_a_limit() {
        let waits: Vec<_> = [1, 2, 3, 40].map(|attempt| backoff(attempt).as_millis()).into();
        assert_eq!(waits, [100, 200, 400, 2000]);
    }

    #[test]
    fn ids_are_different() {
        assert_ne!(new_id(), new_id());
    }

    #[tokio::test]
    async fn an_allowance_runs_out() {
        let allowance = Allowance::of(Duration::from_millis(20));
        assert!(allowance.left() <= Duration::from_millis(20));
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(allowance.left(), Duration::ZERO);
    }
}
