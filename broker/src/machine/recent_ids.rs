//! The newest explicit message ids of a shard, in memory.
//!
//! Whether an id is known must be clear before its message is accepted, and a publisher may bring a million new ones a second.
//! Put into the engine one by one, in the order of their hashes, they would cost more than everything else. So they are kept
//! in lots. The current lot takes the new ones. When it is full it becomes the older one, and goes to REMEMBERED by rising
//! key, a part with every batch of messages, so that it is gone long before the next one is full.
//!
//! Nothing is lost with the memory: the batches in MESSAGES hold the ids too, and the record of each workspace says where in
//! its log a lot begins, so a start reads them again. What is written when depends on the commands alone.

mod lot;

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use tandem_storage::{Direction, Engine};

use self::lot::{Lot, RecentId};
use super::{
    keys::{self, MESSAGES, RECORDS, Remembered},
    remembered_filter::Name,
    state::{KnownId, Shard, StateError},
    workspace::Workspace,
};
use crate::{
    batch::Batch,
    encoding::{Field as _, encoded},
};

/// Ids of a lot: two lots are in memory, of about a hundred bytes an id. Part of the format, as everything here that decides what is
/// written when. Small where the rules are tested, so that lots come and go.
const LOT_IDS: usize = if cfg!(test) { 6 } else { 57_344 };
/// Bytes of the log of a shard after which a lot is full in any case: about what a start reads again for a lot.
const LOT_BYTES: u64 = 32 << 20;
/// Ids that are written with a batch of messages, at least; and for each of its messages.
const WRITTEN_AT_LEAST: usize = if cfg!(test) { 2 } else { 256 };
const WRITTEN_PER_MESSAGE: usize = 2;

/// Place of an id in REMEMBERED: workspace and window, then hash.
type Place = (u64, u128);

fn place(workspace: u32, window: u32, hash: u128) -> Place {
    (u64::from(workspace) << 32 | u64::from(window), hash)
}

encoded! {
    /// How far the lots of a shard are.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct LotProgress {
        /// The current lot, from 1.
        number: u32,
        /// Bytes of batches since the first id of the current lot.
        bytes: u64,
        /// The last id of the older lot that was written.
        written: Place,
    }
}

impl Default for LotProgress {
    fn default() -> Self {
        Self { number: 1, bytes: 0, written: (0, 0) }
    }
}

encoded! {
    /// Where in the log of a workspace the lots begin.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct LotMarks {
        /// The newest lot with ids of this workspace; 0 none.
        number: u32,
        /// The first sequence of the first batch with ids in it.
        from: u64,
        /// The same of the lot before it; 0 none.
        before: u64,
    }
}

impl LotMarks {
    /// A batch brings ids for the current lot.
    fn begin(&mut self, current: u32, first_sequence: u64) {
        if self.number == current {
            return;
        }
        self.before = if self.number + 1 == current { self.from } else { 0 };
        (self.number, self.from) = (current, first_sequence);
    }

    /// Where the older and where the current lot begin.
    fn lots(&self, current: u32) -> (Option<u64>, Option<u64>) {
        if self.number == current {
            (Some(self.before).filter(|before| *before != 0), Some(self.from))
        } else if self.number + 1 == current && self.number != 0 {
            (Some(self.from), None)
        } else {
            (None, None)
        }
    }

    /// Whether a lot in memory has ids of this batch or of one behind it.
    pub(super) fn reach(&self, current: LotProgress, first_sequence: u64) -> bool {
        let (older, newer) = self.lots(current.number);
        older.or(newer).is_some_and(|from| first_sequence >= from)
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct RecentIds {
    current: Lot,
    older: Lot,
    /// What of the older lot is not written, by falling place.
    unwritten: Vec<(Place, KnownId)>,
    /// Written, but the engine may not show it yet.
    leaving: Vec<Lot>,
}

impl RecentIds {
    /// Reads the lots again from the log.
    pub(super) fn load(engine: &dyn Engine) -> Result<Self, StateError> {
        let mut ids = Self::default();
        let Some(shard) = engine.get(RECORDS, &keys::shard())? else { return Ok(ids) };
        let progress = Shard::from_bytes(shard, "shard")?.lots;
        for workspace in workspaces(engine)? {
            ids.load_workspace(engine, &workspace, progress)?;
        }
        ids.older.split_off(|id| place(id.workspace, id.window, id.hash) > progress.written);
        ids.sort_older();
        Ok(ids)
    }

    fn load_workspace(
        &mut self,
        engine: &dyn Engine,
        workspace: &Workspace,
        progress: LotProgress,
    ) -> Result<(), StateError> {
        let (older, newer) = workspace.lots.lots(progress.number);
        let Some(from) = older.or(newer) else { return Ok(()) };
        let mut result = Ok(());
        let (from, to) = (keys::message(workspace.number, from), keys::message(workspace.number, u64::MAX));
        engine.scan(MESSAGES, &from, &to, Direction::Forward, &mut |key, value| {
            let first = keys::sequence_of(key);
            match Batch::decode(first, Bytes::copy_from_slice(value)) {
                Ok(batch) => {
                    let is_current = newer.is_some_and(|from| first >= from);
                    let lot = if is_current { &mut self.current } else { &mut self.older };
                    fill(lot, workspace, &batch);
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    result = Err(error.into());
                    ControlFlow::Break(())
                }
            }
        })?;
        result
    }

    /// What is known of an id, if it came in this window or in the one before.
    pub(crate) fn find(&self, workspace: u32, hash: u128, window: u32) -> Option<KnownId> {
        let find = |lot: &Lot| {
            let id = lot.get(workspace, hash)?;
            (id.window.saturating_add(1) >= window).then_some(id.known)
        };
        find(&self.current).or_else(|| find(&self.older)).or_else(|| self.leaving.iter().find_map(find))
    }

    /// What is known of an id that was new to the batch under way.
    pub(super) fn find_newest(&self, workspace: u32, hash: u128) -> Option<KnownId> {
        self.current.get(workspace, hash).map(|id| id.known)
    }

    /// All ids, for the filter.
    pub(super) fn names(&self) -> impl Iterator<Item = Name> {
        let lots = [&self.current, &self.older].into_iter().chain(&self.leaving);
        lots.flat_map(Lot::ids).map(|id| (id.workspace, Remembered::Id, id.hash))
    }

    pub(super) fn insert(&mut self, workspace: u32, window: u32, hash: u128, known: KnownId) {
        self.current.insert(RecentId { workspace, window, hash, known });
    }

    /// A batch is in the log, perhaps with ids: moves the lots on.
    pub(super) fn appended(
        &mut self,
        progress: &mut LotProgress,
        marks: &mut LotMarks,
        batch: &Batch,
        mut write: impl FnMut(Bytes, Bytes),
    ) {
        if batch.has_ids {
            marks.begin(progress.number, batch.first_sequence);
        }
        self.write_some(progress, WRITTEN_AT_LEAST.max(batch.len() * WRITTEN_PER_MESSAGE), &mut write);
        if self.current.is_empty() {
            return;
        }
        progress.bytes += batch.bytes().len() as u64;
        if self.current.len() >= LOT_IDS || progress.bytes >= LOT_BYTES {
            self.write_some(progress, usize::MAX, &mut write);
            let next = Lot::with_room(self.current.len());
            self.older = std::mem::replace(&mut self.current, next);
            self.sort_older();
            *progress = LotProgress { number: progress.number + 1, ..LotProgress::default() };
        }
    }

    fn write_some(&mut self, progress: &mut LotProgress, limit: usize, write: &mut impl FnMut(Bytes, Bytes)) {
        let mut left = limit;
        let mut pairs = Pairs::for_about(limit.min(self.unwritten.len()));
        while left > 0
            && let Some((at, known)) = self.unwritten.pop()
        {
            let (workspace, window) = ((at.0 >> 32) as u32, at.0 as u32);
            let (key, value) = pairs.pair(workspace, window, at.1, &known);
            write(key, value);
            progress.written = at;
            left -= 1;
        }
        if self.unwritten.is_empty() && !self.older.is_empty() {
            self.leaving.push(std::mem::take(&mut self.older));
        }
    }

    /// Writes all ids of a workspace, because a part of its log goes.
    pub(super) fn settle(&mut self, workspace: u32, marks: &mut LotMarks, mut write: impl FnMut(Bytes, Bytes)) {
        self.unwritten.retain(|(place, _)| place.0 >> 32 != u64::from(workspace));
        // The older first: of two under one id the newer one is found.
        let mut ids = self.older.split_off(|id| id.workspace != workspace);
        ids.append(&mut self.current.split_off(|id| id.workspace != workspace));
        let leaving = Lot::from_ids(ids);
        let mut sorted = leaving.ids().to_vec();
        sorted.sort_unstable_by_key(|id| (id.window, id.hash));
        let mut pairs = Pairs::for_about(sorted.len());
        for id in sorted {
            let (key, value) = pairs.pair(workspace, id.window, id.hash, &id.known);
            write(key, value);
        }
        self.leaving.push(leaving);
        *marks = LotMarks::default();
    }

    /// A workspace is gone.
    pub(super) fn forget(&mut self, workspace: u32) {
        self.unwritten.retain(|(place, _)| place.0 >> 32 != u64::from(workspace));
        for lot in [&mut self.older, &mut self.current] {
            lot.split_off(|id| id.workspace != workspace);
        }
    }

    /// The engine shows everything that was written.
    pub(super) fn visible(&mut self) {
        self.leaving.clear();
    }

    fn sort_older(&mut self) {
        let ids = self.older.ids().iter();
        self.unwritten = ids.map(|id| (place(id.workspace, id.window, id.hash), id.known)).collect();
        self.unwritten.sort_unstable_by_key(|(place, _)| std::cmp::Reverse(*place));
    }
}

fn workspaces(engine: &dyn Engine) -> Result<Vec<Workspace>, StateError> {
    let (mut found, mut result) = (Vec::new(), Ok(()));
    let (from, to) = keys::workspaces();
    engine.scan(RECORDS, &from, &to, Direction::Forward, &mut |_, value| {
        match Workspace::decode(Bytes::copy_from_slice(value)) {
            Ok(workspace) => found.push(workspace),
            Err(error) => {
                result = Err(error.into());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    result.map(|()| found)
}

fn fill(lot: &mut Lot, workspace: &Workspace, batch: &Batch) {
    let window = workspace.window(batch.time_ms);
    for index in 0..batch.len() {
        let record = batch.record(index);
        if !record.id.is_empty() {
            let known = KnownId { sequence: batch.sequence(index), digest: record.digest, time_ms: batch.time_ms };
            lot.insert(RecentId { workspace: workspace.number, window, hash: keys::text_hash(record.id), known });
        }
    }
}

/// Makes pairs for REMEMBERED that share memory: there may be a million of them a second.
struct Pairs(BytesMut);

impl Pairs {
    fn for_about(pairs: usize) -> Self {
        Self(BytesMut::with_capacity(pairs.min(4_096) * 64))
    }

    fn pair(&mut self, workspace: u32, window: u32, hash: u128, known: &KnownId) -> (Bytes, Bytes) {
        keys::put_remembered(workspace, window, Remembered::Id, hash, &mut self.0);
        known.put(&mut self.0);
        let mut value = self.0.split().freeze();
        (value.split_to(keys::REMEMBERED_BYTES), value)
    }
}
