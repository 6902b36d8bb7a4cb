//! The `tandem` command: runs a broker for development, talks to one, replays conversations and measures.
//!
//! Owns: arguments, output for people and for programs, exit codes, the replay of conversation files, and the benchmarks
//! that the figures of this project come from. It deliberately knows nothing of the wire: everything but `tandem dev` and
//! the reading of one benchmark payload goes through `tandem-client`.
//!
//! Read first: [`args::Cli`], [`exit::Failure`], [`output::Output`].
//!
//! A command is one file in `commands/`, with its arguments in `args/`; `bench/` and `replay/` are larger ones, split by
//! idea: what is sent, who sends, who receives, what is checked.
//!
//! Invariants: results go to standard output, everything else to standard error; with `--json` both carry JSON only; every
//! way to end has an exit code that `--help` lists; a benchmark or a replay ends by itself, also when the broker stalls.
//!
//! Tested by unit tests beside the code and, in `tests/`, by running the command where no broker is needed. What needs a
//! broker is in the crate `tandem-tests`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "printing is what a command does")]

mod address;
pub mod args;
mod bench;
mod clock;
mod commands;
mod connections;
mod contexts;
mod control_plane;
pub mod exit;
pub mod output;
mod replace;
mod replay;
mod run;
mod settled;

pub use run::main;
