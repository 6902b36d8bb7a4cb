//! Random numbers from a seed that can be given again.

/// A small generator (SplitMix64): good enough to choose moments and sizes, the same on every machine.
#[derive(Debug, Clone)]
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// From `TANDEM_TEST_SEED`, or a seed of its own; either way it is printed, and so named when the test fails.
    ///
    /// # Panics
    /// When the variable holds no number.
    #[allow(clippy::print_stdout, reason = "the seed belongs to the output of a failed test")]
    pub fn from_environment() -> Self {
        let seed = match std::env::var("TANDEM_TEST_SEED") {
            Ok(text) => text.parse().expect("TANDEM_TEST_SEED must be a number"),
            Err(_) => crate::unix_nanos(),
        };
        println!("seed: TANDEM_TEST_SEED={seed}");
        Self::new(seed)
    }

    /// From this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// The seed it began with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A generator for a part of the test, so that tasks do not draw from one another.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }

    /// Any number.
    #[allow(clippy::should_implement_trait, reason = "it never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.between(1, 100) <= chance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_forks_differ() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        let first: Vec<u64> = (0..8).map(|_| one.next()).collect();
        assert_eq!(first, (0..8).map(|_| two.next()).collect::<Vec<_>>());
        assert_ne!(one.fork().next(), one.fork().next());
        assert!((0..1_000).all(|_| (3..=5).contains(&one.between(3, 5))));
        assert!((0..1_000).filter(|_| one.percent(20)).count().abs_diff(200) < 60);
    }
}
