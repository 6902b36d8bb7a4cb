//! What an operator says of encryption at rest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ConfigError, check};
use crate::field;

/// Encryption of what messages say, in the log, the states, the snapshots and their copies. Who sent what to whom, metadata and sizes
/// stay readable: the broker works with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EncryptionConfig {
    /// Keys, a line each: a name, a space, and 32 bytes as base64. The first one encrypts, all decrypt. Read again when it changes.
    /// The same on all nodes. Empty: nothing is encrypted. Default empty.
    pub key_file: PathBuf,
    /// The workspaces whose messages are encrypted from now on; `*` for all. What was stored before stays as it is. Default none.
    pub workspaces: Vec<String>,
}

impl EncryptionConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let file = !self.key_file.as_os_str().is_empty();
        let key_file = "set where encryption.workspaces names any";
        check("encryption.key_file", "not set", file || self.workspaces.is_empty(), key_file)?;
        for workspace in self.workspaces.iter().filter(|workspace| *workspace != "*") {
            let fine = field::id("encryption.workspaces", workspace).is_ok();
            check("encryption.workspaces", workspace, fine, "ids of workspaces, or *")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_need_keys() {
        let with = |file: &str, workspaces: &[&str]| EncryptionConfig {
            key_file: file.into(),
            workspaces: workspaces.iter().map(|workspace| (*workspace).to_owned()).collect(),
        };
        with("", &[]).validate().unwrap();
        with("keys", &[]).validate().unwrap();
        with("keys", &["*", "team-a"]).validate().unwrap();
        assert!(with("", &["*"]).validate().unwrap_err().to_string().contains("encryption.key_file"));
        assert!(with("keys", &["team a"]).validate().unwrap_err().to_string().contains("team a"));
    }
}
