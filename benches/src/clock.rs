//! The only place in this crate that reads a clock.

#![allow(clippy::disallowed_methods, reason = "the one place that may")]

use std::time::Instant;

pub(crate) fn now() -> Instant {
    Instant::now()
}
