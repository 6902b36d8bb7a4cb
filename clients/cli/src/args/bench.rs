//! Arguments of the benchmarks.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BenchKind {
    /// Publishing only: messages go to inboxes that nobody reads
    Publish,
    /// Durable inboxes, each with a subscriber that acknowledges every message
    Inbox,
    /// One message to many subscribers
    Broadcast,
    /// One publisher and one inbox, beside many idle inboxes
    Idle,
    /// A redrive of dead letters beside live traffic: how fast, and what it does to the latency of the others
    Redrive,
}

/// `tandem bench`.
#[derive(Debug, Args)]
#[command(after_help = "\
Runs in a workspace of its own, which is deleted at the end. Ends when --messages are sent or
--seconds are over, and what was sent is delivered. 10 seconds without progress end it with exit
code 1, and so does a message that is lost, duplicated or out of order.

publish_ms is the time from sending a message to its acknowledgement, e2e_ms the time from sending
it to its arrival at the subscriber, by one clock. rate_per_s counts acknowledged messages
(publish), dead letters put back (redrive) or deliveries whose acknowledgement the broker confirmed
(others). Every publisher has a connection of its own; up to 64 subscriptions share one.

redrive measures its live traffic twice, for --seconds alone (5 unless given) and while the dead letters
are put back, and then reads what came back.")]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum)]
    pub kind: BenchKind,
    /// How much.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// How much load; what is not given depends on the kind of benchmark.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Publishers; unless given: 4, 1 for broadcast, idle and redrive
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub publishers: Option<u32>,
    /// Unacknowledged messages per publisher
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub window: u32,
    /// Bytes of content per message
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(24..=16_000_000))]
    pub size: u32,
    /// Stop sending after so many messages
    #[arg(long)]
    pub messages: Option<u64>,
    /// Stop sending after so many seconds; unless given: 10 without --messages
    #[arg(long, value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// Inboxes; unless given: 16 for publish, 100 for inbox and redrive, 1000 idle ones for idle
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub inboxes: Option<u32>,
    /// Subscribers; unless given: 10 for broadcast, none on idle inboxes
    #[arg(long, visible_alias = "followers", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub subscribers: Option<u32>,
    /// Messages a second, all publishers together; 0 is as fast as it goes; unless given: 1000 for idle and redrive, else 0
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// Publish with single calls instead of streams, --window of them at a time per publisher
    #[arg(long)]
    pub unary: bool,
    /// What each message carries.
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// What waits beside the load.
    #[command(flatten)]
    pub beside: BesideArgs,
    /// Set this policy in the workspace first, to see what it costs
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Leave the workspace behind, to look at
    #[arg(long)]
    pub keep: bool,
}

/// What each message carries beside its content.
#[derive(Debug, Clone, Args)]
pub struct ShapeArgs {
    /// Ordering keys, shared out over the inboxes; 0 is none. For publish and inbox
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub keys: u32,
    /// Give every message an id of its own, which the broker remembers
    #[arg(long)]
    pub ids: bool,
    /// Give every message a ttl of so many seconds
    #[arg(long, value_parser = seconds)]
    pub ttl: Option<Duration>,
    /// Delay every message by so many seconds. For publish
    #[arg(long, value_parser = seconds)]
    pub delay: Option<Duration>,
}

/// What waits beside the load.
#[derive(Debug, Clone, Args)]
pub struct BesideArgs {
    /// Messages that wait before the measurement begins and until it ends, in 100 inboxes that nobody reads
    #[arg(long, default_value_t = 0)]
    pub backlog: u64,
    /// Give those a ttl of so many seconds
    #[arg(long, value_parser = seconds, requires = "backlog")]
    pub backlog_ttl: Option<Duration>,
    /// Delay those by so many seconds, and up to twice as many: it differs from inbox to inbox
    #[arg(long, value_parser = seconds, requires = "backlog")]
    pub backlog_delay: Option<Duration>,
    /// Dead letters to put back, for redrive; unless given: 100000
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub dead_letters: Option<u64>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "write a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.0 => Ok(rate),
        _ => Err("write a number of messages a second, 0 for no limit".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("-1").is_err() && rate("NaN").is_err() && rate("x").is_err());
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert!(seconds("-1").is_err() && seconds("x").is_err());
    }
}
