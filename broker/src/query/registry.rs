//! Reads sandboxes and workspaces.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    encoding::Reader,
    machine::{
        keys::{self, RECORDS},
        state::Sandbox,
        workspace::Workspace,
    },
};

/// Bytes of descriptions in one page at the most.
const MAX_PAGE_BYTES: usize = 2 << 20;

/// A sandbox with its name.
#[derive(Debug, Clone)]
pub(crate) struct NamedSandbox {
    pub(crate) name: String,
    pub(crate) sandbox: Sandbox,
    pub(crate) last_heartbeat_ms: u64,
    pub(crate) pending: u64,
}

impl StateReader {
    /// One sandbox with its name, heartbeat and counters.
    pub(crate) fn named_sandbox(&self, workspace: &Workspace, name: &str) -> Result<NamedSandbox, QueryError> {
        let sandbox = self.sandbox(workspace.number, name)?;
        self.complete(workspace, name.to_owned(), sandbox)
    }

    /// Up to `limit` sandboxes of a workspace behind the one with this name, by name, and whether there are more. Fewer when
    /// their descriptions are large.
    pub(crate) fn sandboxes_after(
        &self,
        workspace: &Workspace,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<NamedSandbox>, bool), QueryError> {
        let (first, to) = keys::sandboxes(workspace.number);
        let from = if after.is_empty() { first } else { behind(&keys::sandbox(workspace.number, after)) };
        let (mut found, mut bytes, mut more) = (Vec::new(), 0, false);
        self.engine().scan(RECORDS, &from, &to, Direction::Forward, &mut |key, value| {
            if found.len() >= limit || bytes >= MAX_PAGE_BYTES {
                more = true;
                return ControlFlow::Break(());
            }
            bytes += value.len();
            found.push((keys::sandbox_name(key), Bytes::copy_from_slice(value)));
            ControlFlow::Continue(())
        })?;
        let complete = |(name, record)| self.complete(workspace, name, Sandbox::decode(record)?);
        Ok((found.into_iter().map(complete).collect::<Result<_, _>>()?, more))
    }

    /// Up to `limit` workspaces of this shard behind the one with this name, by name.
    pub(crate) fn workspaces_after(&self, after: &str, limit: usize) -> Result<Vec<(String, Workspace)>, QueryError> {
        let (first, to) = keys::workspaces();
        let from = if after.is_empty() { first } else { behind(&keys::workspace(after)) };
        let mut found = Vec::new();
        self.engine().scan(RECORDS, &from, &to, Direction::Forward, &mut |key, value| {
            found.push((String::from_utf8_lossy(&key[1..]).into_owned(), Bytes::copy_from_slice(value)));
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        found.into_iter().map(|(name, record)| Ok((name, Workspace::decode(record)?))).collect()
    }

    fn complete(&self, workspace: &Workspace, name: String, sandbox: Sandbox) -> Result<NamedSandbox, QueryError> {
        let heartbeat = self.engine().get(RECORDS, &keys::heartbeat(workspace.number, sandbox.number))?;
        let last_heartbeat_ms = match heartbeat {
            Some(record) => Reader::new(record, "heartbeat").u64()?,
            None => sandbox.create_time_ms,
        };
        let inbox = self.inbox(workspace.number, sandbox.number)?;
        let pending = inbox.map_or(0, |inbox| inbox.pending(workspace.broadcasts));
        Ok(NamedSandbox { name, sandbox, last_heartbeat_ms, pending })
    }
}

/// The smallest key behind this one.
fn behind(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}
