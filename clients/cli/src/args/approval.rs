//! `tandem approval`.

use clap::{Args, Subcommand, ValueEnum};
use tandem_client::ApprovalState;

/// `tandem approval`.
#[derive(Debug, Args)]
pub struct ApprovalArgs {
    /// What to do with approvals.
    #[command(subcommand)]
    pub command: ApprovalCommand,
}

/// What to do with approvals.
#[derive(Debug, Subcommand)]
pub enum ApprovalCommand {
    /// List what waits for approval, the newest first
    List {
        /// What has become of it
        #[arg(long, value_enum, default_value_t = ApprovalStateName::Waiting)]
        state: ApprovalStateName,
        /// At most so many; 0 for all
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one, with its message and what was said about it
    Show {
        /// Its number
        #[arg(value_name = "APPROVAL")]
        id: u64,
    },
    /// Let a message go: it is judged once more and delivered
    Approve(DecisionArgs),
    /// Refuse a message; its sender is told
    Deny(DecisionArgs),
}

/// `tandem approval approve` and `deny`.
#[derive(Debug, Args)]
pub struct DecisionArgs {
    /// The number of the approval
    #[arg(value_name = "APPROVAL")]
    pub id: u64,
    /// Why, for the sender and whoever asks later
    #[arg(long, default_value = "")]
    pub comment: String,
}

/// What has become of a message that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ApprovalStateName {
    /// It waits
    Waiting,
    /// It is in the log
    Approved,
    /// Somebody has denied it
    Denied,
    /// Nobody decided in time
    Expired,
    /// It was approved and not let through all the same
    Refused,
    /// Whatever it is
    All,
}

impl From<ApprovalStateName> for Option<ApprovalState> {
    fn from(name: ApprovalStateName) -> Self {
        Some(match name {
            ApprovalStateName::Waiting => ApprovalState::Waiting,
            ApprovalStateName::Approved => ApprovalState::Approved,
            ApprovalStateName::Denied => ApprovalState::Denied,
            ApprovalStateName::Expired => ApprovalState::Expired,
            ApprovalStateName::Refused => ApprovalState::Refused,
            ApprovalStateName::All => return None,
        })
    }
}
