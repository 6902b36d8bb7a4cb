//! The state of a shard behind the rules: the engine, what commands have changed in front of it, and in front of that the
//! records that nearly every command touches, decoded.
//!
//! The decoded records are a cache: bounded, and never more than what the engine holds once everything is written.

mod audits;
mod ids;
mod overlay;

use std::{
    collections::{BTreeSet, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use tandem_storage::{Engine, Space, WriteBatch};

use self::{audits::AuditHeads, overlay::Overlay};
use super::{
    Effect,
    inbox::Inbox,
    keys::{self, DUE, DueKind, INBOXES, MESSAGES, RECORDS, REMEMBERED, Remembered},
    notice::Notice,
    policy::Policies,
    recent_ids::{LotProgress, RecentIds},
    remembered_filter::RememberedFilter,
    workspace::Workspace,
};
use crate::{
    batch::{Batch, MessageRef},
    command::{Header, Origin},
    encoding::{DecodeError, Field, Reader, encoded},
};

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

encoded! {
    /// What a shard knows of itself.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Shard {
        pub(super) time_ms: u64,
        pub(super) next_workspace: u32,
        pub(super) workspaces: u32,
        /// Whatever was due before this time is done.
        pub(crate) due_floor_ms: u64,
        /// How far the lots of recent ids are.
        pub(super) lots: LotProgress,
    }
}

encoded! {
    /// What is known of an explicit message id.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct KnownId {
        pub(crate) sequence: u64,
        pub(crate) digest: u64,
        pub(crate) time_ms: u64,
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
    pub(crate) capabilities: Vec<String>,
    pub(crate) description: Bytes,
}

impl Sandbox {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(12 + self.description.len());
        out.put_u32(self.number);
        out.put_u64(self.create_time_ms);
        self.capabilities.put(&mut out);
        out.put_slice(&self.description);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, "sandbox");
        let (number, create_time_ms) = (reader.u32()?, reader.u64()?);
        Ok(Self { number, create_time_ms, capabilities: Vec::get(&mut reader)?, description: reader.rest() })
    }
}

/// See the module.
pub(super) struct State {
    overlay: Overlay,
    ids: Arc<RwLock<RecentIds>>,
    filter: RememberedFilter,
    shard: Option<Shard>,
    header: Header,
    clock_is_behind: bool,
    effects: Vec<Effect>,
    notices: Vec<Notice>,
    /// The batch that was read last: several messages of one are often looked at in a row.
    last_batch: Option<(u32, Arc<Batch>)>,
    workspaces: HashMap<Box<str>, Option<Workspace>>,
    /// Sandboxes by workspace and name; none where there is no such sandbox.
    sandboxes: HashMap<u32, HashMap<Box<str>, Option<KnownSandbox>>>,
    cached_sandboxes: usize,
    inboxes: HashMap<(u32, u32), Option<Inbox>>,
    policies: Policies,
    audits: AuditHeads,
    /// Who has asked for the verb under way.
    pub(super) origin: Origin,
    /// Changed by the command under way, in an order that does not depend on hashing.
    changed_workspaces: BTreeSet<Box<str>>,
    changed_inboxes: BTreeSet<(u32, u32)>,
}

impl State {
    pub(super) fn open(engine: Arc<dyn Engine>) -> Result<Self, StateError> {
        let ids = RecentIds::load(engine.as_ref())?;
        Ok(Self {
            overlay: Overlay::new(engine),
            filter: RememberedFilter::new(&ids),
            ids: Arc::new(RwLock::new(ids)),
            shard: None,
            header: Header::default(),
            clock_is_behind: false,
            effects: Vec::new(),
            notices: Vec::new(),
            last_batch: None,
            workspaces: HashMap::new(),
            sandboxes: HashMap::new(),
            cached_sandboxes: 0,
            inboxes: HashMap::new(),
            policies: Policies::default(),
            audits: AuditHeads::default(),
            origin: Origin::default(),
            changed_workspaces: BTreeSet::new(),
            changed_inboxes: BTreeSet::new(),
        })
    }

    pub(super) fn recent_ids(&self) -> Arc<RwLock<RecentIds>> {
        Arc::clone(&self.ids)
    }

    /// A command begins. A new leader's clock may be behind the old one's; time in the log never is.
    pub(super) fn begin(&mut self, header: Header) -> Result<(), StateError> {
        let mut shard = self.shard()?;
        self.clock_is_behind = header.time_ms < shard.time_ms;
        shard.time_ms = shard.time_ms.max(header.time_ms);
        self.shard = Some(shard);
        self.header = Header { time_ms: shard.time_ms, ..header };
        Ok(())
    }

    /// The command has ended: gives away what it changed and what it caused.
    pub(super) fn finish(&mut self, writes: &mut WriteBatch, effects: &mut Vec<Effect>) {
        if let Some(shard) = self.shard {
            self.put(RECORDS, keys::shard(), shard.to_bytes());
        }
        for name in std::mem::take(&mut self.changed_workspaces) {
            if let Some(Some(workspace)) = self.workspaces.get(&name) {
                let record = workspace.to_bytes();
                self.put(RECORDS, keys::workspace(&name), record);
            }
        }
        for key in std::mem::take(&mut self.changed_inboxes) {
            if let Some(Some(inbox)) = self.inboxes.get(&key) {
                let record = inbox.encode();
                self.put(INBOXES, keys::inbox(key.0, key.1), record);
            }
        }
        self.write_audits();
        self.overlay.take_writes(writes);
        effects.append(&mut self.effects);
    }

    /// The engine has everything; what is too much may be forgotten.
    pub(super) fn visible(&mut self) {
        self.overlay.visible();
        let mut ids = self.ids.write();
        self.filter.visible(&ids);
        ids.visible();
        drop(ids);
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
        self.audits.visible();
    }

    /// The time of the command, in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> u64 {
        self.header.time_ms
    }

    /// Whether the clock of the leader is behind that of an earlier one.
    pub(super) fn clock_is_behind(&self) -> bool {
        self.clock_is_behind
    }

    /// What the leader says with the command; its time is `now_ms`.
    pub(super) fn header(&self) -> Header {
        self.header
    }

    /// Something happened that delivery should hear of.
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    /// The sender of a message will have no response from its recipient.
    pub(super) fn tell_sender(
        &mut self,
        workspace: u32,
        message: MessageRef,
        sandbox: &str,
        code: &'static str,
        text: Bytes,
    ) {
        self.tell(Notice { workspace, message, sandbox: sandbox.into(), code, text, approval: None });
    }

    /// The broker has something to say.
    pub(super) fn tell(&mut self, notice: Notice) {
        self.notices.push(notice);
    }

    pub(super) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The batch that begins with a sequence.
    pub(super) fn batch(&mut self, workspace: u32, first: u64) -> Result<Option<Arc<Batch>>, StateError> {
        if let Some((known, batch)) = &self.last_batch
            && (*known, batch.first_sequence) == (workspace, first)
        {
            return Ok(Some(Arc::clone(batch)));
        }
        let Some(bytes) = self.get(MESSAGES, &keys::message(workspace, first))? else { return Ok(None) };
        let batch = Arc::new(Batch::decode(first, bytes)?);
        self.last_batch = Some((workspace, Arc::clone(&batch)));
        Ok(Some(batch))
    }

    /// A batch is another one now, or gone.
    pub(super) fn forget_batch(&mut self, workspace: u32, first: u64) {
        self.last_batch.take_if(|(known, batch)| (*known, batch.first_sequence) == (workspace, first));
    }

    pub(super) fn get(&self, space: Space, key: &Bytes) -> Result<Option<Bytes>, StateError> {
        Ok(self.overlay.get(space, key)?)
    }

    /// A record of its own type.
    pub(super) fn read<T: Field>(
        &self,
        space: Space,
        key: &Bytes,
        what: &'static str,
    ) -> Result<Option<T>, StateError> {
        Ok(self.overlay.get(space, key)?.map(|bytes| T::from_bytes(bytes, what)).transpose()?)
    }

    pub(super) fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.overlay.put(space, key, value);
    }

    pub(super) fn delete(&mut self, space: Space, key: Bytes) {
        self.overlay.delete(space, key);
    }

    pub(super) fn delete_range(&mut self, space: Space, (from, to): (Bytes, Bytes)) {
        self.overlay.delete_range(space, from, to);
    }

    /// Writes that no command will ever read.
    pub(super) fn unread(&mut self) -> &mut WriteBatch {
        self.overlay.unread()
    }

    /// Visits the entries of a range, by rising key.
    pub(super) fn visit(
        &self,
        space: Space,
        (from, to): &(Bytes, Bytes),
        mut visit: impl FnMut(&Bytes, &Bytes),
    ) -> Result<(), StateError> {
        self.overlay.scan(space, from, to, &mut |key, value| {
            visit(key, value);
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    /// Up to `limit` entries of a range, by rising key.
    pub(super) fn scan(
        &self,
        space: Space,
        (from, to): &(Bytes, Bytes),
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StateError> {
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.overlay.scan(space, from, to, &mut |key, value| {
            found.push((key.clone(), value.clone()));
            if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(found)
    }

    /// Lets something happen at a time, or with the next tick when that has passed.
    pub(super) fn put_due(
        &mut self,
        time_ms: u64,
        workspace: u32,
        kind: DueKind,
        value: Bytes,
    ) -> Result<(), StateError> {
        // Not before the floor that a tick under way is about to leave behind: that is at most now.
        let time_ms = time_ms.max(self.now_ms());
        self.put(DUE, keys::due(time_ms, workspace, kind), value);
        self.effect(Effect::Scheduled { time_ms });
        Ok(())
    }

    pub(super) fn shard(&mut self) -> Result<Shard, StateError> {
        if let Some(shard) = self.shard {
            return Ok(shard);
        }
        let shard = self.read(RECORDS, &keys::shard(), "shard")?;
        let shard = shard.unwrap_or(Shard {
            time_ms: 0,
            next_workspace: 1,
            workspaces: 0,
            due_floor_ms: 0,
            lots: LotProgress::default(),
        });
        self.shard = Some(shard);
        Ok(shard)
    }

    pub(super) fn put_shard(&mut self, shard: Shard) {
        self.shard = Some(shard);
    }

    pub(super) fn workspace(&mut self, name: &str) -> Result<Option<&mut Workspace>, StateError> {
        if !self.workspaces.contains_key(name) {
            let workspace = self.read(RECORDS, &keys::workspace(name), "workspace")?;
            self.workspaces.insert(name.into(), workspace);
        }
        Ok(self.workspaces.get_mut(name).and_then(Option::as_mut))
    }

    /// The name of a workspace by its number; none when it is gone.
    pub(super) fn workspace_name(&self, number: u32) -> Result<Option<String>, StateError> {
        self.read(RECORDS, &keys::workspace_name(number), "workspace name")
    }

    pub(super) fn put_workspace(&mut self, name: &str, workspace: Workspace) {
        self.workspaces.insert(name.into(), Some(workspace));
        self.changed_workspaces.insert(name.into());
    }

    /// Forgets what is decoded of a workspace that is removed.
    pub(super) fn remove_workspace(&mut self, name: &str, number: u32) {
        self.workspaces.insert(name.into(), None);
        self.changed_workspaces.remove(name);
        if let Some(gone) = self.sandboxes.remove(&number) {
            self.cached_sandboxes -= gone.len();
        }
        self.inboxes.retain(|(workspace, _), _| *workspace != number);
        self.policies.forget(number);
        self.audits.forget(number);
        self.ids.write().forget(number);
        self.changed_inboxes.retain(|(workspace, _)| *workspace != number);
    }

    pub(super) fn policies(&self) -> Policies {
        self.policies.clone()
    }

    pub(super) fn sandbox_number(&mut self, workspace: u32, name: &str) -> Result<Option<u32>, StateError> {
        Ok(self.sandbox(workspace, name)?.map(|sandbox| sandbox.number))
    }

    pub(super) fn sandbox(&mut self, workspace: u32, name: &str) -> Result<Option<KnownSandbox>, StateError> {
        if let Some(known) = self.sandboxes.get(&workspace).and_then(|known| known.get(name)) {
            return Ok(*known);
        }
        let record = self.get(RECORDS, &keys::sandbox(workspace, name))?;
        let known = record.map(Sandbox::decode).transpose()?;
        let known = known.map(|Sandbox { number, create_time_ms, .. }| KnownSandbox { number, create_time_ms });
        self.remember_sandbox(workspace, name, known);
        Ok(known)
    }

    /// The name of a sandbox by its number; empty when it is gone.
    pub(super) fn sandbox_name(&self, workspace: u32, sandbox: u32) -> Result<String, StateError> {
        let name = self.read(RECORDS, &keys::sandbox_by_number(workspace, sandbox), "sandbox name")?;
        Ok(name.unwrap_or_default())
    }

    pub(super) fn remember_sandbox(&mut self, workspace: u32, name: &str, known: Option<KnownSandbox>) {
        if self.sandboxes.entry(workspace).or_default().insert(name.into(), known).is_none() {
            self.cached_sandboxes += 1;
        }
    }

    pub(super) fn inbox(&mut self, workspace: u32, sandbox: u32) -> Result<Option<&mut Inbox>, StateError> {
        let key = (workspace, sandbox);
        if !self.inboxes.contains_key(&key) {
            let Some(record) = self.get(INBOXES, &keys::inbox(workspace, sandbox))? else { return Ok(None) };
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
        self.delete(INBOXES, keys::inbox(workspace, sandbox));
    }

    /// What is remembered under a hash: in the window of this time or in the one before, so that nothing is forgotten
    /// earlier than a window after it was written last.
    pub(super) fn remembered<T: Field>(
        &self,
        workspace: &Workspace,
        kind: Remembered,
        hash: u128,
    ) -> Result<Option<T>, StateError> {
        if !self.filter.may_hold((workspace.number, kind, hash)) {
            return Ok(None);
        }
        let window = workspace.window(self.now_ms());
        // A workspace that began in this window has none before it.
        let before = window.checked_sub(1).filter(|before| *before >= workspace.window(workspace.create_time_ms));
        for window in [Some(window), before].into_iter().flatten() {
            let found = self.read(REMEMBERED, &keys::remembered(workspace.number, window, kind, hash), "remembered")?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    pub(super) fn remember<T: Field>(&mut self, workspace: &Workspace, kind: Remembered, hash: u128, value: &T) {
        let window = workspace.window(self.now_ms());
        // One buffer for both: there may be a million of them a second.
        let mut pair = BytesMut::with_capacity(64);
        keys::put_remembered(workspace.number, window, kind, hash, &mut pair);
        value.put(&mut pair);
        let mut value = pair.freeze();
        let key = value.split_to(keys::REMEMBERED_BYTES);
        self.filter.add((workspace.number, kind, hash));
        self.overlay.put_point(REMEMBERED, key, value);
    }
}
