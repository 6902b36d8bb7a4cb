//! Arguments about the cluster.

use std::time::Duration;

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
    /// Print the nodes, for each shard who leads it and how far every node is, and a change that is under way
    Status,
    /// Compare the states of all nodes, each shard at the same entry of its log; exit code 1 unless all are there and agree
    Verify {
        /// How long the nodes may take
        #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, value_name = "DURATION")]
        timeout: Duration,
    },
    /// Take in a new node, started with --join before or after; returns once it votes in every shard
    Add {
        /// Id of the new node; one that no node of the cluster ever had
        node: u64,
        /// Where the other nodes dial it
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// How long to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Take out a node for good; it stops, and neither its id nor its data directory comes back
    Remove {
        /// Its id
        node: u64,
        /// Also where too few of the nodes that stay are connected; the change then waits for them
        #[arg(long)]
        force: bool,
        /// How long to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Take in a new node in the place of another one, which is taken out for good, as when it lost its disk
    Replace {
        /// Id of the node that goes
        old: u64,
        /// Id of the new node; one that no node of the cluster ever had
        new: u64,
        /// Where the other nodes dial the new one
        #[arg(long, value_name = "HOST:PORT")]
        peer: String,
        /// Also where too few of the nodes that stay are connected; the change then waits for them
        #[arg(long)]
        force: bool,
        /// How long to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Have a node lead a shard from now on
    Transfer {
        /// The shard
        #[arg(long, value_name = "N")]
        shard: u32,
        /// The node that shall lead it
        #[arg(long, value_name = "ID")]
        to: u64,
        /// How long to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Spread the leaders over the nodes again, whatever was transferred before
    Rebalance,
    /// Move what a node leads to the others, and give it nothing until undrain or until it starts again
    Drain {
        /// Its id
        node: u64,
        /// How long to wait.
        #[command(flatten)]
        wait: Wait,
    },
    /// Let a drained node lead again
    Undrain {
        /// Its id
        node: u64,
    },
}

/// How long to wait for a change.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// How long to wait until it is done; it goes on without this command, too
    #[arg(long, default_value = "10m", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
    /// Return as soon as the cluster has accepted it
    #[arg(long)]
    pub no_wait: bool,
}
