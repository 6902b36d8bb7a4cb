//! `tandem-agent`: the first process in every sandbox.
//!
//! Owns what a sandbox needs to be one: it takes its assignment from standard input, so that no secret stands in an environment or
//! an image; registers the sandbox with the broker; says that it is alive; renews its token; and runs what the sandbox is for: a
//! command that stays, or a handler for each message. It deliberately does not know Docker or the control plane.
//!
//! Read first: [`assignment`] (what it is told), [`link`] (its side to the broker), [`handler`] (messages to processes).
//!
//! Invariants:
//! - Nothing of a user's runs before the assignment is there: until then the sandbox may have no walls yet.
//! - A message is acknowledged after its handler has ended well, and given back with the reason when it has not.
//! - Secrets are written where only this user reads, in memory, and never printed.
//!
//! Tested by unit tests, and in real containers by the crate `tests`.

#![allow(clippy::print_stderr, reason = "standard error is the log of a container")]

mod assignment;
mod command;
mod files;
mod handler;
mod link;
mod say;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use self::assignment::{Assignment, Work};

/// Bytes of an assignment.
const MAX_ASSIGNMENT_BYTES: u64 = 4 << 20;
/// Exit codes beside those of the command: as `sysexits.h` has them.
const EXIT_ASSIGNMENT: u8 = 65;
const EXIT_NO_INPUT: u8 = 66;
const EXIT_BROKER: u8 = 69;
const EXIT_FILES: u8 = 73;

/// A command that has run so long is not one that cannot run at all.
const STANDS: Duration = Duration::from_millis(150);

/// As shells have it: 128 and the number of SIGTERM.
const EXIT_ASKED: u8 = 143;

/// Where a command finds what it may know, unless `TANDEM_RUN_DIR` says otherwise.
const RUN_DIR: &str = "/run/tandem";

/// The first process of a sandbox, and what shells in it speak with.
///
/// Without a subcommand it waits for its assignment on standard input.
#[derive(Debug, Parser)]
#[command(name = "tandem-agent", version)]
struct Arguments {
    #[command(subcommand)]
    say: Option<say::Say>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread: there may be a hundred of these on a machine, and most wait.
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => match arguments.say {
            Some(say) => runtime.block_on(say::run(say)),
            None => runtime.block_on(run()),
        },
        Err(error) => refused(&format!("no runtime: {error}"), EXIT_FILES),
    }
}

fn refused(text: &str, code: u8) -> ExitCode {
    eprintln!("tandem-agent: {text}");
    ExitCode::from(code)
}

async fn run() -> ExitCode {
    let mut line = String::new();
    let mut input = BufReader::new(tokio::io::stdin().take(MAX_ASSIGNMENT_BYTES));
    match input.read_line(&mut line).await {
        Ok(0) => return refused("no assignment came on standard input", EXIT_NO_INPUT),
        Ok(_) => {}
        Err(error) => return refused(&format!("the assignment cannot be read: {error}"), EXIT_NO_INPUT),
    }
    // What is wrong with it is told without what is in it: it holds secrets.
    let assignment: Assignment = match serde_json::from_str(&line) {
        Ok(assignment) => assignment,
        Err(error) => {
            let place = (error.line(), error.column());
            return refused(&format!("the assignment is none, at {place:?}: {:?}", error.classify()), EXIT_ASSIGNMENT);
        }
    };
    drop(line);
    let run_dir = std::env::var_os("TANDEM_RUN_DIR").map_or_else(|| PathBuf::from(RUN_DIR), PathBuf::from);
    if let Err(error) = files::write(&run_dir, &assignment) {
        return refused(&format!("{} cannot be written: {error}", run_dir.display()), EXIT_FILES);
    }
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        asked_to_stop().await;
        stop.send_replace(true);
        // Whoever is left asks it.
        stop.closed().await;
    });
    let link = match link::Link::open(&assignment, &run_dir) {
        Ok(link) => link,
        Err(error) => return refused(&format!("the broker's address: {error}"), EXIT_BROKER),
    };
    let after = if matches!(assignment.work, Work::Command(_)) { STANDS } else { Duration::ZERO };
    let living = tokio::spawn(link.clone().live(after, stopping.clone()));
    let ended = match &assignment.work {
        Work::Command(command) => command::run(command, &assignment, &run_dir, stopping.clone()).await,
        Work::Handler(handler) => handler::run(handler, &link, &assignment, &run_dir, stopping.clone()).await,
        Work::Idle => {
            let mut stopping = stopping.clone();
            drop(stopping.wait_for(|stopping| *stopping).await);
            0
        }
    };
    living.abort();
    // Whoever was asked to stop did not end by himself, however well he ended: whoever looks after him may want him again.
    ExitCode::from(if *stopping.borrow() { EXIT_ASKED } else { ended })
}

async fn asked_to_stop() {
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}
