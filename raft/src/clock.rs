//! The only place in this crate that reads a clock; for measurements, never for what is replicated.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

use std::time::Instant;

pub(crate) fn now() -> Instant {
    Instant::now()
}
