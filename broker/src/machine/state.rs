//! The state of a shard behind the rules: the engine, and in front of it a working set.
//!
//! What a command changes is not readable from the engine until its batch is written, and several commands share a batch.
//! So everything changed since the last `visible` stays in the working set, which every read asks first. The rest of it is
//! a cache: bounded, and never more than what the engine holds.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use tandem_storage::{Engine, WriteBatch};

use super::{
    inbox::Inbox,
    keys::{self, IDS, INBOXES, RECORDS},
    workspace::Workspace,
};
use crate::encoding::{DecodeError, Reader};

/// Entries of each kind that the working set keeps between batches.
const MAX_CACHED: usize = 65_536;

/// Why a state cannot be read or a command cannot be understood. Fatal: another node may have gone on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The engine failed.
    #[error(transparent)]
    Storage(#[from] tandem_storage::Error),
    /// A command or a record is not what it should be.
    #[error("{0}; this node must be restored")]
    Decode(#[from] DecodeError),
}

/// What a shard knows of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) time_ms: u64,
    pub(super) next_workspace: u32,
    pub(super) workspaces: u32,
}

/// What is known of an explicit message id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KnownId {
    pub(crate) sequence: u64,
    pub(crate) digest: u64,
    pub(crate) time_ms: u64,
}

impl KnownId {
    fn encode(self) -> Bytes {
        let mut out = BytesMut::with_capacity(24);
        out.put_u64(self.sequence);
        out.put_u64(self.digest);
        out.put_u64(self.time_ms);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, "message id");
        let known = Self { sequence: reader.u64()?, digest: reader.u64()?, time_ms: reader.u64()? };
        reader.end()?;
        Ok(known)
    }
}

/// What the working set keeps of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KnownSandbox {
    pub(super) number: u32,
    pub(super) create_time_ms: u64,
}

/// The number of a sandbox and its description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sandbox {
    /// Names it in keys; never given twice in a workspace.
    pub(crate) number: u32,
    pub(crate) create_time_ms: u64,
    pub(crate) description: Bytes,
}

impl Sandbox {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(12 + self.description.len());
        out.put_u32(self.number);
        out.put_u64(self.create_time_ms);
        out.put_slice(&self.description);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, "sandbox");
        Ok(Self { number: reader.u32()?, create_time_ms: reader.u64()?, description: reader.rest() })
    }
}

/// See the module.
pub(super) struct State {
    engine: Arc<dyn Engine>,
    shard: Option<Shard>,
    workspaces: HashMap<Box<str>, Option<Workspace>>,
    /// Sandboxes by workspace and name; none where there is no such sandbox.
    sandboxes: HashMap<u32, HashMap<Box<str>, Option<KnownSandbox>>>,
    cached_sandboxes: usize,
    /// None where an inbox is gone and the engine may not know it yet.
    inboxes: HashMap<(u32, u32), Option<Inbox>>,
    gone_workspaces: HashSet<u32>,
    new_ids: HashMap<(u32, u128), KnownId>,
    /// Changed by the command under way, in an order that does not depend on hashing.
    changed_workspaces: BTreeSet<Box<str>>,
    changed_inboxes: BTreeSet<(u32, u32)>,
}

impl State {
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            shard: None,
            workspaces: HashMap::new(),
            sandboxes: HashMap::new(),
            cached_sandboxes: 0,
            inboxes: HashMap::new(),
            gone_workspaces: HashSet::new(),
            new_ids: HashMap::new(),
            changed_workspaces: BTreeSet::new(),
            changed_inboxes: BTreeSet::new(),
        }
    }

    pub(super) fn shard(&mut self) -> Result<Shard, StateError> {
        if let Some(shard) = self.shard {
            return Ok(shard);
        }
        let shard = match self.engine.get(RECORDS, &keys::shard())? {
            None => Shard { time_ms: 0, next_workspace: 1, workspaces: 0 },
            Some(bytes) => {
                let mut reader = Reader::new(bytes, "shard");
                Shard { time_ms: reader.u64()?, next_workspace: reader.u32()?, workspaces: reader.u32()? }
            }
        };
        self.shard = Some(shard);
        Ok(shard)
    }

    /// The time of a command: the leader's, but never before the one of the command before.
    pub(super) fn advance_time(&mut self, leader_ms: u64) -> Result<u64, StateError> {
        let mut shard = self.shard()?;
        shard.time_ms = shard.time_ms.max(leader_ms);
        self.shard = Some(shard);
        Ok(shard.time_ms)
    }

    pub(super) fn take_workspace_number(&mut self) -> Result<u32, StateError> {
        let mut shard = self.shard()?;
        let number = shard.next_workspace;
        shard.next_workspace += 1;
        shard.workspaces += 1;
        self.shard = Some(shard);
        Ok(number)
    }

    pub(super) fn workspace(&mut self, name: &str) -> Result<Option<&mut Workspace>, StateError> {
        if !self.workspaces.contains_key(name) {
            let record = self.engine.get(RECORDS, &keys::workspace(name))?;
            let workspace = record.map(Workspace::decode).transpose()?;
            self.workspaces.insert(name.into(), workspace);
        }
        Ok(self.workspaces.get_mut(name).and_then(Option::as_mut))
    }

    pub(super) fn put_workspace(&mut self, name: &str, workspace: Workspace) {
        self.workspaces.insert(name.into(), Some(workspace));
        self.changed_workspaces.insert(name.into());
    }

    pub(super) fn remove_workspace(&mut self, name: &str, number: u32) {
        self.workspaces.insert(name.into(), None);
        self.changed_workspaces.remove(name);
        if let Some(shard) = &mut self.shard {
            shard.workspaces -= 1;
        }
        if let Some(gone) = self.sandboxes.remove(&number) {
            self.cached_sandboxes -= gone.len();
        }
        self.gone_workspaces.insert(number);
        self.inboxes.retain(|(workspace, _), _| *workspace != number);
        self.new_ids.retain(|(workspace, _), _| *workspace != number);
        self.changed_inboxes.retain(|(workspace, _)| *workspace != number);
    }

    pub(super) fn sandbox_number(&mut self, workspace: u32, name: &str) -> Result<Option<u32>, StateError> {
        Ok(self.sandbox(workspace, name)?.map(|sandbox| sandbox.number))
    }

    pub(super) fn sandbox(&mut self, workspace: u32, name: &str) -> Result<Option<KnownSandbox>, StateError> {
        if let Some(known) = self.sandboxes.get(&workspace).and_then(|known| known.get(name)) {
            return Ok(*known);
        }
        let record = self.engine.get(RECORDS, &keys::sandbox(workspace, name))?;
        let known = record.map(Sandbox::decode).transpose()?;
        let known = known.map(|Sandbox { number, create_time_ms, .. }| KnownSandbox { number, create_time_ms });
        self.remember_sandbox(workspace, name, known);
        Ok(known)
    }

    pub(super) fn remember_sandbox(&mut self, workspace: u32, name: &str, known: Option<KnownSandbox>) {
        if self.sandboxes.entry(workspace).or_default().insert(name.into(), known).is_none() {
            self.cached_sandboxes += 1;
        }
    }

    pub(super) fn inbox(&mut self, workspace: u32, sandbox: u32) -> Result<Option<&mut Inbox>, StateError> {
        let key = (workspace, sandbox);
        if self.gone_workspaces.contains(&workspace) {
            return Ok(None);
        }
        if !self.inboxes.contains_key(&key) {
            let Some(record) = self.engine.get(INBOXES, &keys::inbox(workspace, sandbox))? else { return Ok(None) };
            self.inboxes.insert(key, Some(Inbox::decode(record)?));
        }
        Ok(self.inboxes.get_mut(&key).and_then(Option::as_mut))
    }

    /// The inbox, to be changed: it is written at the end of the command.
    pub(super) fn inbox_mut(&mut self, workspace: u32, sandbox: u32) -> Result<Option<&mut Inbox>, StateError> {
        if self.inbox(workspace, sandbox)?.is_none() {
            return Ok(None);
        }
        self.changed_inboxes.insert((workspace, sandbox));
        Ok(self.inboxes.get_mut(&(workspace, sandbox)).and_then(Option::as_mut))
    }

    pub(super) fn put_inbox(&mut self, workspace: u32, sandbox: u32, inbox: Inbox) {
        self.inboxes.insert((workspace, sandbox), Some(inbox));
        self.changed_inboxes.insert((workspace, sandbox));
    }

    pub(super) fn remove_inbox(&mut self, workspace: u32, sandbox: u32) {
        self.changed_inboxes.remove(&(workspace, sandbox));
        self.inboxes.insert((workspace, sandbox), None);
    }

    pub(super) fn known_id(&self, workspace: u32, hash: u128) -> Result<Option<KnownId>, StateError> {
        if let Some(known) = self.new_ids.get(&(workspace, hash)) {
            return Ok(Some(*known));
        }
        let record = self.engine.get(IDS, &keys::id(workspace, hash))?;
        Ok(record.map(KnownId::decode).transpose()?)
    }

    pub(super) fn put_id(&mut self, workspace: u32, hash: u128, known: KnownId, writes: &mut WriteBatch) {
        self.new_ids.insert((workspace, hash), known);
        writes.put(IDS, keys::id(workspace, hash), known.encode());
    }

    /// Adds what the command changed to its writes.
    pub(super) fn write_changes(&mut self, writes: &mut WriteBatch) {
        if let Some(shard) = self.shard {
            let mut record = BytesMut::with_capacity(16);
            record.put_u64(shard.time_ms);
            record.put_u32(shard.next_workspace);
            record.put_u32(shard.workspaces);
            writes.put(RECORDS, keys::shard(), record.freeze());
        }
        for name in std::mem::take(&mut self.changed_workspaces) {
            if let Some(Some(workspace)) = self.workspaces.get(&name) {
                writes.put(RECORDS, keys::workspace(&name), workspace.encode());
            }
        }
        for key in std::mem::take(&mut self.changed_inboxes) {
            if let Some(Some(inbox)) = self.inboxes.get(&key) {
                writes.put(INBOXES, keys::inbox(key.0, key.1), inbox.encode());
            }
        }
    }

    /// The engine has everything; what is too much may be forgotten.
    pub(super) fn visible(&mut self) {
        self.new_ids.clear();
        self.gone_workspaces.clear();
        if self.workspaces.len() > MAX_CACHED {
            self.workspaces.clear();
        }
        if self.cached_sandboxes > MAX_CACHED {
            self.sandboxes.clear();
            self.cached_sandboxes = 0;
        }
        if self.inboxes.len() > MAX_CACHED {
            self.inboxes.clear();
        }
    }
}
