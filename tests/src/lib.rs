//! Tests that need more than one crate.
//!
//! It owns the architecture test (`tests/architecture`: import arrows, names, lengths, first pages) and is the home of the
//! tests that run whole brokers: durability under kill -9, compatibility of data directories, clusters, chaos. It does not
//! know the insides of any crate: what can be tested within one is tested there.
//!
//! Read first: `tests/architecture/main.rs`, the list of rules that the tree keeps.
//!
//! Invariants: nothing imports this crate; a test is never tried again after it failed; tests that run for minutes are marked
//! `#[ignore = "chaos: ..."]` and run by `make chaos`; whatever a test starts it also stops, by its own handle.
