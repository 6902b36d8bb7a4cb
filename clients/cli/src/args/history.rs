//! Arguments about the log.

use std::time::SystemTime;

use clap::Args;

use super::{TypeName, time};

/// `tandem get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The id of the message
    pub id: String,
}

/// Which messages of the log: all that is given must hold.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Committed then or later: 2026-01-31T12:00:00Z, or 10m for ten minutes ago
    #[arg(long, value_parser = time::parse, value_name = "TIME")]
    pub since: Option<SystemTime>,
    /// Committed before then
    #[arg(long, value_parser = time::parse, value_name = "TIME")]
    pub until: Option<SystemTime>,
    /// Sent by this sandbox or addressed to it by name
    #[arg(long, value_name = "ID")]
    pub sandbox: Option<String>,
    /// Sent by this agent or addressed to it by name
    #[arg(long, value_name = "NAME")]
    pub agent: Option<String>,
    /// Of this conversation
    #[arg(long, value_name = "ID")]
    pub correlation_id: Option<String>,
    /// Of this type
    #[arg(long = "type", value_enum)]
    pub kind: Option<TypeName>,
}

/// `tandem history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The first sequence
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE", hide_default_value = true)]
    pub from_sequence: u64,
    /// The last sequence
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE", hide_default_value = true, conflicts_with = "follow")]
    pub to_sequence: u64,
    /// Which of them.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// At most so many; 0 for all; unless given: 100, and all with --follow
    #[arg(long)]
    pub limit: Option<usize>,
    /// Newest first
    #[arg(long, conflicts_with = "follow")]
    pub reverse: bool,
    /// Go on with what is committed from now on
    #[arg(long)]
    pub follow: bool,
}

/// `tandem replay-range`.
#[derive(Debug, Args)]
#[command(after_help = "\
The messages come as first attempts under their old sequences; what waits in the inbox already is
passed over. A call that breaks is simply repeated. The log and other inboxes stay as they are.")]
pub struct ReplayRangeArgs {
    /// The sandbox whose inbox gets the messages; must be registered
    #[arg(value_name = "SANDBOX")]
    pub inbox: String,
    /// The first sequence
    #[arg(long, value_name = "SEQUENCE")]
    pub from_sequence: u64,
    /// The last sequence, included
    #[arg(long, value_name = "SEQUENCE")]
    pub to_sequence: u64,
    /// Which of them.
    #[command(flatten)]
    pub filter: FilterArgs,
}
