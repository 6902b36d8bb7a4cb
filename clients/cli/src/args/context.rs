//! Arguments about contexts.

use clap::{Args, Subcommand};

/// `tandem context`.
#[derive(Debug, Args)]
#[command(after_help = "\
What counts, in this order: options of the command; a context that --context names; the environment;
the context that TANDEM_CONTEXT names, or the current one; what is built in. A context's token and
certificate go to the addresses that it keeps, and nowhere else. Contexts hold no secrets, but where
their files are.

  tandem context add prod --server https://broker:8001 --ca-file ca.pem --token-file token
  tandem context use prod
  tandem --context dev info")]
pub struct ContextArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ContextCommand,
}

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Keep what is given as global options (--server, --token-file, …) under a name
    Add {
        /// The name
        name: String,
        /// Even if there is one of this name
        #[arg(long)]
        replace: bool,
        /// And use it from now on
        #[arg(long = "use")]
        and_use: bool,
    },
    /// Use a context from now on, in every shell of this user
    Use {
        /// Its name
        name: String,
    },
    /// List contexts
    #[command(visible_alias = "ls")]
    List,
    /// Show what counts now, and where each value comes from
    Show,
    /// Forget a context
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        name: String,
    },
}
