//! The command line.

mod approval;
mod audit;
mod bench;
mod certs;
mod cluster;
mod containers;
mod dead_letters;
mod dev;
mod events;
mod history;
mod key;
mod policy;
mod publish;
mod registry;
mod subscribe;
mod time;
mod token;
mod topics;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use self::{
    approval::{ApprovalArgs, ApprovalCommand, ApprovalStateName, DecisionArgs},
    audit::{AuditArgs, AuditCommand, AuditListArgs, VerifyAuditArgs},
    bench::{BenchArgs, BenchKind, LoadArgs},
    certs::{CertsArgs, CertsCommand, CreateCertsArgs},
    cluster::{ClusterArgs, ClusterCommand, Wait},
    containers::{CreateSandboxArgs, DownArgs, ExecArgs, LogsArgs, TeamArgs},
    dead_letters::{DlqArgs, DlqCommand, LetterFilterArgs, ReasonName},
    dev::DevArgs,
    events::{EventName, EventsArgs},
    history::{FilterArgs, GetArgs, HistoryArgs, ReplayRangeArgs},
    key::{CreateKeyArgs, KeyArgs, KeyCommand},
    policy::{PolicyArgs, PolicyCommand, SimulatePolicyArgs, TestPolicyArgs},
    publish::{MessageArgs, PubArgs, RequestArgs, TypeName},
    registry::{
        AgentsArgs, InboxArgs, QuotaArgs, SandboxArgs, SandboxCommand, WorkspaceArgs, WorkspaceCommand,
        WorkspaceSettingsArgs,
    },
    subscribe::{NackArgs, SubArgs},
    token::{CreateTokenArgs, IssueTokenArgs, RevokeTokenArgs, TokenAlgorithm, TokenArgs, TokenCommand},
    topics::{TopicArgs, TopicCommand},
    values::{AgentSpec, Pair},
};
use crate::exit::EXIT_CODES;

/// Talks to the AInTandem broker, and runs one for development.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, about, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the broker listens
    #[arg(long, global = true, env = "TANDEM_SERVER", default_value = "http://127.0.0.1:8001", value_name = "URL")]
    pub server: String,
    /// Where the control plane listens, for workspaces in files and sandboxes in containers
    #[arg(
        long,
        global = true,
        env = "TANDEM_CONTROL_PLANE",
        default_value = "http://127.0.0.1:8000",
        value_name = "URL"
    )]
    pub control_plane: String,
    /// Certificates of the authority whose signature counts, for https; without it, those of the system
    #[arg(long, global = true, env = "TANDEM_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Certificate to show where the broker asks for one
    #[arg(long, global = true, env = "TANDEM_CERT_FILE", value_name = "FILE", requires = "key_file_of_cert")]
    pub cert_file: Option<PathBuf>,
    /// The private key of that certificate
    #[arg(
        long = "cert-key-file",
        id = "key_file_of_cert",
        global = true,
        env = "TANDEM_CERT_KEY_FILE",
        value_name = "FILE"
    )]
    pub cert_key_file: Option<PathBuf>,
    /// File with the token that says who you are; read again when it is renewed
    #[arg(long, global = true, env = "TANDEM_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The workspace to work in
    #[arg(long, global = true, env = "TANDEM_WORKSPACE", default_value = "default", value_name = "ID")]
    pub workspace: String,
    /// Print JSON: results one document a line, errors on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a broker in this process, or several in processes of their own, with their data in a directory
    Dev(DevArgs),
    /// Create, list, show and delete workspaces
    Workspace(WorkspaceArgs),
    /// Make a workspace, its policy and its sandboxes as a file says; again: change what differs
    Up(TeamArgs),
    /// Delete the sandboxes of a file
    Down(DownArgs),
    /// Run sandboxes in containers, and register those that run elsewhere
    Sandbox(SandboxArgs),
    /// Find agents by role, capability, name and liveness
    Agents(AgentsArgs),
    /// Publish a message
    Pub(PubArgs),
    /// Print what waits in the inbox of a sandbox, and acknowledge it
    Sub(SubArgs),
    /// Print what waits in the inbox of a sandbox, and refuse it
    Nack(NackArgs),
    /// Publish a request and print the response
    Request(RequestArgs),
    /// Create, list and delete topics, and follow them
    Topic(TopicArgs),
    /// List, show, redrive and purge dead letters
    Dlq(DlqArgs),
    /// Print one message of the log
    Get(GetArgs),
    /// Print the log of the workspace
    History(HistoryArgs),
    /// Put messages of the log into the inbox of a sandbox once more
    ReplayRange(ReplayRangeArgs),
    /// Print what happens in the workspace
    Events(EventsArgs),
    /// Look at a cluster
    Cluster(ClusterArgs),
    /// Make, renew, list and revoke tokens that say who somebody is
    Token(TokenArgs),
    /// Make, list and revoke API keys
    Key(KeyArgs),
    /// Say who may say what to whom, and try it out
    Policy(PolicyArgs),
    /// List what a policy holds for approval, approve and deny
    Approval(ApprovalArgs),
    /// Print what was done and by whom, export it, and check an export
    Audit(AuditArgs),
    /// Make certificates for development
    Certs(CertsArgs),
    /// Print which roles may call which RPC
    Roles,
    /// Print what the broker is: version, storage, shards, limits
    Info,
    /// Replay recorded conversations and check every delivery
    Replay(ReplayArgs),
    /// Measure throughput and latency
    Bench(BenchArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
}

/// `tandem replay`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line of FILE is a JSON object with session, turn, from_agent, to_agent, message_type and
content. Each session becomes a workspace, each of its agents a sandbox with a live subscription;
to_agent `*` is everyone else. A turn is published once the one before is acknowledged; sessions
run side by side. Content goes out as text/plain; empty content, which brokers refuse, as the JSON
text \"\".

Exit code 1 unless nothing was lost, duplicated or out of order.")]
pub struct ReplayArgs {
    /// JSON lines; - for standard input
    pub file: PathBuf,
    /// Sessions that run at the same time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Leave the workspaces behind, to look at
    #[arg(long)]
    pub keep: bool,
    /// Give up on a session that gets nothing for so long
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: std::time::Duration,
}

/// `tandem completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that will read them
    pub shell: clap_complete::Shell,
}
