//! The only place in this crate that draws randomness: challenges of handshakes and election timeouts, never anything that is
//! replicated.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

use std::cell::RefCell;

use rand::{RngExt, SeedableRng, rngs::StdRng};

thread_local! {
    /// In a simulation everything on its thread draws from this.
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Everything on this thread draws what this seed gives, from the beginning.
pub(crate) fn seed(seed: u64) {
    SEEDED.set(Some(StdRng::seed_from_u64(seed)));
}

/// Bytes that nobody can foresee.
pub(crate) fn challenge() -> [u8; 32] {
    SEEDED.with_borrow_mut(|seeded| seeded.as_mut().map_or_else(rand::random, RngExt::random))
}

/// A generator for something short.
pub(crate) fn generator() -> StdRng {
    SEEDED.with_borrow_mut(|seeded| match seeded {
        Some(seeded) => StdRng::from_rng(seeded),
        None => StdRng::from_rng(&mut rand::rng()),
    })
}

/// A number below `end`, which is not 0.
pub(crate) fn below(end: u64) -> u64 {
    generator().random_range(0..end)
}
