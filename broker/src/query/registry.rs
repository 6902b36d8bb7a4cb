//! Reads sandboxes and workspaces.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::Direction;

use super::{QueryError, StateReader};
use crate::{
    encoding::Field as _,
    machine::{
        StateError,
        inbox::Counters,
        keys::{self, RECORDS, behind},
        registry::Heard,
        state::Sandbox,
        topic,
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
    pub(crate) counters: Counters,
}

/// A sandbox that a message to a capability can go to.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) heard_ms: u64,
    /// Messages addressed to it that wait.
    pub(crate) held: u64,
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
        let heard = heartbeat.map(|record| Heard::from_bytes(record, "heartbeat")).transpose()?;
        let last_heartbeat_ms = heard.map_or(sandbox.create_time_ms, |heard| heard.time_ms);
        let inbox = self.inbox(workspace.number, sandbox.number)?;
        let mut pending = inbox.as_ref().map_or(0, |inbox| inbox.pending(workspace.broadcasts));
        let counters = inbox.map(|inbox| inbox.counters).unwrap_or_default();
        if counters.follows > 0 {
            pending += self.pending_in_topics(workspace.number, sandbox.number)?;
        }
        Ok(NamedSandbox { name, sandbox, last_heartbeat_ms, pending, counters })
    }

    fn pending_in_topics(&self, workspace: u32, sandbox: u32) -> Result<u64, StateError> {
        let patterns = self.follow_patterns(workspace, sandbox)?;
        let mut pending = 0;
        for (name, topic) in self.all_topics(workspace)? {
            if patterns.iter().any(|pattern| topic::matches(pattern, &name)) {
                let done = self.topic_cursors(workspace, topic.number, sandbox)?.done;
                pending += topic.messages.saturating_sub(done);
            }
        }
        Ok(pending)
    }

    /// Sandboxes with a capability, by number, behind the one with the number `after`, up to a limit.
    pub(crate) fn capable(
        &self,
        workspace: u32,
        capability: &str,
        after: Option<u32>,
        limit: usize,
    ) -> Result<Vec<Candidate>, StateError> {
        let (first, to) = keys::capable_of(workspace, capability);
        let from = after.map_or(first, |after| behind(&keys::capable(workspace, capability, after)));
        let mut found = Vec::new();
        self.engine().scan(RECORDS, &from, &to, Direction::Forward, &mut |key, value| {
            found.push((keys::capable_sandbox(key), Bytes::copy_from_slice(value)));
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        let candidate = |(number, name): (u32, Bytes)| {
            let heard = self.engine().get(RECORDS, &keys::heartbeat(workspace, number))?;
            let heard = heard.map(|record| Heard::from_bytes(record, "heartbeat")).transpose()?;
            Ok(Candidate {
                number,
                name: String::from_bytes(name, "sandbox name")?,
                heard_ms: heard.map_or(0, |heard| heard.time_ms),
                held: self.inbox(workspace, number)?.map_or(0, |inbox| inbox.held()),
            })
        };
        found.into_iter().map(candidate).collect()
    }
}
