//! Clusters of three brokers, each a process of its own: any of them serves, any of them may die.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests, and a measured figure belongs to their output"
)]

mod approval;
mod catch_up;
mod damage;
mod failover;
mod figures;
mod forwarding;
mod identity;
mod load;
mod membership;
mod policy;
mod strangers;
mod tls;
mod trio;
mod verify;
