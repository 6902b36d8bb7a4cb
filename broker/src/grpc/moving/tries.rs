//! How often a subscription is offered to leaders, and with what pauses.

use std::time::Duration;

/// Tries in a row before the client is told. Each waits for a leader.
const MAX_TRIES: u32 = 8;
/// Before the second one; each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Tries since a leader has served the subscription. One that opens it and ends it at once has not.
#[derive(Debug, Default)]
pub(super) struct Tries {
    made: u32,
}

impl Tries {
    /// Begins another one; how long to wait before.
    pub(super) fn begin(&mut self) -> Duration {
        let pause = match self.made {
            0 => Duration::ZERO,
            made => (FIRST_PAUSE * (1 << (made - 1).min(10))).min(MAX_PAUSE),
        };
        self.made += 1;
        pause
    }

    /// Whether another one is not worth it.
    pub(super) fn are_enough(&self) -> bool {
        self.made >= MAX_TRIES
    }

    /// The subscription is served.
    pub(super) fn succeeded(&mut self) {
        self.made = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_slower_and_slower_and_end() {
        let mut tries = Tries::default();
        let pauses: Vec<u128> =
            std::iter::from_fn(|| (!tries.are_enough()).then(|| tries.begin().as_millis())).take(100).collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1_000, 1_000]);
        tries.succeeded();
        assert!(!tries.are_enough());
        assert_eq!(tries.begin(), Duration::ZERO, "a leader that has served may be left at once");
    }
}
