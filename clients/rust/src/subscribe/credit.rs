//! When to give the broker new credit.

/// Credit in messages and in bytes of encoded messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Credit {
    pub(super) messages: u32,
    pub(super) bytes: u64,
}

impl Credit {
    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.messages = self.messages.saturating_add(other.messages);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Counts what was taken and gives back exactly that, once half of the window is used: often enough that the broker never
/// waits, seldom enough to cost nothing.
#[derive(Debug)]
pub(super) struct Meter {
    used: Credit,
    half: Credit,
}

impl Meter {
    pub(super) fn new(window_messages: u32, window_bytes: u64) -> Self {
        let half = Credit { messages: window_messages.div_ceil(2).max(1), bytes: window_bytes.div_ceil(2).max(1) };
        Self { used: Credit::default(), half }
    }

    /// Counts; returns credit to give when it is time.
    pub(super) fn taken(&mut self, messages: u32, bytes: u64) -> Option<Credit> {
        self.used.add(Credit { messages, bytes });
        let due = self.used.messages >= self.half.messages || self.used.bytes >= self.half.bytes;
        due.then(|| std::mem::take(&mut self.used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_window_is_given_back_at_once() {
        let mut meter = Meter::new(10, 1000);
        for _ in 0..4 {
            assert_eq!(meter.taken(1, 10), None);
        }
        assert_eq!(meter.taken(1, 10), Some(Credit { messages: 5, bytes: 50 }));
        assert_eq!(meter.taken(1, 499), None);
        assert_eq!(meter.taken(1, 2000), Some(Credit { messages: 2, bytes: 2499 }));
    }

    #[test]
    fn the_smallest_window_is_given_back_every_time() {
        let mut meter = Meter::new(1, 1);
        assert_eq!(meter.taken(1, 1), Some(Credit { messages: 1, bytes: 1 }));
    }
}
