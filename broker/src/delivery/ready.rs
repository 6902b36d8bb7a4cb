//! Messages of one recipient and priority that wait on their own and may be delivered: retries, delayed messages whose time
//! has come, redrives, replays. A bounded window onto what lies on disk.

use std::{
    collections::{BTreeSet, HashSet},
    ops::ControlFlow,
};

use tandem_storage::Direction;

use super::{lane::Item, loader::Loader};
use crate::{
    batch::{Batch, MessageRef},
    command::{Lane, Source},
    encoding::Field as _,
    machine::{
        StateError,
        keys::{self, READY},
        parked::{Content, Parked},
    },
};

/// Sequences that are kept in memory at the most; what lies behind is read from disk later.
const MAX_WINDOW: usize = 4_096;
/// Sequences that one load reads.
const LOAD: usize = 1_024;

/// See the module.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    priority: u8,
    window: BTreeSet<u64>,
    /// Handed out, and on disk until they are done.
    leased: HashSet<u64>,
    /// Everything on disk up to here is in the window or leased.
    loaded_through: u64,
    /// Nothing lies behind the window.
    complete: bool,
}

impl ReadyQueue {
    pub(crate) fn new(priority: u8, empty: bool) -> Self {
        Self { priority, window: BTreeSet::new(), leased: HashSet::new(), loaded_through: 0, complete: empty }
    }

    /// Whether there may be something to take.
    pub(crate) fn may_have(&self) -> bool {
        !self.complete || !self.window.is_empty()
    }

    /// A message may be delivered from now on.
    pub(crate) fn insert(&mut self, sequence: u64) {
        self.leased.remove(&sequence);
        if !self.complete && sequence > self.loaded_through {
            return;
        }
        self.window.insert(sequence);
        self.loaded_through = self.loaded_through.max(sequence);
        if self.window.len() > MAX_WINDOW {
            self.window.pop_last();
            self.complete = false;
            self.loaded_through = self.window.last().copied().unwrap_or(0);
        }
    }

    /// A subscription gives back what it took and is not done with.
    pub(crate) fn give_back(&mut self, sequence: u64) {
        self.insert(sequence);
    }

    /// A message is done, or has left.
    pub(crate) fn remove(&mut self, sequence: u64) {
        self.leased.remove(&sequence);
        self.window.remove(&sequence);
    }

    pub(crate) fn is_leased(&self, sequence: u64) -> bool {
        self.leased.contains(&sequence)
    }

    pub(crate) fn peek(&mut self, loader: &Loader) -> Result<Option<u64>, StateError> {
        if self.window.is_empty() && !self.complete {
            self.load(loader)?;
        }
        Ok(self.window.first().copied())
    }

    /// Takes what `peek` has seen; none when it has left meanwhile.
    pub(crate) fn take(&mut self, loader: &Loader) -> Result<Option<Item>, StateError> {
        let Some(sequence) = self.window.pop_first() else { return Ok(None) };
        let key = keys::parked(loader.workspace, loader.sandbox, self.priority, sequence);
        let Some(record) = loader.reader.engine().get(READY, &key)? else { return Ok(None) };
        let parked = Parked::from_bytes(record, "ready message")?;
        let batch = match parked.content {
            Content::Stored(first) => loader.batch(first)?,
            Content::Own(bytes) => Some(Batch::decode(sequence, bytes)?.into()),
        };
        let Some(batch) = batch else { return Ok(None) };
        let index = (sequence - batch.first_sequence) as u16;
        self.leased.insert(sequence);
        Ok(Some(Item {
            message: MessageRef { batch, index },
            lane: Lane { source: Source::Parked, priority: self.priority },
            after: 0,
            attempt: parked.attempt,
            expires_ms: parked.expires_ms,
        }))
    }

    fn load(&mut self, loader: &Loader) -> Result<(), StateError> {
        let from = keys::parked(loader.workspace, loader.sandbox, self.priority, self.loaded_through + 1);
        let to = keys::behind(&keys::parked(loader.workspace, loader.sandbox, self.priority, u64::MAX));
        let mut found = 0;
        let mut more = false;
        loader.reader.engine().scan(READY, &from, &to, Direction::Forward, &mut |key, _| {
            if found >= LOAD {
                more = true;
                return ControlFlow::Break(());
            }
            found += 1;
            let sequence = keys::sequence_of(key);
            self.loaded_through = sequence;
            if !self.leased.contains(&sequence) {
                self.window.insert(sequence);
            }
            ControlFlow::Continue(())
        })?;
        self.complete = !more;
        Ok(())
    }
}
