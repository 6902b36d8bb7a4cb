//! Arguments about workspaces, sandboxes and agents.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{AgentSpec, CreateSandboxArgs, ExecArgs, LogsArgs, Pair};

/// `tandem workspace`.
#[derive(Debug, Args)]
pub struct WorkspaceArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: WorkspaceCommand,
}

/// What to do with workspaces.
#[derive(Debug, Subcommand)]
pub enum WorkspaceCommand {
    /// Create a workspace
    Create {
        /// Its id
        id: String,
        /// What it does with its messages.
        #[command(flatten)]
        settings: WorkspaceSettingsArgs,
    },
    /// Change what a workspace does with its messages; what is not named stays
    Update {
        /// Its id
        id: String,
        /// What it does with its messages.
        #[command(flatten)]
        settings: WorkspaceSettingsArgs,
    },
    /// List all workspaces
    #[command(visible_alias = "ls")]
    List,
    /// Show one workspace
    Show {
        /// Its id
        id: String,
    },
    /// Show what a workspace may take, or change it; what is not named stays
    Quotas {
        /// Its id
        id: String,
        /// What it may take.
        #[command(flatten)]
        quotas: QuotaArgs,
    },
    /// Delete a workspace with everything in it, for good
    #[command(visible_alias = "rm")]
    Delete {
        /// Its id
        id: String,
    },
}

/// What a workspace does with its messages. Nothing set is the server's default.
#[derive(Debug, Default, Args)]
pub struct WorkspaceSettingsArgs {
    /// How long a message without a ttl waits, such as `1h`; 0s: for ever
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub default_ttl: Option<Duration>,
    /// How long the history is kept, from 1min; 0s: the default, 30 days
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub retention_age: Option<Duration>,
    /// How many bytes of history are kept, from 1048576; 0: no limit
    #[arg(long, value_name = "BYTES")]
    pub retention_bytes: Option<u64>,
    /// How often a conversation may go to and fro, 1 to 255; 0: the default, 16
    #[arg(long, value_name = "N")]
    pub max_hops: Option<u32>,
}

/// What a workspace may take. 0 is as much as the settings of the server let everybody.
#[derive(Debug, Default, Args)]
pub struct QuotaArgs {
    /// Of the whole workspace
    #[arg(long, value_name = "N")]
    pub messages_per_second: Option<u64>,
    /// Of the whole workspace
    #[arg(long, value_name = "BYTES")]
    pub bytes_per_second: Option<u64>,
    /// Of each sandbox that sends
    #[arg(long, value_name = "N")]
    pub sandbox_messages_per_second: Option<u64>,
    /// Of each sandbox that sends
    #[arg(long, value_name = "BYTES")]
    pub sandbox_bytes_per_second: Option<u64>,
    /// Of each subject of a token or a key
    #[arg(long, value_name = "N")]
    pub caller_messages_per_second: Option<u64>,
    /// Of each subject of a token or a key
    #[arg(long, value_name = "BYTES")]
    pub caller_bytes_per_second: Option<u64>,
    /// Bytes of history; what is more is refused. 0 takes this or any other quota away
    #[arg(long, value_name = "BYTES")]
    pub max_stored_bytes: Option<u64>,
    /// Bytes of one message as it is encoded, some 70 more than its content
    #[arg(long, value_name = "BYTES")]
    pub max_message_bytes: Option<u64>,
    /// Sandboxes, each with an inbox
    #[arg(long, value_name = "N")]
    pub max_sandboxes: Option<u32>,
    /// Streams that are open at once, on each node
    #[arg(long, value_name = "N")]
    pub max_streams: Option<u32>,
    /// Connections at once on each node, of who is bound to the workspace
    #[arg(long, value_name = "N")]
    pub max_connections: Option<u32>,
}

/// `tandem sandbox`.
#[derive(Debug, Args)]
pub struct SandboxArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: SandboxCommand,
}

/// What to do with sandboxes.
#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Make a sandbox in a container, and start it
    Create(CreateSandboxArgs),
    /// List the containers of the workspace, which the control plane runs; see also: list
    Ls,
    /// Start a sandbox that is stopped
    Start {
        /// Its name or id
        name: String,
    },
    /// Stop a sandbox; messages wait in its inbox
    Stop {
        /// Its name or id
        name: String,
    },
    /// Stop a sandbox and start it
    Restart {
        /// Its name or id
        name: String,
    },
    /// Print what a sandbox has printed
    Logs(LogsArgs),
    /// Print what a sandbox takes
    Stats {
        /// Its name or id
        name: String,
    },
    /// Run a command in a sandbox
    Exec(ExecArgs),
    /// Delete a sandbox with its container, its data and its inbox
    Rm {
        /// Its name or id
        name: String,
    },
    /// Register a sandbox, which gives it a durable inbox; again: replace its agents and labels
    Register {
        /// Its id
        id: String,
        /// An agent in it; may be repeated
        #[arg(long = "agent", value_name = "NAME:ROLE:CAPABILITY,...")]
        agents: Vec<AgentSpec>,
        /// A label; may be repeated
        #[arg(long = "label", value_name = "KEY=VALUE")]
        labels: Vec<Pair>,
        /// How its inbox is treated.
        #[command(flatten)]
        inbox: InboxArgs,
    },
    /// List the participants of the workspace, which the broker knows, in containers or not; see also: ls
    List,
    /// Show one sandbox with its agents
    Show {
        /// Its id
        id: String,
    },
    /// Remove a sandbox, with its inbox and what waits there
    Unregister {
        /// Its id
        id: String,
    },
    /// Say that a sandbox is alive
    Heartbeat {
        /// Its id
        id: String,
    },
}

/// How the inbox of a sandbox is treated. Registering again without these goes back to the defaults.
#[derive(Debug, Default, Args)]
pub struct InboxArgs {
    /// Attempts of a message before it becomes a dead letter, 1 to 1000 [default: 5]
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// Before the second attempt; doubles with each further one [default: 1s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub backoff: Option<Duration>,
    /// Where doubling ends [default: 16s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub max_backoff: Option<Duration>,
    /// Messages that may wait; less than the server allows
    #[arg(long, value_name = "N")]
    pub max_messages: Option<u64>,
    /// Bytes of messages that may wait; less than the server allows
    #[arg(long, value_name = "BYTES")]
    pub max_bytes: Option<u64>,
}

/// `tandem agents`.
#[derive(Debug, Args)]
pub struct AgentsArgs {
    /// Only agents with this role
    #[arg(long)]
    pub role: Option<String>,
    /// Only agents with this capability
    #[arg(long)]
    pub capability: Option<String>,
    /// Only agents with this name
    #[arg(long)]
    pub name: Option<String>,
    /// Only agents whose sandbox is online
    #[arg(long, conflicts_with = "offline")]
    pub online: bool,
    /// Only agents whose sandbox is offline
    #[arg(long)]
    pub offline: bool,
}
