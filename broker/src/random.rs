//! The only place in this crate that draws randomness: secrets and their ids, never anything that a machine draws itself.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

/// Bytes that nobody can foresee.
pub(crate) fn secret() -> [u8; 32] {
    rand::random()
}

/// A number that nobody had, most likely.
pub(crate) fn id() -> u64 {
    rand::random()
}
