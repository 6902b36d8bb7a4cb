//! Arguments about the cluster.

use clap::{Args, Subcommand};

/// `tandem cluster`.
#[derive(Debug, Args)]
pub struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// What to do with the cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Print the nodes and, for each shard, who leads it and how far every node is
    Status,
}
