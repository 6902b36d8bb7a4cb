//! Explicit message ids: the newest in memory, the others in the engine.

use bytes::Bytes;

use super::{KnownId, State, StateError};
use crate::{
    batch::Batch,
    machine::{
        keys::{self, REMEMBERED, Remembered},
        workspace::Workspace,
    },
};

impl State {
    /// Whether ids with these hashes may be known; the next ones ask again when messages of one batch share an id.
    pub(in crate::machine) fn may_know_ids(&self, workspace: &Workspace, hashes: &[Option<u128>]) -> Vec<bool> {
        let may_know = |hash: u128| self.filter.may_hold((workspace.number, Remembered::Id, hash));
        hashes.iter().map(|hash| hash.is_some_and(may_know)).collect()
    }

    /// What is known of an explicit message id; `is_new`: nothing, unless this batch brought it.
    pub(in crate::machine) fn known_id(
        &self,
        workspace: &Workspace,
        hash: u128,
        is_new: bool,
    ) -> Result<Option<KnownId>, StateError> {
        if is_new {
            return Ok(self.ids.read().find_newest(workspace.number, hash));
        }
        let found = self.ids.read().find(workspace.number, hash, workspace.window(self.now_ms()));
        if found.is_some() {
            return Ok(found);
        }
        self.remembered(workspace, Remembered::Id, hash)
    }

    pub(in crate::machine) fn remember_id(&mut self, workspace: &Workspace, hash: u128, known: KnownId) {
        self.filter.add((workspace.number, Remembered::Id, hash));
        self.ids.write().insert(workspace.number, workspace.window(known.time_ms), hash, known);
    }

    /// A batch of a workspace is in the log.
    pub(in crate::machine) fn file_ids(&mut self, workspace: &mut Workspace, batch: &Batch) -> Result<(), StateError> {
        let mut shard = self.shard()?;
        self.filter.load_some(self.overlay.engine())?;
        let mut pairs = Vec::new();
        let write = |key, value| pairs.push((key, value));
        self.ids.write().appended(&mut shard.lots, &mut workspace.lots, batch, write);
        self.put_shard(shard);
        self.write_ids(pairs);
        Ok(())
    }

    /// A window of a workspace is over: whatever is older than the one before is forgotten.
    pub(in crate::machine) fn forget_before(&mut self, workspace: u32, window: u32) {
        self.delete_range(REMEMBERED, keys::remembered_before(workspace, window));
        self.filter.forget_some();
    }

    /// A batch goes from the log of a workspace, or a part of it. The ids in it stay.
    pub(in crate::machine) fn settle_ids(
        &mut self,
        workspace: &mut Workspace,
        first_sequence: u64,
    ) -> Result<(), StateError> {
        if workspace.lots.reach(self.shard()?.lots, first_sequence) {
            let mut pairs = Vec::new();
            let write = |key, value| pairs.push((key, value));
            self.ids.write().settle(workspace.number, &mut workspace.lots, write);
            self.write_ids(pairs);
        }
        Ok(())
    }

    fn write_ids(&mut self, pairs: Vec<(Bytes, Bytes)>) {
        let writes = self.overlay.unread();
        pairs.into_iter().for_each(|(key, value)| writes.put(REMEMBERED, key, value));
    }
}
