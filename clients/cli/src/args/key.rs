//! `tandem key`.

use std::time::Duration;

use clap::{Args, Subcommand};
use tandem_broker::auth::Role;

/// `tandem key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// What to do with keys.
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print its secret, this once
    Create(Box<CreateKeyArgs>),
    /// List keys, revoked and expired ones too for 30 days
    #[command(visible_alias = "ls")]
    List,
    /// End a key for good; streams that were opened with it end within a second
    Revoke {
        /// Its id
        #[arg(value_name = "KEY")]
        id: String,
    },
}

/// `tandem key create`.
#[derive(Debug, Args)]
#[command(after_help = "\
The secret is used like a token:

  tandem key create --subject ci --role developer --bind-workspace default > key
  tandem --token-file key info")]
pub struct CreateKeyArgs {
    /// Whose key it is
    #[arg(long, value_name = "NAME")]
    pub subject: String,
    /// What he is there for; several are allowed
    #[arg(long = "role", value_name = "ROLE", required = true)]
    pub roles: Vec<Role>,
    /// Bind the key to this workspace; without it, it holds for all
    #[arg(long = "bind-workspace", value_name = "ID")]
    pub bind_workspace: Option<String>,
    /// Bind the key to this sandbox of the workspace
    #[arg(long = "bind-sandbox", value_name = "ID", requires = "bind_workspace")]
    pub bind_sandbox: Option<String>,
    /// How long it holds; without it, until it is revoked
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub expires_in: Option<Duration>,
}
