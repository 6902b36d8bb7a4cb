//! Arguments about dead letters.

use std::time::SystemTime;

use clap::{Args, Subcommand, ValueEnum};
use tandem_client::DeadLetterReason;

use super::{TypeName, time};

/// `tandem dlq`.
#[derive(Debug, Args)]
pub struct DlqArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: DlqCommand,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// List dead letters by recipient and sequence
    List {
        /// Which of them.
        #[command(flatten)]
        filter: LetterFilterArgs,
        /// At most so many; 0 for all
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one dead letter with its message and its attempts
    Show {
        /// The sandbox whose inbox it left
        sandbox: String,
        /// The sequence of its message
        sequence: u64,
    },
    /// Put dead letters back into an inbox, as first attempts
    Redrive {
        /// Which of them.
        #[command(flatten)]
        filter: LetterFilterArgs,
        /// All of the workspace
        #[arg(long)]
        all: bool,
        /// The sandbox whose inbox gets them; unless given: the one that each left
        #[arg(long, value_name = "SANDBOX")]
        to: Option<String>,
        /// Messages a second at the most; 0 is as fast as live traffic leaves room
        #[arg(long, default_value_t = 0, value_name = "PER_SECOND")]
        rate: u32,
    },
    /// Remove dead letters for good
    Purge {
        /// Which of them.
        #[command(flatten)]
        filter: LetterFilterArgs,
        /// All of the workspace
        #[arg(long)]
        all: bool,
    },
}

/// Which dead letters: all that is given must hold.
#[derive(Debug, Args)]
pub struct LetterFilterArgs {
    /// They left the inbox of this sandbox
    #[arg(long, value_name = "ID")]
    pub sandbox: Option<String>,
    /// Why they left it
    #[arg(long, value_enum)]
    pub reason: Option<ReasonName>,
    /// Sent by this sandbox
    #[arg(long, value_name = "SANDBOX")]
    pub from: Option<String>,
    /// Of this conversation
    #[arg(long, value_name = "ID")]
    pub correlation_id: Option<String>,
    /// Of this type
    #[arg(long = "type", value_enum)]
    pub kind: Option<TypeName>,
    /// Dead then or later: 2026-01-31T12:00:00Z, or 10m for ten minutes ago
    #[arg(long, value_parser = time::parse, value_name = "TIME")]
    pub since: Option<SystemTime>,
    /// Dead before then
    #[arg(long, value_parser = time::parse, value_name = "TIME")]
    pub until: Option<SystemTime>,
    /// Only the message with this sequence
    #[arg(long, requires = "sandbox", value_parser = clap::value_parser!(u64).range(1..))]
    pub sequence: Option<u64>,
}

impl LetterFilterArgs {
    /// Whether nothing is given, so that every dead letter fits.
    pub fn is_empty(&self) -> bool {
        let Self { sandbox, reason, from, correlation_id, kind, since, until, sequence } = self;
        let texts = [sandbox, from, correlation_id];
        texts.iter().all(|text| text.is_none())
            && reason.is_none()
            && kind.is_none()
            && since.is_none()
            && until.is_none()
            && sequence.is_none()
    }
}

/// Why a message left its inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReasonName {
    /// All attempts failed
    AttemptsExhausted,
    /// A subscriber refused it for good
    Rejected,
    /// Its ttl ended
    Expired,
    /// Its conversation went to and fro too often
    Loop,
}

impl From<ReasonName> for DeadLetterReason {
    fn from(name: ReasonName) -> Self {
        match name {
            ReasonName::AttemptsExhausted => Self::AttemptsExhausted,
            ReasonName::Rejected => Self::Rejected,
            ReasonName::Expired => Self::Expired,
            ReasonName::Loop => Self::Loop,
        }
    }
}
