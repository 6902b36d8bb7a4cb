//! Arguments about inboxes.

use std::time::Duration;

use clap::Args;

/// `tandem sub`.
#[derive(Debug, Args)]
#[command(after_help = "\
What was delivered and not acknowledged at the end goes back to the inbox without a failed attempt.
While it is held, its lease is extended.")]
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
    /// How long a delivery may take before it counts as failed, 1s to 24h; 30s unless given
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub ack_wait: Option<Duration>,
    /// Acknowledge also after that time, as long as nobody else holds the message
    #[arg(long)]
    pub lenient: bool,
    /// Of 100 deliveries, how many go to lower priorities while higher ones wait: 0 to 50
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=50))]
    pub low_priority_percent: u32,
}

/// `tandem nack`.
#[derive(Debug, Args)]
#[command(after_help = "\
Prints what it refuses. A refused message is tried again after the backoff of the sandbox or after
--delay; the last attempt makes it a dead letter.")]
pub struct NackArgs {
    /// The sandbox whose inbox to read; must be registered
    pub sandbox: String,
    /// Stop after so many messages
    #[arg(long, default_value_t = 1)]
    pub count: u64,
    /// Stop when nothing comes for so long; exit code 5 when --count is not reached
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub timeout: Option<Duration>,
    /// When the next attempt may be, at most 24h away
    #[arg(long, value_parser = humantime::parse_duration, value_name = "DURATION", conflicts_with = "dead_letter")]
    pub delay: Option<Duration>,
    /// Why, for the attempt history; at most 1024 bytes
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub reason: String,
    /// No further attempt: the messages become dead letters
    #[arg(long)]
    pub dead_letter: bool,
}
