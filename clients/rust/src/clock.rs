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

/// A moment, to tell how long ago it was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment(Instant);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A wait before attempt number `attempt` (from 1): 20 ms, doubled each time, at most 1 s. A leader that hands over is back
/// elsewhere within that; where nobody can lead, waiting grows.
pub(crate) fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(20).saturating_mul(1 << attempt.saturating_sub(1).min(6)).min(Duration::from_secs(1))
}

/// The same where the broker may have asked for a wait: no less than that, and nothing where it says so. What it did not ask for is
/// spread by up to a fifth more, so that clients which failed together do not come back together.
pub(crate) fn pause(asked: Option<Duration>, attempt: u32) -> Duration {
    match asked {
        Some(asked) if asked.is_zero() => asked,
        asked => asked.unwrap_or_default().max(backoff(attempt).mul_f64(1.0 + 0.2 * share())),
    }
}

/// Anything from 0 to 1, each as likely.
fn share() -> f64 {
    // The last bytes of such an id are random.
    let [.., high, low] = uuid::Uuid::now_v7().into_bytes();
    f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_a_limit() {
        let waits: Vec<_> = [1, 2, 3, 40].map(|attempt| backoff(attempt).as_millis()).into();
        assert_eq!(waits, [20, 40, 80, 1000]);
        let asked = Some(Duration::from_millis(50));
        assert_eq!([1, 2].map(|attempt| pause(asked, attempt).as_millis()), [50, 50]);
        assert_eq!(pause(Some(Duration::ZERO), 9), Duration::ZERO);
    }

    #[test]
    fn who_failed_together_does_not_come_back_together() {
        let waits: std::collections::BTreeSet<_> = (0..100).map(|_| pause(None, 7)).collect();
        assert!(waits.len() > 50, "{waits:?}");
        assert!(waits.iter().all(|wait| (1_000..=1_200).contains(&wait.as_millis())), "{waits:?}");
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
