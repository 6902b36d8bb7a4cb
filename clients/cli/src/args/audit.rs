//! `tandem audit`.

use std::{path::PathBuf, time::SystemTime};

use clap::{Args, Subcommand};

/// `tandem audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// The chain of this shard, for what belongs to no workspace: keys, tokens that were wrong, the cluster (shard 0), and
    /// workspaces that were created and deleted (the shard of each)
    #[arg(long, value_name = "SHARD", global = true)]
    pub shard: Option<u32>,
    /// What to do with the audit.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What to do with the audit.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print records, the oldest first
    List(Box<AuditListArgs>),
    /// Print where the chain ends: a number and a hash, to be kept somewhere else
    Head,
    /// Print the whole chain as JSON lines, to be kept and checked by `tandem audit verify`
    Export {
        /// The first record; unless given: the oldest that is kept
        #[arg(long, value_name = "RECORD", default_value_t = 0, hide_default_value = true)]
        from_record: u64,
    },
    /// Check an export, without any broker
    Verify(VerifyAuditArgs),
}

/// `tandem audit list`.
#[derive(Debug, Args)]
pub struct AuditListArgs {
    /// Only these, as the records name them; may be repeated
    #[arg(long = "kind", value_name = "KIND")]
    pub kinds: Vec<String>,
    /// Only what this one has done
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Only what is about this: a sandbox, a topic, a key, an RPC
    #[arg(long, value_name = "NAME")]
    pub about: Option<String>,
    /// Only what was done at this time or later: a time, or a duration such as 24h
    #[arg(long, value_name = "TIME", value_parser = super::time::parse)]
    pub since: Option<SystemTime>,
    /// Only what was done before this time
    #[arg(long, value_name = "TIME", value_parser = super::time::parse)]
    pub until: Option<SystemTime>,
    /// The first record
    #[arg(long, value_name = "RECORD", default_value_t = 0, hide_default_value = true)]
    pub from_record: u64,
    /// At most so many; 0 for all
    #[arg(long, default_value_t = 100)]
    pub limit: usize,
}

/// `tandem audit verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 1 where a record was edited, left out, added or moved. That records are missing at the end only
a head can tell, so keep one elsewhere:

  tandem audit export > audit.jsonl
  tandem audit verify audit.jsonl --head 9f86d081884c7d65...")]
pub struct VerifyAuditArgs {
    /// JSON lines; - for standard input
    pub file: PathBuf,
    /// The hash of the last record, or of an earlier one, from somewhere else than the export
    #[arg(long, value_name = "HASH")]
    pub head: Option<String>,
    /// File of anchors: heads that brokers have written down (audit.anchor_file)
    #[arg(long, value_name = "FILE")]
    pub anchors: Option<PathBuf>,
    /// The public key, as PEM, that must have signed each of them
    #[arg(long, value_name = "FILE", requires = "anchors")]
    pub anchor_key: Option<PathBuf>,
}
