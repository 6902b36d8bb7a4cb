//! Messages of one recipient and priority that wait on their own and may be delivered: retries, delayed messages whose time
//! has come, redrives, replays. A bounded window onto what lies on disk.

use std::{
    collections::{BTreeSet, HashMap},
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

/// A lease that has ended, as far as this node knows. The state will say so once that is settled.
#[derive(Debug, Clone, Copy)]
struct Ending {
    attempt: u32,
    /// The state has shown the message meanwhile; it is to be looked at again.
    seen: bool,
}

/// A message on its own whose lease has ended: its priority, its sequence, and its attempt.
pub(crate) type EndedLease = (u8, u64, u32);

/// See the module.
#[derive(Debug)]
pub(crate) struct ReadyQueue {
    priority: u8,
    window: BTreeSet<u64>,
    /// Handed out, and on disk until they are done.
    leased: HashMap<u64, u32>,
    /// Whose lease has ended, by an ack or a nack that is not settled: the state may still show the attempt that ended.
    ending: HashMap<u64, Ending>,
    /// Everything on disk up to here is in the window or leased.
    loaded_through: u64,
    /// Nothing lies behind the window.
    complete: bool,
}

impl ReadyQueue {
    pub(crate) fn new(priority: u8, empty: bool) -> Self {
        Self {
            priority,
            window: BTreeSet::new(),
            leased: HashMap::new(),
            ending: HashMap::new(),
            loaded_through: 0,
            complete: empty,
        }
    }

    /// Whether there may be something to take.
    pub(crate) fn may_have(&self) -> bool {
        !self.complete || !self.window.is_empty()
    }

    /// A message may be delivered from now on. That is told after the state shows it, so this may be an attempt that was read
    /// from there, and handed out, before.
    pub(crate) fn insert(&mut self, sequence: u64) {
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
        self.leased.remove(&sequence);
        self.insert(sequence);
    }

    /// A subscription is done with a message, or failed with it. Until that is settled this attempt is not handed out again,
    /// whatever the state shows; nor any other, if it is not the current one that ended.
    pub(crate) fn end(&mut self, sequence: u64) {
        let attempt = self.leased.remove(&sequence).unwrap_or(u32::MAX);
        self.window.remove(&sequence);
        self.ending.insert(sequence, Ending { attempt, seen: false });
    }

    /// The attempt of a message whose lease has ended, for [`ReadyQueue::settled`].
    pub(crate) fn ending(&self, sequence: u64) -> Option<u32> {
        self.ending.get(&sequence).map(|ending| ending.attempt)
    }

    /// The state shows what came of the end of a lease. Returns whether there is something to take.
    pub(crate) fn settled(&mut self, sequence: u64, attempt: u32) -> bool {
        if self.ending.get(&sequence).is_some_and(|ending| ending.attempt == attempt)
            && let Some(Ending { seen: true, .. }) = self.ending.remove(&sequence)
        {
            self.insert(sequence);
            return true;
        }
        false
    }

    /// A message has left.
    pub(crate) fn remove(&mut self, sequence: u64) {
        self.leased.remove(&sequence);
        self.window.remove(&sequence);
    }

    pub(crate) fn is_leased(&self, sequence: u64) -> bool {
        self.leased.contains_key(&sequence)
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
        if self.leased.contains_key(&sequence) {
            return Ok(None);
        }
        if let Some(ending) = self.ending.get_mut(&sequence)
            && parked.attempt <= ending.attempt
        {
            ending.seen = true;
            return Ok(None);
        }
        let batch = match parked.content {
            Content::Stored(first) => loader.batch(first)?,
            Content::Own(bytes) => Some(Batch::decode(sequence, bytes)?.into()),
        };
        let Some(batch) = batch else { return Ok(None) };
        let index = (sequence - batch.first_sequence) as u16;
        self.leased.insert(sequence, parked.attempt);
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
            if !self.leased.contains_key(&sequence) {
                self.window.insert(sequence);
            }
            ControlFlow::Continue(())
        })?;
        self.complete = !more;
        Ok(())
    }
}
