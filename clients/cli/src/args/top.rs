//! Arguments of what looks at all of a broker.

use std::{path::PathBuf, time::Duration};

use clap::Args;

/// `tandem top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Shows nodes, shards and the sandboxes of the workspace in which most waits. COMMANDS/S counts
entries of the replicated log, of which one can hold a thousand messages. Ctrl-C ends it. Where
standard output is no terminal, it is printed once.")]
pub struct TopArgs {
    /// Between two looks, 100ms or more
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub interval: Duration,
    /// Sandboxes at most
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rows: u16,
    /// Look so often and end
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Print it once, as if it were no terminal
    #[arg(long)]
    pub once: bool,
}

/// `tandem man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command into this folder; without it, print that of tandem itself
    #[arg(long, value_name = "FOLDER")]
    pub dir: Option<PathBuf>,
}
