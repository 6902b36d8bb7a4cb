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

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

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
use crate::{
    contexts::Named,
    exit::EXIT_CODES,
    settled::{Asks, Given},
};

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
    /// A context that was kept with `tandem context add`; given as an option, it counts before the environment
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

impl Cli {
    /// What the process was started with, and where each of it was said.
    pub(crate) fn given() -> Result<(Self, Given), clap::Error> {
        let matches = Self::command().try_get_matches()?;
        let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut Self::command()))?;
        let given = Given::new(&cli.global, &matches);
        Ok((cli, given))
    }
}

impl Global {
    /// What a context can keep, of the options with the ids that are wanted.
    pub(crate) fn named(&self, is_wanted: impl Fn(&str) -> bool) -> Named {
        Named {
            server: self.server.clone().filter(|_| is_wanted("server")),
            control_plane: self.control_plane.clone().filter(|_| is_wanted("control_plane")),
            workspace: self.workspace.clone().filter(|_| is_wanted("workspace")),
            token_file: self.token_file.clone().filter(|_| is_wanted("token_file")),
            ca_file: self.ca_file.clone().filter(|_| is_wanted("ca_file")),
            cert_file: self.cert_file.clone().filter(|_| is_wanted("cert_file")),
            cert_key_file: self.cert_key_file.clone().filter(|_| is_wanted("key_file_of_cert")),
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

    /// Whom it speaks to.
    pub(crate) fn asks(&self) -> Asks {
        let (broker, control_plane) = match self {
            Self::Context(_) | Self::Dev(_) | Self::Certs(_) | Self::Roles | Self::Completions(_) | Self::Man(_) => {
                (false, false)
            }
            Self::Up(_) | Self::Down(_) => (false, true),
            Self::Doctor => (true, true),
            Self::Sandbox(args) => match args.command {
                SandboxCommand::Register { .. }
                | SandboxCommand::List
                | SandboxCommand::Show { .. }
                | SandboxCommand::Unregister { .. }
                | SandboxCommand::Heartbeat { .. } => (true, false),
                _ => (false, true),
            },
            Self::Token(args) => (!matches!(args.command, TokenCommand::Create(_)), false),
            Self::Audit(args) => (!matches!(args.command, AuditCommand::Verify(_)), false),
            Self::Policy(args) => (!matches!(&args.command, PolicyCommand::Test(test) if test.file.is_some()), false),
            _ => (true, false),
        };
        Asks { broker, control_plane }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_say_whom_they_speak_to() {
        let cases: [(&[&str], (bool, bool)); 10] = [
            (&["info"], (true, false)),
            (&["doctor"], (true, true)),
            (&["sandbox", "ls"], (false, true)),
            (&["sandbox", "list"], (true, false)),
            (&["down"], (false, true)),
            (&["token", "list"], (true, false)),
            (&["policy", "test", "--file", "p.json", "--from", "a", "--to", "b", "--type", "request"], (false, false)),
            (&["policy", "test", "--from", "a", "--to", "b", "--type", "request"], (true, false)),
            (&["completions", "bash"], (false, false)),
            (&["roles"], (false, false)),
        ];
        for (arguments, (broker, control_plane)) in cases {
            let cli = Cli::try_parse_from([&["tandem"][..], arguments].concat()).unwrap();
            assert_eq!(cli.command.asks(), Asks { broker, control_plane }, "{arguments:?}");
        }
    }

    #[test]
    fn what_lists_and_deletes_has_a_short_name() {
        let same: [(&[&str], &[&str]); 8] = [
            (&["context", "ls"], &["context", "list"]),
            (&["context", "rm", "x"], &["context", "remove", "x"]),
            (&["workspace", "ls"], &["workspace", "list"]),
            (&["workspace", "rm", "x"], &["workspace", "delete", "x"]),
            (&["topic", "ls"], &["topic", "list"]),
            (&["topic", "rm", "x"], &["topic", "delete", "x"]),
            (&["key", "ls"], &["key", "list"]),
            (&["token", "ls"], &["token", "list"]),
        ];
        let command = |arguments: &[&str]| {
            let cli = Cli::try_parse_from([&["tandem"][..], arguments].concat()).unwrap();
            format!("{:?}", cli.command)
        };
        for (short, long) in same {
            assert_eq!(command(short), command(long), "{short:?}");
        }
    }

    #[test]
    fn the_ids_of_what_a_context_keeps_are_ids_of_options() {
        let files = ["--token-file", "t", "--ca-file", "a", "--cert-file", "c", "--cert-key-file", "k"];
        let places = ["--server", "s", "--control-plane", "p", "--workspace", "w", "--context", "x", "info"];
        let arguments = [&["tandem"][..], &files, &places].concat();
        let matches = Cli::command().try_get_matches_from(arguments).unwrap();
        let cli = Cli::from_arg_matches(&matches).unwrap();
        let given = Given::new(&cli.global, &matches);
        let settled = given.settle(&Named { workspace: Some("kept".to_owned()), ..Named::default() });
        let identity = settled.identity().unwrap();
        assert_eq!((identity.0.to_str(), identity.1.to_str()), (Some("c"), Some("k")));
        let found = [&settled.server, &settled.control_plane, &settled.workspace].map(|found| found.value.as_str());
        assert_eq!((found, given.context()), (["s", "p", "w"], Some("x")));
        assert!(settled.ca_file.is_some() && settled.broker_token().is_some());
    }
}
