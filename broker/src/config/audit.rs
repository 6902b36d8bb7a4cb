//! What an operator says of the audit.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check};

/// Heads of the chains of the audit, written down by each node for all that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditConfig {
    /// Where heads are appended, a JSON document a line; keep it where whoever runs the broker cannot change it. Empty: nowhere.
    /// Default empty.
    pub anchor_file: PathBuf,
    /// How often, in seconds; only heads that have changed. 1 to 86,400, default 60.
    pub anchor_every_s: u64,
    /// The private key of Ed25519, as PEM, that signs them. Empty: nobody does. Default empty.
    pub anchor_key_file: PathBuf,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { anchor_file: PathBuf::new(), anchor_every_s: 60, anchor_key_file: PathBuf::new() }
    }
}

impl AuditConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let every = self.anchor_every_s;
        check("audit.anchor_every_s", every, (1..=86_400).contains(&every), "1 to 86,400")?;
        let file = !self.anchor_file.as_os_str().is_empty() || self.anchor_key_file.as_os_str().is_empty();
        check("audit.anchor_file", "not set", file, "set where audit.anchor_key_file is")
    }
}
