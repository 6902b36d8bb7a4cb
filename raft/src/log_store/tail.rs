//! The newest part of a shard's log, in memory: what was just appended is read again at once, to be replicated and
//! applied, and may not be on disk yet.

use std::{collections::VecDeque, ops::Range};

use openraft::entry::RaftEntry;

use crate::{
    encoding::entry_bytes,
    type_config::{Entry, LogId},
};

/// Contiguous entries up to the newest. Entries that are not flushed yet never leave.
#[derive(Debug)]
pub(crate) struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
    max_bytes: usize,
    flushed_index: u64,
    pub(crate) last: Option<LogId>,
    pub(crate) purged: Option<LogId>,
}

impl Tail {
    pub(crate) fn new(max_bytes: usize, last: Option<LogId>, purged: Option<LogId>) -> Self {
        let flushed_index = last.map_or(0, |id| id.index);
        Self { entries: VecDeque::new(), bytes: 0, max_bytes, flushed_index, last: last.max(purged), purged }
    }

    /// The first index that can be read from here; everything from it to the newest can.
    pub(crate) fn first_index(&self) -> u64 {
        self.entries.front().map_or_else(|| self.last.map_or(0, |id| id.index + 1), RaftEntry::index)
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        let index = entry.index();
        assert!(self.entries.back().is_none_or(|last| last.index() + 1 == index), "a hole before log entry {index}");
        self.last = Some(entry.log_id());
        self.bytes += entry_bytes(&entry);
        self.entries.push_back(entry);
    }

    /// Entries up to `index` are durable; the oldest may leave when the budget is used up.
    pub(crate) fn flushed(&mut self, index: u64) {
        self.flushed_index = self.flushed_index.max(index);
        while self.bytes > self.max_bytes && self.entries.front().is_some_and(|e| e.index() <= self.flushed_index) {
            self.pop_front();
        }
    }

    pub(crate) fn truncate_after(&mut self, last: Option<LogId>) {
        let keep = last.map_or(0, |id| id.index + 1);
        while self.entries.back().is_some_and(|entry| entry.index() >= keep) {
            if let Some(entry) = self.entries.pop_back() {
                self.bytes -= entry_bytes(&entry);
            }
        }
        self.lower_flushed(keep);
        self.last = self.last.min(last);
    }

    /// Entries from `next` on are not flushed, whatever was said before.
    pub(crate) fn lower_flushed(&mut self, next: u64) {
        self.flushed_index = self.flushed_index.min(next.saturating_sub(1));
    }

    pub(crate) fn purge(&mut self, upto: LogId) {
        while self.entries.front().is_some_and(|entry| entry.index() <= upto.index) {
            self.pop_front();
        }
        self.purged = self.purged.max(Some(upto));
        self.last = self.last.max(Some(upto));
    }

    /// Copies of the entries in `range`, which must begin at or after `first_index`.
    pub(crate) fn read(&self, range: Range<u64>) -> impl Iterator<Item = &Entry> {
        let first = self.first_index();
        let from = range.start.saturating_sub(first) as usize;
        let to = (range.end.saturating_sub(first) as usize).min(self.entries.len());
        self.entries.range(from.min(to)..to)
    }

    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry_bytes(&entry);
        }
    }
}
