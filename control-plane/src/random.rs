//! The only place in this crate that draws randomness.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

/// A new id behind a word that says of what: unique everywhere, and later ones sort behind earlier ones.
pub(crate) fn id(of: &str) -> String {
    format!("{of}-{}", uuid::Uuid::now_v7().simple())
}
