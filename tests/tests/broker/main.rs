//! Whole brokers, each a process of its own: what a user, an operator and a disk can do to them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests, and a measured figure belongs to their output"
)]

mod anchors;
mod attacks;
mod bad_input;
mod conversations;
mod delivery;
mod faults;
mod history;
mod identity;
mod kill_nine;
mod limits;
mod metrics;
mod published_once;
mod quotas;
mod registry;
mod restart;
mod retention;
mod secrets;
mod semantics;
mod stage;
mod stranger;
mod tokens;
