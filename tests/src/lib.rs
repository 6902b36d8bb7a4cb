//! Tests that need more than one crate.
//!
//! It owns the architecture test (`tests/architecture`: import arrows, names, lengths, first pages) and the tests that run
//! whole brokers (`tests/broker`: durability under kill -9, bad input, delivery, conversations, restart; `tests/cluster`; `tests/chaos`:
//! a cluster under every fault, judged by [`history`]; `tests/cli`: the command that users type; `tests/control_plane`: the REST service), with the harness for them. It does not know the insides of any crate: what can be tested within
//! one is tested there.
//!
//! Read first: [`BrokerProcess`], a broker of its own for a test; [`Refused`], what a test expects of an error;
//! `tests/architecture/main.rs`, the list of rules that the tree keeps.
//!
//! Invariants: nothing imports this crate; a test is never tried again after it failed; tests that run for minutes are marked
//! `#[ignore = "chaos: ..."]` and run by `make chaos`; whatever a test starts it also stops, by its own handle. A test that
//! proves a promise of the design carries its number: `promise_4_...`. What is drawn at random comes from one seed, which
//! is printed and can be set: `TANDEM_TEST_SEED=7 make test`.
//!
//! Tested by being used; the generator of random numbers has tests of its own.

mod clock;
pub mod history;
mod home;
mod http;
mod message;
mod process;
mod random;
mod refused;
mod relay;
mod subscriber;
mod tandem;

pub use clock::{now, unix_nanos};
pub use home::Home;
pub use http::{Answer, ask, ask_1_1, get};
pub use message::{at_priority, broadcast, direct, named};
pub use process::{BrokerProcess, Exit, broker_binary, broker_command, control_plane_command, example, run_to_exit};
pub use random::Random;
pub use refused::Refused;
pub use relay::Relay;
pub use subscriber::Subscriber;
pub use tandem::tandem_command;
