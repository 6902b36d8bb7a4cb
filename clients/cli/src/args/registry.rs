//! Arguments about workspaces, sandboxes and agents.

use clap::{Args, Subcommand};

use super::{AgentSpec, Pair};

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
    },
    /// List all workspaces
    List,
    /// Show one workspace
    Show {
        /// Its id
        id: String,
    },
    /// Delete a workspace with everything in it, for good
    Delete {
        /// Its id
        id: String,
    },
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
    },
    /// List the sandboxes of the workspace
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
