//! Writes down the heads of all chains of the audit that this node holds, now and then.
//!
//! Every node does, each for itself: what a node has applied is committed, whoever leads.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read as _, Seek as _, Write as _},
    time::Duration,
};

use crate::{
    audit::anchor::{Anchor, AnchorKey},
    clock,
    config::{AuditConfig, ConfigError},
    machine::{audit::AuditHead, keys::NO_WORKSPACE},
    pem::wrong,
    query::QueryError,
    shard::Shards,
};

/// Workspaces that one look reads the heads of at once.
const PAGE: usize = 1_000;

/// See the module.
pub(crate) struct Anchors {
    settings: AuditConfig,
    key: Option<AnchorKey>,
    cluster: String,
    node: u64,
    shards: Shards,
    /// By chain: the hash that was written down last.
    told: HashMap<String, crate::audit::Hash>,
}

impl Anchors {
    /// None where the settings name no file. One that can be written, and a key that can be read.
    pub(crate) fn new(
        settings: &AuditConfig,
        (cluster, node): (String, u64),
        shards: Shards,
    ) -> Result<Option<Self>, ConfigError> {
        if settings.anchor_file.as_os_str().is_empty() {
            return Ok(None);
        }
        let opened = fs::OpenOptions::new().create(true).append(true).open(&settings.anchor_file);
        opened.map_err(|error| {
            wrong("audit.anchor_file", &settings.anchor_file, &error, "a file that can be appended to")
        })?;
        let key_file = &settings.anchor_key_file;
        let key = if key_file.as_os_str().is_empty() {
            None
        } else {
            let read = AnchorKey::read(key_file);
            Some(read.map_err(|error| {
                wrong("audit.anchor_key_file", key_file, &error, "a private key of Ed25519 as PEM (PKCS#8)")
            })?)
        };
        Ok(Some(Self { settings: settings.clone(), key, cluster, node, shards, told: HashMap::new() }))
    }

    /// Writes heads down for as long as the node runs.
    pub(crate) async fn keep(mut self) {
        loop {
            tokio::time::sleep(Duration::from_secs(self.settings.anchor_every_s)).await;
            let written = tokio::task::spawn_blocking(move || {
                let written = self.write();
                (self, written)
            });
            let Ok((back, written)) = written.await else { return };
            self = back;
            if let Err(error) = written {
                tracing::error!(file = %self.settings.anchor_file.display(), error, "heads of the audit could not be written down");
            }
        }
    }

    /// All heads that have changed. What was written is on the disk then.
    fn write(&mut self) -> Result<(), String> {
        let found = self.heads().map_err(|error| error.to_string())?;
        let (mut lines, mut changed) = (String::new(), Vec::new());
        for (chain, head) in found {
            if head.number == 0 || self.told.get(&chain) == Some(&head.hash) {
                continue;
            }
            let (cluster, node) = (self.cluster.clone(), self.node);
            let anchor = Anchor {
                anchor: 1,
                cluster,
                chain: chain.clone(),
                origin: head.origin.to_string(),
                number: head.number,
                hash: head.hash.to_string(),
                time_ms: clock::unix_ms(),
                node,
                signature: String::new(),
            };
            let anchor = match &self.key {
                Some(key) => anchor.signed(key),
                None => anchor,
            };
            lines += &serde_json::to_string(&anchor).map_err(|error| error.to_string())?;
            lines.push('\n');
            changed.push((chain, head.hash));
        }
        if changed.is_empty() {
            return Ok(());
        }
        // Opened anew: somebody may have put the file away.
        self.append(lines).map_err(|error| error.to_string())?;
        self.told.extend(changed);
        Ok(())
    }

    fn append(&self, lines: String) -> io::Result<()> {
        let mut options = fs::OpenOptions::new();
        let mut file = options.create(true).read(true).append(true).open(&self.settings.anchor_file)?;
        // A line that was written in part, because the disk was full for example, ends here; nothing is glued to it.
        let mut last = [b'\n'];
        if file.metadata()?.len() > 0 {
            file.seek(io::SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        let lines = if last == [b'\n'] { lines } else { format!("\n{lines}") };
        file.write_all(lines.as_bytes())?;
        file.sync_all()
    }

    /// Where each chain ends by now.
    fn heads(&mut self) -> Result<Vec<(String, AuditHead)>, QueryError> {
        let mut found = Vec::new();
        for shard in self.shards.iter() {
            found.push((format!("shard {}", shard.group.shard()), shard.reader.audit_head(NO_WORKSPACE)?));
            let mut behind = String::new();
            loop {
                let page = shard.reader.workspaces_after(&behind, PAGE)?;
                let Some((last, _)) = page.last() else { break };
                behind.clone_from(last);
                for (name, workspace) in page {
                    found.push((name, shard.reader.audit_head(workspace.number)?));
                }
            }
        }
        let there: std::collections::HashSet<&String> = found.iter().map(|(chain, _)| chain).collect();
        self.told.retain(|chain, _| there.contains(chain));
        Ok(found)
    }
}
