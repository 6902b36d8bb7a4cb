//! Arguments about messages that go out.

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

/// What every message has that is published.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("source").required(true).args(["content", "file"])))]
pub struct MessageArgs {
    /// The content; - reads standard input
    pub content: Option<String>,
    /// Read the content from a file
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// The sandbox that sends
    #[arg(long, value_name = "SANDBOX")]
    pub from: String,
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
    /// Name the message; publishing the same id again changes nothing
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// W3C trace context to send along
    #[arg(long)]
    pub traceparent: Option<String>,
    /// Never delivered after so long, 1s to 366days; unless given: that of the workspace
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub ttl: Option<Duration>,
    /// Become a dead letter of the recipient when the ttl ends
    #[arg(long)]
    pub dead_letter_on_expiry: bool,
    /// Not delivered before then: 2026-01-31T12:00:00Z
    #[arg(long, value_parser = time::parse_absolute, value_name = "TIME", conflicts_with = "delay")]
    pub not_before: Option<SystemTime>,
    /// Not delivered before so much time has passed
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub delay: Option<Duration>,
    /// A recipient gets messages with equal keys one at a time and in order
    #[arg(long)]
    pub key: Option<String>,
}

/// `tandem pub`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("destination").required(true).args(["to", "broadcast", "topic", "capability"])),
)]
pub struct PubArgs {
    /// What every message has.
    #[command(flatten)]
    pub message: MessageArgs,
    /// The sandbox that receives
    #[arg(long, value_name = "SANDBOX")]
    pub to: Option<String>,
    /// Send to every other sandbox of the workspace
    #[arg(long)]
    pub broadcast: bool,
    /// Send to every sandbox that follows this topic
    #[arg(long, value_name = "NAME")]
    pub topic: Option<String>,
    /// Send to one sandbox that is online and has an agent with this capability
    #[arg(long, value_name = "NAME")]
    pub capability: Option<String>,
    /// With --capability: send to all that have it, online or not
    #[arg(long, requires = "capability", conflicts_with_all = ["to", "broadcast", "topic"])]
    pub all_capable: bool,
    /// With --capability: when nobody is there, wait for somebody until the ttl ends
    #[arg(long, requires = "capability", conflicts_with_all = ["all_capable", "to", "broadcast", "topic"])]
    pub wait_for_capable: bool,
    /// What the message is for
    #[arg(long = "type", value_enum, default_value_t = TypeName::Notification)]
    pub kind: TypeName,
    /// Ask for a response with the same correlation id
    #[arg(long)]
    pub requires_response: bool,
}

/// `tandem request`.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("destination").required(true).args(["to", "capability"])),
    after_help = "\
Publishes the message and prints the response that carries its correlation id. --id and
--correlation-id are made up unless given. A response after --timeout goes to the inbox of the
sender; repeat the command with the same --id and --correlation-id, which are printed then, to wait
on.

Exit code 5 when no response came in time, 4 when the request became a dead letter or expired."
)]
pub struct RequestArgs {
    /// What every message has.
    #[command(flatten)]
    pub message: MessageArgs,
    /// The sandbox that answers
    #[arg(long, value_name = "SANDBOX")]
    pub to: Option<String>,
    /// Ask one sandbox that is online and has an agent with this capability
    #[arg(long, value_name = "NAME")]
    pub capability: Option<String>,
    /// With --capability: when nobody is there, wait for somebody
    #[arg(long, requires = "capability", conflicts_with = "to")]
    pub wait_for_capable: bool,
    /// Send a command instead of a request
    #[arg(long)]
    pub command: bool,
    /// How long to wait for the response, 100ms to 24h
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Duration,
}
