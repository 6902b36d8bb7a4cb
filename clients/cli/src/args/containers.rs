//! `tandem sandbox create` and what else takes a control plane; `tandem up` and `down`.

use std::path::PathBuf;

use clap::Args;

use super::{AgentSpec, Pair};

/// `tandem sandbox create`.
#[derive(Debug, Args)]
#[command(after_help = "\
What stands behind -- is a program that stays; the sandbox ends with it. With --handler it is run for
each message instead: the message comes as JSON on its standard input, exit code 0 acknowledges it,
and what it prints answers a request.

  tandem sandbox create worker --agent lead:worker -- python3 worker.py
  tandem sandbox create echo --handler -- sh -c 'cat'")]
pub struct CreateSandboxArgs {
    /// Small letters, digits and hyphens; messages to it are addressed to this
    pub name: String,
    /// Who lives in it, NAME:ROLE[:CAPABILITY,...]; the first is the primary agent
    #[arg(long = "agent", value_name = "SPEC")]
    pub agents: Vec<AgentSpec>,
    /// An image that was made from aintandem/sandbox [default: that one]
    #[arg(long)]
    pub image: Option<String>,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u64>,
    /// Processors
    #[arg(long)]
    pub cpus: Option<f64>,
    /// Processes and threads at once
    #[arg(long)]
    pub pids: Option<u32>,
    /// What it can write to /work, in MiB
    #[arg(long, value_name = "MIB")]
    pub disk: Option<u64>,
    /// Stop so long after a start
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Option<std::time::Duration>,
    /// Stop when it has done nothing for so long
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub idle_timeout: Option<std::time::Duration>,
    /// Start it again when it is stopped and a message comes
    #[arg(long)]
    pub wake_on_message: bool,
    /// A variable of what runs in it
    #[arg(long = "env", value_name = "NAME=VALUE")]
    pub environment: Vec<Pair>,
    /// Run the program for each message
    #[arg(long, requires = "program")]
    pub handler: bool,
    /// The program and its arguments
    #[arg(last = true)]
    pub program: Vec<String>,
}

/// `tandem sandbox logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Its name or id
    pub name: String,
    /// Also what it prints from now on
    #[arg(long, short)]
    pub follow: bool,
    /// The last lines
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub tail: u32,
    /// From this time on, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

/// `tandem sandbox exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    /// Its name or id
    pub name: String,
    /// How long to wait for its end, in seconds
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=25), value_name = "SECONDS")]
    pub timeout: u64,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub program: Vec<String>,
}

/// `tandem up` and `tandem down`.
#[derive(Debug, Args)]
pub struct TeamArgs {
    /// The file of the team
    #[arg(long, short, default_value = "team.yaml", value_name = "FILE")]
    pub file: PathBuf,
}

/// `tandem down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    /// The file of the team
    #[command(flatten)]
    pub team: TeamArgs,
    /// Delete the workspace too, with its messages, at once
    #[arg(long)]
    pub workspace_too: bool,
}
