//! One suite for every engine: the documentation of [`Engine`], as tests.
//!
//! Implement [`Subject`] for an engine and call [`run`]. A failed check panics with what was expected. [`model`] has the
//! reference for property tests.

mod batches;
mod checkpoints;
mod durability;
pub mod model;
mod scans;
mod threads;

use std::{ops::ControlFlow, path::Path};

use crate::{Direction, Durability, Engine, Error, Space, WriteBatch};

/// How many spaces the engine of a [`Subject`] must have.
pub const SPACE_COUNT: usize = 3;

const A: Space = Space(0);
const B: Space = Space(1);
const C: Space = Space(2);

/// An engine under test, and what can be done to it from outside.
pub trait Subject {
    /// The engine, with [`SPACE_COUNT`] spaces.
    fn engine(&self) -> &dyn Engine;

    /// A directory for checkpoints, which exists as long as the subject.
    fn scratch(&self) -> &Path;

    /// Opens a checkpoint as a data directory.
    fn open_checkpoint(&self, dir: &Path) -> Result<Box<dyn Engine>, Error>;

    /// Closes the engine and opens it again. False, and nothing done, when it keeps nothing without a checkpoint.
    fn reopen(&mut self) -> bool;

    /// Ends the engine without closing it and opens what was durable then, perhaps more. False, and nothing done, when
    /// that cannot be modelled.
    fn crash(&mut self) -> bool;
}

/// Runs every check on its own fresh, empty subject.
pub fn run<S: Subject>(mut fresh: impl FnMut() -> S) {
    for (name, check) in CHECKS {
        let mut subject = fresh();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&mut subject)));
        if let Err(panic) = outcome {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked");
            panic!("engine {}, check {name}: {text}", subject.engine().name());
        }
    }
}

type Check = fn(&mut dyn Subject);

const CHECKS: &[(&str, Check)] = &[
    ("a batch reaches all its spaces", batches::reaches_all_spaces),
    ("operations take effect in their order", batches::operations_are_ordered),
    ("a batch with an unknown space is not applied", batches::unknown_space_is_refused),
    ("a put replaces, a delete removes", batches::put_replaces_and_delete_removes),
    ("a range is deleted exactly", batches::delete_range_edges),
    ("keys and values may be any bytes", batches::any_bytes),
    ("a value of 1 MiB comes back", batches::big_values),
    ("an empty batch is allowed", batches::empty_batch),
    ("the size follows the contents", batches::size_follows_contents),
    ("scans are ordered and bounded", scans::ordered_and_bounded),
    ("keys are ordered bytewise", scans::bytewise_order),
    ("a scan ends at Break", scans::ends_at_break),
    ("a scan does not see writes of its visitor", scans::does_not_see_its_visitors_writes),
    ("scans within scans", scans::nested),
    ("a scan of everything is one view of all spaces", scans::everything_is_one_view),
    ("a scan of everything ends at Break", scans::everything_ends_at_break),
    ("a verification reads everything, at a pace", durability::verification_reads_everything),
    ("a closed engine keeps what was durable", durability::survives_reopening),
    ("what was synced survives a crash", durability::synced_survives_a_crash),
    ("a flush is a durability point", durability::flush_is_a_durability_point),
    ("a crash leaves a prefix of whole batches", durability::crash_leaves_a_prefix),
    ("a checkpoint holds all and only earlier batches", checkpoints::is_isolated),
    ("a checkpoint can be written to and checkpointed", checkpoints::is_a_data_directory),
    ("a checkpoint never overwrites", checkpoints::refuses_bad_targets),
    ("checkpoints are consistent under writes", checkpoints::consistent_under_writes),
    ("readers see whole batches of concurrent writers", threads::readers_see_whole_batches),
    ("concurrent writers lose nothing", threads::writers_lose_nothing),
];

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

#[track_caller]
fn must<T>(result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| panic!("unexpected error: {error}"))
}

#[track_caller]
fn get(engine: &dyn Engine, space: Space, key: &[u8]) -> Option<Vec<u8>> {
    must(engine.get(space, key)).map(|value| value.to_vec())
}

#[track_caller]
fn put(engine: &dyn Engine, space: Space, pairs: &[(&[u8], &[u8])]) {
    let mut batch = WriteBatch::new();
    for (key, value) in pairs {
        batch.put(space, key.to_vec(), value.to_vec());
    }
    must(engine.write(batch, Durability::Deferred));
}

#[track_caller]
fn scan(engine: &dyn Engine, space: Space, from: &[u8], to: &[u8], direction: Direction) -> Pairs {
    let mut pairs = Pairs::new();
    must(engine.scan(space, from, to, direction, &mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    }));
    pairs
}

#[track_caller]
fn all(engine: &dyn Engine, space: Space) -> Pairs {
    scan(engine, space, b"", b"", Direction::Forward)
}
