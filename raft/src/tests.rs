//! Tests of the crate as a whole; small parts are tested beside their code.

mod cluster;
mod crash;
mod damage;
mod digests;
mod fatal;
mod hub;
mod journal;
mod levels;
mod membership;
mod rebuild;
mod scrub;
mod snapshots;
mod suite;
mod transfer;
