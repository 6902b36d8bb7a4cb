//! The command line.

mod approval;
mod audit;
mod bench;
mod certs;
mod cluster;
mod containers;
mod context;
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
mod top;
mod topics;
mod values;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::{
    approval::{ApprovalArgs, ApprovalCommand, ApprovalStateName, DecisionArgs},
    audit::{AuditArgs, AuditCommand, AuditListArgs, VerifyAuditArgs},
    bench::{BenchArgs, BenchKind, LoadArgs},
    certs::{CertsArgs, CertsCommand, CreateCertsArgs},
    cluster::{ClusterArgs, ClusterCommand, Wait},
    containers::{CreateSandboxArgs, DownArgs, ExecArgs, LogsArgs, TeamArgs},
    context::{ContextArgs, ContextCommand},
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
    top::{ManArgs, TopArgs},
    topics::{TopicArgs, TopicCommand},
    values::{AgentSpec, Pair},
};
use crate::{contexts::Named, exit::EXIT_CODES};

/// What is built in.
const SERVER: &str = "http://127.0.0.1:8001";
const CONTROL_PLANE: &str = "http://127.0.0.1:8000";
const WORKSPACE: &str = "default";

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
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// A context that was kept with `tandem context add`, in the place of the current one
    #[arg(long, global = true, env = "TANDEM_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Where the broker listens [built in: http://127.0.0.1:8001]
    #[arg(long, global = true, env = "TANDEM_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Where the control plane listens, for workspaces in files and sandboxes in containers [built in: http://127.0.0.1:8000]
    #[arg(long, global = true, env = "TANDEM_CONTROL_PLANE", value_name = "URL")]
    pub control_plane: Option<String>,
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
    /// The workspace to work in [built in: default]
    #[arg(long, global = true, env = "TANDEM_WORKSPACE", value_name = "ID")]
    pub workspace: Option<String>,
    /// Print JSON: results one document a line, errors on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// How results are printed
    #[arg(long, global = true, value_enum, value_name = "FORMAT", conflicts_with = "json")]
    pub output: Option<Format>,
    /// Do it again and again, and show what comes of it in the place of what was there; for commands that only look
    #[arg(long, global = true, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2s", require_equals = true,
        value_parser = humantime::parse_duration)]
    pub watch: Option<std::time::Duration>,
    /// Print results and errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tables, and texts for people
    Table,
    /// One document a line
    Json,
}

impl Global {
    /// With what a context keeps in the place of what was not given.
    pub(crate) fn within(self, named: &Named) -> Self {
        // Who goes elsewhere than the context does not show its token there.
        let is_there = (self.server.is_none() || self.server == named.server)
            && (self.control_plane.is_none() || self.control_plane == named.control_plane);
        let own = |file: &Option<PathBuf>| file.clone().filter(|_| is_there);
        Self {
            server: self.server.or_else(|| named.server.clone()).or_else(|| Some(SERVER.to_owned())),
            control_plane: self
                .control_plane
                .or_else(|| named.control_plane.clone())
                .or_else(|| Some(CONTROL_PLANE.to_owned())),
            workspace: self.workspace.or_else(|| named.workspace.clone()).or_else(|| Some(WORKSPACE.to_owned())),
            token_file: self.token_file.or_else(|| own(&named.token_file)),
            ca_file: self.ca_file.or_else(|| named.ca_file.clone()),
            cert_file: self.cert_file.or_else(|| own(&named.cert_file)),
            cert_key_file: self.cert_key_file.or_else(|| own(&named.cert_key_file)),
            ..self
        }
    }
}

impl Command {
    /// Whether it only looks, so that it can be done again and again.
    pub(crate) fn only_looks(&self) -> bool {
        match self {
            Self::Agents(_) | Self::Info | Self::Get(_) | Self::History(_) | Self::Doctor => true,
            Self::Events(args) => !args.follow,
            Self::Workspace(args) => matches!(args.command, WorkspaceCommand::List | WorkspaceCommand::Show { .. }),
            Self::Cluster(args) => matches!(args.command, ClusterCommand::Status),
            Self::Sandbox(args) => matches!(
                args.command,
                SandboxCommand::Ls | SandboxCommand::List | SandboxCommand::Show { .. } | SandboxCommand::Stats { .. }
            ),
            Self::Dlq(args) => matches!(args.command, DlqCommand::List { .. } | DlqCommand::Show { .. }),
            Self::Topic(args) => matches!(args.command, TopicCommand::List | TopicCommand::Follows { .. }),
            Self::Token(args) => matches!(args.command, TokenCommand::List),
            Self::Key(args) => matches!(args.command, KeyCommand::List),
            Self::Approval(args) => matches!(args.command, ApprovalCommand::List { .. } | ApprovalCommand::Show { .. }),
            _ => false,
        }
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Keep addresses and tokens under names, and use them
    Context(ContextArgs),
    /// Look at all that has to be right, and say what to do about what is not
    Doctor,
    /// Show nodes, shards, rates, inboxes and dead letters, live
    Top(TopArgs),
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
    /// Print the page of the manual, or write those of all commands
    Man(ManArgs),
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
