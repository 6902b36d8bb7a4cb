//! `tandem policy`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{FilterArgs, publish::TypeName, values::Pair};

/// `tandem policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// What to do with policies.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What to do with policies.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Give the workspace a policy; what is published from then on is judged by it
    Set {
        /// The policy as JSON
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Only if the policy has this revision; 0: only if there was never one
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
    /// Print the policy of the workspace
    Show,
    /// Take the policy away: everybody may talk to everybody
    Remove {
        /// Only if the policy has this revision
        #[arg(long, value_name = "REVISION")]
        if_revision: Option<u64>,
    },
    /// Say which rule decides on a message, and why; nothing is published
    Test(Box<TestPolicyArgs>),
    /// Say which messages of the log a policy would not let through
    Simulate(SimulatePolicyArgs),
}

/// `tandem policy test`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 where the message goes through or is held, 1 where it is denied. With --file no broker
is asked. Example:

  tandem policy test --file policy.json --from frontend-team --to backend-team --type request")]
pub struct TestPolicyArgs {
    /// The policy as JSON; without it, the one of the workspace
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The sandbox that sends
    #[arg(long, value_name = "ID")]
    pub from: String,
    /// The agent there
    #[arg(long, value_name = "NAME", default_value = "")]
    pub from_agent: String,
    /// Where it goes: a sandbox, topic:NAME, capability:NAME, or broadcast
    #[arg(long, value_name = "RECIPIENT")]
    pub to: String,
    /// The capability that the sandbox was chosen by
    #[arg(long, value_name = "NAME", default_value = "")]
    pub capability: String,
    /// The agent that it is meant for
    #[arg(long, value_name = "NAME", default_value = "")]
    pub to_agent: String,
    /// What kind of message
    #[arg(long = "type", value_enum, default_value_t = TypeName::Notification)]
    pub message_type: TypeName,
    /// Bytes of its content
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub bytes: u64,
    /// Metadata, several are allowed
    #[arg(long = "meta", value_name = "KEY=VALUE")]
    pub metadata: Vec<Pair>,
    /// When it is decided; without it, now
    #[arg(long, value_name = "TIME", value_parser = super::time::parse_absolute)]
    pub at: Option<std::time::SystemTime>,
}

/// `tandem policy simulate`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each message is judged at the time at which it was committed. What went to a capability is judged by
that, not by who got it. Prints a line for each message that would be denied or held, then how many
there are.")]
pub struct SimulatePolicyArgs {
    /// The policy as JSON
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// The first sequence
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE", hide_default_value = true)]
    pub from_sequence: u64,
    /// The last sequence
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE", hide_default_value = true)]
    pub to_sequence: u64,
    /// Which of them.
    #[command(flatten)]
    pub filter: FilterArgs,
}
