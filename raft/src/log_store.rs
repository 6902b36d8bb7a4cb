//! One shard's log on the engine that all shards of the node share.
//!
//! Keys: `shard (u32) | kind (u8)`, and for entries `| index (u64)`, big-endian. Writes go through the commit thread, in
//! order; reads of new entries come from memory, where they are from the moment of the append.

mod tail;
mod whole;

use std::{
    fmt::Debug,
    io,
    ops::{Bound, ControlFlow, Range, RangeBounds},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use openraft::{
    OptionalSend, RaftLogReader,
    entry::RaftEntry,
    storage::{LogState, RaftLogStorage},
};
use parking_lot::Mutex;
use tandem_storage::{Direction, Durability, Engine, Space, WriteBatch};
use tokio::sync::oneshot;

use self::tail::Tail;
pub(crate) use self::whole::Whole;
use crate::{
    commit_thread::CommitHandle,
    damage::Note,
    encoding::{decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote, entry_bytes},
    error::{FatalError, FatalSink},
    type_config::{Entry, IoFlushed, LogId, TypeConfig, Vote},
};

/// Log entries, of all shards.
pub(crate) const ENTRIES: Space = Space(0);
/// Votes and purge positions, of all shards.
pub(crate) const META: Space = Space(1);

/// Kinds of key. Frozen: they stand on disk.
mod kind {
    pub(super) const VOTE: u8 = 1;
    pub(super) const PURGED: u8 = 2;
    pub(super) const ENTRY: u8 = 3;
}

/// How much one read hands out before it stops, in bytes of payload; at least one entry is read.
const READ_LIMIT_BYTES: usize = 4 << 20;

/// A shard's log. Clones read and write the same log.
#[derive(Clone)]
pub(crate) struct LogStore {
    shard: u32,
    engine: Arc<dyn Engine>,
    commits: CommitHandle,
    tail: Arc<Mutex<Tail>>,
    /// Where damage is written down, and who ends for it.
    guard: Option<(Note, FatalSink)>,
}

impl LogStore {
    /// Opens the log of a shard; `cache_bytes` is how much of its end stays in memory.
    pub(crate) fn open(
        shard: u32,
        engine: Arc<dyn Engine>,
        commits: CommitHandle,
        cache_bytes: usize,
    ) -> Result<Self, FatalError> {
        let purged = engine
            .get(META, &meta_key(shard, kind::PURGED))?
            .map(|record| decode_log_id(&record))
            .transpose()
            .map_err(|error| FatalError::record(format!("shard {shard}, purge position"), &error))?;
        let mut newest = None;
        engine.scan(
            ENTRIES,
            &entry_key(shard, 0),
            &entry_key(shard, u64::MAX),
            Direction::Backward,
            &mut |_, value| {
                newest = Some(Bytes::copy_from_slice(value));
                ControlFlow::Break(())
            },
        )?;
        let last = newest
            .map(|record| decode_entry(&record))
            .transpose()
            .map_err(|error| FatalError::record(format!("shard {shard}, newest log entry"), &error))?
            .map(|entry| entry.log_id());
        let tail = Arc::new(Mutex::new(Tail::new(cache_bytes, last, purged)));
        Ok(Self { shard, engine, commits, tail, guard: None })
    }

    /// Has whoever reads a record that is not as it was written end the node, with its reason.
    pub(crate) fn guarded(self, note: Note, fatal: FatalSink) -> Self {
        Self { guard: Some((note, fatal)), ..self }
    }

    fn fail(&self, error: FatalError) -> io::Error {
        let Some((note, fatal)) = &self.guard else { return error.into() };
        let found = matches!(error, FatalError::Record { .. } | FatalError::MissingEntry { .. });
        let error = if found { note.take_down(&error.to_string()) } else { error };
        fatal.report(error.clone());
        error.into()
    }

    /// Everything up to this index is purged; 0 when nothing is.
    pub(crate) fn purged_index(&self) -> u64 {
        self.tail.lock().purged.map_or(0, |id| id.index)
    }

    /// Prepares for a state that reaches an entry that came from elsewhere. Where the log has another one in its place, that one
    /// and those behind it were overruled: a majority has this one.
    pub(crate) async fn give_way_to(&mut self, reached: LogId) -> Result<(), FatalError> {
        let index = reached.index;
        let (last, purged) = {
            let tail = self.tail.lock();
            (tail.last, tail.purged)
        };
        if index <= purged.map_or(0, |id| id.index) {
            return Ok(());
        }
        if index > last.map_or(0, |id| id.index) {
            // A shorter log of a later reign that nobody followed.
            return if last > Some(reached) { self.overruled_behind(purged).await } else { Ok(()) };
        }
        let id = |at: u64| Ok::<_, FatalError>(self.read(at..at + 1, usize::MAX)?.first().map(RaftEntry::log_id));
        if id(index)? == Some(reached) {
            return Ok(());
        }
        let before = if index - 1 == purged.map_or(0, |id| id.index) { purged } else { id(index - 1)? };
        self.overruled_behind(before).await
    }

    async fn overruled_behind(&mut self, kept: Option<LogId>) -> Result<(), FatalError> {
        let behind = kept.map_or(0, |id| id.index);
        tracing::warn!(shard = self.shard, behind, "entries that another leader overruled leave the log");
        let truncated = self.truncate_after(kept).await;
        truncated.map_err(|error| FatalError::Raft { shard: self.shard, detail: error.to_string() })
    }

    fn read(&self, range: Range<u64>, limit_bytes: usize) -> Result<Vec<Entry>, FatalError> {
        let (cached_from, last, purged) = {
            let tail = self.tail.lock();
            let first = tail.first_index();
            if range.start >= first {
                return Ok(limited(tail.read(range).cloned(), limit_bytes));
            }
            (first, tail.last.map_or(0, |id| id.index), tail.purged)
        };
        // Without a purge a log begins at 0 or 1; with one, right behind it.
        let begin = range.start.max(purged.map_or(0, |id| id.index + 1));
        let on_disk = begin..range.end.min(cached_from).max(begin);
        let mut entries = self.read_disk(on_disk.clone(), purged.is_none(), limit_bytes)?;
        let first = if begin == 0 && purged.is_none() { 1 } else { begin };
        let next = entries.last().map_or(first, |entry| entry.index() + 1);
        // A short read must not become a hole in a follower's log (openraft#1795).
        let left = limit_bytes.saturating_sub(entries.iter().map(entry_bytes).sum());
        let stopped_by_limit = left == 0;
        if next < on_disk.end.min(last + 1) && !stopped_by_limit {
            return Err(FatalError::MissingEntry { shard: self.shard, index: next, last });
        }
        if next == cached_from && next < range.end && !stopped_by_limit {
            let tail = self.tail.lock();
            // Entries may have left memory since; the caller asks again for what is not handed out.
            if tail.first_index() <= next {
                entries.extend(limited(tail.read(next..range.end).cloned(), left));
            }
        }
        Ok(entries)
    }

    fn read_disk(&self, range: Range<u64>, unpurged: bool, limit_bytes: usize) -> Result<Vec<Entry>, FatalError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut failure = None;
        let mut bytes = 0;
        let mut expected = range.start;
        let (from, to) = (entry_key(self.shard, range.start), entry_key(self.shard, range.end));
        self.engine.scan(ENTRIES, &from, &to, Direction::Forward, &mut |_, value| {
            match decode_entry(&Bytes::copy_from_slice(value)) {
                Ok(entry) if entry.index() == expected || (unpurged && expected == 0 && entry.index() == 1) => {
                    expected = entry.index() + 1;
                    bytes += entry_bytes(&entry);
                    entries.push(entry);
                }
                Ok(_) => {
                    let last = range.end.saturating_sub(1);
                    failure = Some(FatalError::MissingEntry { shard: self.shard, index: expected, last });
                }
                Err(error) => {
                    failure = Some(FatalError::record(format!("shard {}, log entry {expected}", self.shard), &error));
                }
            }
            if failure.is_some() || bytes >= limit_bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        failure.map_or(Ok(entries), Err)
    }

    async fn write_durably(&self, writes: WriteBatch) -> Result<(), io::Error> {
        let (sender, receiver) = oneshot::channel();
        let done = Box::new(move |result| {
            // The caller may have gone; the write stands either way.
            drop(sender.send(result));
        });
        self.commits.submit(writes, Durability::Synced, done);
        match receiver.await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(io::Error::other("the commit thread has ended")),
        }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(plain_range(&range), usize::MAX).map_err(|error| self.fail(error))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let record = self.engine.get(META, &meta_key(self.shard, kind::VOTE)).map_err(FatalError::from)?;
        let vote = record.map(|record| decode_vote(&record)).transpose();
        vote.map_err(|error| self.fail(FatalError::record(format!("shard {}, vote", self.shard), &error)))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start..end, READ_LIMIT_BYTES).map_err(|error| self.fail(error))
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl futures_util::Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        // Chunk by chunk: after a restart the range is all that was not flushed, which need not fit in memory twice.
        let range = plain_range(&range);
        let state = (self.clone(), range.start, Vec::new().into_iter());
        futures_util::stream::unfold(state, move |(log, mut next, mut chunk)| async move {
            if chunk.len() == 0 && next < range.end {
                match log.read(next..range.end, READ_LIMIT_BYTES) {
                    Ok(entries) => chunk = entries.into_iter(),
                    Err(error) => return Some((Err(log.fail(error)), (log, u64::MAX, chunk))),
                }
            }
            let entry: Entry = chunk.next()?;
            next = entry.index() + 1;
            Some((Ok(entry), (log, next, chunk)))
        })
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let tail = self.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let mut writes = WriteBatch::new();
        writes.put(META, meta_key(self.shard, kind::VOTE), encode_vote(vote));
        self.write_durably(writes).await
    }

    async fn append<I>(&mut self, entries: I, callback: IoFlushed) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut writes = WriteBatch::new();
        let mut last_index = 0;
        {
            let mut tail = self.tail.lock();
            for entry in entries {
                last_index = entry.index();
                writes.put(ENTRIES, entry_key(self.shard, last_index), encode_entry(&entry));
                tail.push(entry);
            }
        }
        let tail = Arc::clone(&self.tail);
        let done = Box::new(move |result: Result<(), FatalError>| {
            if result.is_ok() {
                tail.lock().flushed(last_index);
            }
            callback.io_completed(result.map_err(Into::into));
        });
        self.commits.submit(writes, Durability::Synced, done);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        let from = last_log_id.map_or(0, |id| id.index + 1);
        self.tail.lock().truncate_after(last_log_id);
        let mut writes = WriteBatch::new();
        writes.delete_range(ENTRIES, entry_key(self.shard, from), entry_key(self.shard, u64::MAX));
        let written = self.write_durably(writes).await;
        // Appends that were queued before have told of themselves meanwhile; what they wrote is gone.
        self.tail.lock().lower_flushed(from);
        written
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        self.tail.lock().purge(log_id);
        let mut writes = WriteBatch::new();
        writes.put(META, meta_key(self.shard, kind::PURGED), encode_log_id(&log_id));
        writes.delete_range(ENTRIES, entry_key(self.shard, 0), entry_key(self.shard, log_id.index + 1));
        // What is purged is in a durable snapshot, so nothing waits for this: losing it in a crash costs a second purge.
        self.commits.submit(writes, Durability::Deferred, Box::new(|_| ()));
        Ok(())
    }
}

fn limited(entries: impl Iterator<Item = Entry>, limit_bytes: usize) -> Vec<Entry> {
    let mut bytes = 0;
    entries
        .take_while(|entry| {
            let take = bytes < limit_bytes;
            bytes += entry_bytes(entry);
            take
        })
        .collect()
}

fn plain_range(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index + 1,
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    start..end.max(start)
}

fn meta_key(shard: u32, kind: u8) -> Bytes {
    let mut key = BytesMut::with_capacity(5);
    key.put_u32(shard);
    key.put_u8(kind);
    key.freeze()
}

/// The key of an entry.
pub(crate) fn entry_key(shard: u32, index: u64) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_u32(shard);
    key.put_u8(kind::ENTRY);
    key.put_u64(index);
    key.freeze()
}

#[cfg(test)]
mod tests {
    use openraft::storage::RaftLogStorageExt as _;
    use tandem_storage::MemoryEngine;

    use super::*;
    use crate::{CommitMetrics, LOG_SPACES, commit_thread};

    fn id(term: u64, index: u64) -> LogId {
        LogId::new(crate::type_config::Leader { term, node_id: 1 }, index)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn entries_that_were_overruled_give_way_to_a_state_that_came_from_elsewhere() {
        let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new(LOG_SPACES));
        let spawned = commit_thread::spawn(Arc::clone(&engine), CommitMetrics::default(), FatalSink::default());
        let mut log = LogStore::open(0, engine, spawned.unwrap().0, 1 << 20).unwrap();
        let entries = (1..=10).map(|index| Entry::new(id(3, index), openraft::EntryPayload::Blank));
        log.blocking_append(entries).await.unwrap();
        for (reached, last) in
            [(id(3, 7), id(3, 10)), (id(4, 12), id(3, 10)), (id(4, 9), id(3, 8)), (id(4, 9), id(3, 8))]
        {
            log.give_way_to(reached).await.unwrap();
            assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(last), "{reached}");
        }
        log.purge(id(3, 7)).await.unwrap();
        log.give_way_to(id(3, 7)).await.unwrap();
        log.give_way_to(id(5, 8)).await.unwrap();
        assert_eq!(log.get_log_state().await.unwrap().last_log_id, Some(id(3, 7)), "all that is left of it");
        log.blocking_append((8..=10).map(|index| Entry::new(id(6, index), openraft::EntryPayload::Blank)))
            .await
            .unwrap();
        log.give_way_to(id(5, 12)).await.unwrap();
        assert_eq!(
            log.get_log_state().await.unwrap().last_log_id,
            Some(id(3, 7)),
            "a later reign that nobody followed"
        );
    }

    #[test]
    fn keys_have_these_bytes() {
        assert_eq!(entry_key(1, 258).as_ref(), [0, 0, 0, 1, 3, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(meta_key(7, kind::VOTE).as_ref(), [0, 0, 0, 7, 1]);
        assert_eq!(meta_key(7, kind::PURGED).as_ref(), [0, 0, 0, 7, 2]);
    }
}
