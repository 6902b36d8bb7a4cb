//! The only place in this crate that draws randomness.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

use ring::rand::{SecureRandom as _, SystemRandom};

/// A new id behind a word that says of what: unique everywhere, and later ones sort behind earlier ones.
pub(crate) fn id(of: &str) -> String {
    format!("{of}-{}", uuid::Uuid::now_v7().simple())
}

/// Bytes that nobody can guess, from the system; None: it has none to give.
pub(crate) fn bytes<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok().map(|()| bytes)
}
