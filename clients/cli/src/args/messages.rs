//! Arguments about messages.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::{ArgGroup, Args, ValueEnum};
use tandem_client::MessageType;

use super::{Pair, time};

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TypeName {
    /// Asks for something
    Request,
    /// Answers a request
    Response,
    /// Tells
    Notification,
    /// Orders
    Command,
}

impl From<TypeName> for MessageType {
    fn from(name: TypeName) -> Self {
        match name {
            TypeName::Request => Self::Request,
            TypeName::Response => Self::Response,
            TypeName::Notification => Self::Notification,
            TypeName::Command => Self::Command,
        }
    }
}

/// `tandem pub`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("destination").required(true).args(["to", "broadcast"])),
    group(ArgGroup::new("source").required(true).args(["content", "file"]))
)]
pub struct PubArgs {
    /// The content; - reads standard input
    pub content: Option<String>,
    /// Read the content from a file
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// The sandbox that sends
    #[arg(long, value_name = "SANDBOX")]
    pub from: String,
    /// The sandbox that receives
    #[arg(long, value_name = "SANDBOX")]
    pub to: Option<String>,
    /// Send to every other sandbox of the workspace
    #[arg(long)]
    pub broadcast: bool,
    /// What the message is for
    #[arg(long = "type", value_enum, default_value_t = TypeName::Notification)]
    pub kind: TypeName,
    /// 0 to 9, 9 is delivered first; 5 unless given
    #[arg(long)]
    pub priority: Option<u32>,
    /// Ties the messages of a conversation together
    #[arg(long, value_name = "ID")]
    pub correlation_id: Option<String>,
    /// A header of the application; may be repeated
    #[arg(long = "metadata", value_name = "KEY=VALUE")]
    pub metadata: Vec<Pair>,
    /// The agent that sends
    #[arg(long, value_name = "AGENT")]
    pub from_agent: Option<String>,
    /// The agent that is meant
    #[arg(long, value_name = "AGENT")]
    pub to_agent: Option<String>,
    /// Media type; unless given: JSON when the content is JSON, else plain text, else octets
    #[arg(long, value_name = "TYPE")]
    pub content_type: Option<String>,
    /// Ask for a response with the same correlation id
    #[arg(long)]
    pub requires_response: bool,
    /// Name the message; publishing the same id again changes nothing
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// W3C trace context to send along
    #[arg(long)]
    pub traceparent: Option<String>,
}

/// `tandem sub`.
#[derive(Debug, Args)]
pub struct SubArgs {
    /// The sandbox whose inbox to read; must be registered
    pub sandbox: String,
    /// Stop after so many messages
    #[arg(long)]
    pub count: Option<u64>,
    /// Leave the messages in the inbox; they are delivered again
    #[arg(long)]
    pub no_ack: bool,
    /// Stop when nothing comes for so long; exit code 5 when --count is not reached
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
}

/// `tandem get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// The id of the message
    pub id: String,
}

/// `tandem history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The first sequence
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE", hide_default_value = true)]
    pub from_sequence: u64,
    /// The last sequence
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE", hide_default_value = true)]
    pub to_sequence: u64,
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
    /// At most so many; 0 for all
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
    /// Newest first
    #[arg(long)]
    pub reverse: bool,
}
