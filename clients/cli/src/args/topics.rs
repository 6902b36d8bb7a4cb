//! Arguments about topics.

use std::time::SystemTime;

use clap::{Args, Subcommand};

use super::time;

/// `tandem topic`.
#[derive(Debug, Args)]
#[command(after_help = "\
A name has parts of letters, digits, _ and -, divided by dots. A pattern may have `*` for one part,
and `>` at its end for one or more; quote it for the shell: 'build.>'.")]
pub struct TopicArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TopicCommand,
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic; again: nothing changes
    Create {
        /// Its name
        name: String,
    },
    /// List the topics of the workspace
    #[command(visible_alias = "ls")]
    List,
    /// Delete a topic with what waits in it; the messages stay in the history
    #[command(visible_alias = "rm")]
    Delete {
        /// Its name
        name: String,
    },
    /// Let a sandbox receive what is published to the topics that match, now and later
    Follow {
        /// The sandbox; must be registered
        sandbox: String,
        /// A topic or a pattern
        pattern: String,
        /// Begin with this sequence; unless given: with the next message
        #[arg(long, value_name = "SEQUENCE", conflicts_with = "since")]
        from_sequence: Option<u64>,
        /// Begin with what was committed then: 2026-01-31T12:00:00Z, or 10m for ten minutes ago
        #[arg(long, value_parser = time::parse, value_name = "TIME")]
        since: Option<SystemTime>,
    },
    /// End following; what waits there and no other pattern covers is given up
    Unfollow {
        /// The sandbox
        sandbox: String,
        /// The pattern, as it was followed
        pattern: String,
    },
    /// List what a sandbox follows
    Follows {
        /// The sandbox
        sandbox: String,
    },
}
