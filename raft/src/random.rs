//! The only place in this crate that draws randomness: challenges of handshakes, never anything that is replicated.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

/// Bytes that nobody can foresee.
pub(crate) fn challenge() -> [u8; 32] {
    rand::random()
}
