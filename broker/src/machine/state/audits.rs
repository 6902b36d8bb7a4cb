//! Where the chains of the audit end: read once, and written at the end of the command that has moved them.

use std::collections::{BTreeSet, HashMap};

use super::{MAX_CACHED, State, StateError};
use crate::{
    encoding::Field as _,
    machine::{
        audit::AuditHead,
        keys::{self, RECORDS},
    },
};

/// See the module.
#[derive(Default)]
pub(super) struct AuditHeads {
    known: HashMap<u32, AuditHead>,
    changed: BTreeSet<u32>,
}

impl AuditHeads {
    pub(super) fn visible(&mut self) {
        if self.known.len() > MAX_CACHED {
            self.known.clear();
        }
    }

    pub(super) fn forget(&mut self, workspace: u32) {
        self.known.remove(&workspace);
        self.changed.remove(&workspace);
    }
}

impl State {
    /// The end of the chain of a workspace, to be changed: it is written at the end of the command.
    pub(in crate::machine) fn audit_mut(&mut self, workspace: u32) -> Result<&mut AuditHead, StateError> {
        if !self.audits.known.contains_key(&workspace) {
            let head = self.read(RECORDS, &keys::audit_head(workspace), "audit head")?.unwrap_or_default();
            self.audits.known.insert(workspace, head);
        }
        self.audits.changed.insert(workspace);
        Ok(self.audits.known.entry(workspace).or_default())
    }

    pub(super) fn write_audits(&mut self) {
        for workspace in std::mem::take(&mut self.audits.changed) {
            if let Some(head) = self.audits.known.get(&workspace) {
                let record = head.to_bytes();
                self.put(RECORDS, keys::audit_head(workspace), record);
            }
        }
    }
}
