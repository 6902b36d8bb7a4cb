//! Tests of the crate as a whole; small parts are tested beside their code.

mod crash;
mod fatal;
mod journal;
mod snapshots;
mod suite;
