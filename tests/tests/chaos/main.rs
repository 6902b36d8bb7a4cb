//! Three brokers, each on a network, a disk and a clock of its own; clients that note what they see; faults of every kind; and
//! the judgement whether every promise was kept.
//!
//! `TANDEM_CHAOS_SECONDS=60 TANDEM_CHAOS_FAULTS=kill,pause TANDEM_TEST_SEED=7 make chaos ARGS="-E 'binary(chaos)'"`: see
//! docs/guides/chaos.md.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "these are tests, and what a run does belongs to their output"
)]

mod arena;
mod ending;
mod nemesis;
mod run;
mod settings;
mod workload;

use std::time::Duration;

use settings::Settings;

/// The cut of it that runs with all tests: some minutes, with everything that comes before and after.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn promises_1_to_7_hold_through_a_few_minutes_of_chaos() {
    run::run(Settings::from_environment(Duration::from_secs(300))).await;
}

/// `make chaos`.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "chaos: an hour of every fault there is"]
async fn promises_1_to_7_hold_through_an_hour_of_chaos() {
    run::run(Settings::from_environment(Duration::from_secs(3_600))).await;
}
