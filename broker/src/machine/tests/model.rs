//! Random histories on the machine, with its delivery, and on a reference model that is small, obvious and slow. After each
//! step everything that can be seen of the one is compared with the other.
//!
//! `TANDEM_TEST_SEED=7` repeats a run. What fails is shortened to the fewest steps that still fail.

mod back;
mod compare;
mod drive;
mod form;
mod inbox;
mod publish;
mod registry;
mod sabotage;
mod shard;
mod state;
mod step;
mod streams;
mod time;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::{drive::Sabotage, step::Step};

/// From the environment, or one of its own.
fn seed() -> u64 {
    match std::env::var("TANDEM_TEST_SEED") {
        Ok(text) => text.parse().expect("TANDEM_TEST_SEED must be a number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    }
}

/// Looks for a history in which machine and model differ; gives the shortest one found, and in what they differ.
fn search(
    seed: u64,
    cases: u32,
    most_steps: usize,
    shorten: u32,
    sabotage: Option<Sabotage>,
) -> Option<(String, Vec<Step>)> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: shorten, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner
        .run(&step::steps(most_steps), |steps| drive::run(&steps, sabotage).map(|_| ()).map_err(TestCaseError::fail));
    match outcome {
        Ok(()) => None,
        Err(TestError::Fail(reason, steps)) => Some((reason.to_string(), steps)),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

fn check(cases: u32, most_steps: usize) {
    let seed = seed();
    println!("seed: TANDEM_TEST_SEED={seed}");
    if let Some((reason, steps)) = search(seed, cases, most_steps, 20_000, None) {
        panic!("TANDEM_TEST_SEED={seed}: {reason}\n{steps:#?}");
    }
}

#[test]
fn machine_and_delivery_agree_with_the_model() {
    check(4_000, 60);
}

#[test]
#[ignore = "chaos: tens of thousands of long histories"]
fn machine_and_delivery_agree_with_the_model_for_long() {
    check(60_000, 200);
}
