//! One ordered queue of one recipient, in memory: a bounded window onto what waits on disk.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    sync::Arc,
};

use tandem_storage::Direction;

use super::loader::Loader;
use crate::{
    batch::{Batch, MAX_BATCH_LEN, MessageRef},
    command::{AckedRange, FinishedRun, Lane, Source},
    machine::{
        StateError,
        cursor::Cursor,
        keys::{self, RUNS},
        publish::decode_run,
    },
};

/// Messages that a lane keeps in memory at the most; what comes beyond is read from disk later.
const MAX_QUEUED: usize = 4_096;
/// The same in bytes, approximately.
const MAX_QUEUED_BYTES: usize = 1 << 20;
/// Where a load from disk stops.
const LOAD_MESSAGES: usize = 1_024;
/// Gaps of acknowledged messages that a lane may have; beyond, it hands out nothing new until the oldest are closed. Each
/// is written with every change of the inbox.
const MAX_RANGES: usize = 2_048;

/// A message on its way to a subscriber.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) message: MessageRef,
    pub(crate) lane: Lane,
    /// The message before it in the lane.
    pub(crate) after: u64,
    /// The number of this attempt, from 1.
    pub(crate) attempt: u32,
    /// When it expires, in milliseconds since 1970; 0 never.
    pub(crate) expires_ms: u64,
}

/// The right to acknowledge a message that was handed out. Holds no bytes of it: a slow subscriber must not keep batches
/// in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) lane: Lane,
    pub(crate) sequence: u64,
    /// The message before it in the lane.
    pub(crate) after: u64,
    /// First sequence of its batch.
    pub(crate) batch: u64,
    /// Hash of its ordering key; 0 without one.
    pub(crate) ordering: u64,
    /// When it expires, in milliseconds since 1970; 0 never.
    pub(crate) expires_ms: u64,
    /// Bytes of its body.
    pub(crate) bytes: u32,
}

impl Lease {
    /// The same message where it waits after its lease has lapsed.
    pub(crate) fn on_its_own(self) -> Self {
        Self { lane: Lane { source: Source::Parked, ..self.lane }, ..self }
    }
}

impl Item {
    /// The lease that goes with handing this out.
    pub(crate) fn lease(&self) -> Lease {
        let record = self.message.record();
        Lease {
            lane: self.lane,
            sequence: self.message.sequence(),
            after: self.after,
            batch: self.message.batch.first_sequence,
            ordering: record.ordering,
            expires_ms: self.expires_ms,
            bytes: record.body.len() as u32,
        }
    }
}

/// Part of a batch that is in the lane.
#[derive(Debug)]
struct Segment {
    batch: Arc<Batch>,
    indexes: Arc<[u16]>,
    next: usize,
    /// What holding the batch counts for, beside the share of this lane.
    pinned_bytes: usize,
}

impl Segment {
    fn next_sequence(&self) -> u64 {
        self.batch.sequence(usize::from(self.indexes[self.next]))
    }

    fn bytes(&self) -> usize {
        let left = self.indexes.len() - self.next;
        self.batch.bytes().len() * left / self.batch.len().max(1) + if left > 0 { self.pinned_bytes } else { 0 }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct LaneQueue {
    lane: Lane,
    /// Given back by subscriptions that ended; earlier in the lane than everything in `segments`.
    returned: BTreeMap<u64, Lease>,
    /// Of those, the ones whose batch turned out to be gone: for whoever takes, whose turn it is not.
    pub(super) gone: Vec<Lease>,
    segments: VecDeque<Segment>,
    queued: usize,
    queued_bytes: usize,
    /// Whether everything behind the segments is in them, so that new batches can be added in memory.
    complete: bool,
    /// The newest sequence that the segments have ever covered.
    loaded_through: u64,
    /// Where in the runs the next load begins.
    scan_from: u64,
    /// The message of the lane that was taken last.
    last_taken: u64,
    /// What is acknowledged, durably or on its way there.
    done: Cursor,
    /// Runs that the floor has not passed yet, as (first of the batch, last of the run). Direct lanes only.
    open_runs: VecDeque<(u64, u64)>,
}

impl LaneQueue {
    /// A lane as the state has it; `empty` when nothing waits in it there.
    pub(crate) fn new(lane: Lane, done: Cursor, empty: bool) -> Self {
        let floor = done.floor;
        Self {
            lane,
            returned: BTreeMap::new(),
            gone: Vec::new(),
            segments: VecDeque::new(),
            queued: 0,
            queued_bytes: 0,
            complete: empty,
            loaded_through: floor,
            scan_from: floor.saturating_sub(MAX_BATCH_LEN),
            last_taken: floor,
            done,
            open_runs: VecDeque::new(),
        }
    }

    /// Whether there may be something to take.
    pub(crate) fn may_have(&self) -> bool {
        !self.complete || !self.segments.is_empty() || !self.returned.is_empty()
    }

    /// A batch was appended. Ignored when it is known already, or when there is no room and it will be loaded.
    pub(crate) fn push(&mut self, batch: &Arc<Batch>, indexes: &Arc<[u16]>) {
        let Some(last) = indexes.last() else { return };
        let last = batch.sequence(usize::from(*last));
        if !self.complete || last <= self.loaded_through {
            return;
        }
        if self.queued + indexes.len() > MAX_QUEUED || self.queued_bytes > MAX_QUEUED_BYTES {
            self.complete = false;
            return;
        }
        // A batch that was just appended is shared by all its recipients; one that stalls may hold a number of them.
        let pinned_bytes = batch.bytes().len() / 16;
        self.add(Segment { batch: Arc::clone(batch), indexes: Arc::clone(indexes), next: 0, pinned_bytes }, last);
    }

    /// The sequence of the next message that was taken before and put back.
    pub(crate) fn peek_returned(&self) -> Option<u64> {
        self.returned.first_key_value().map(|(sequence, _)| *sequence)
    }

    /// The sequence of the next message, loading when needed. `own` is the recipient: it gets no broadcast of its own.
    ///
    /// Loads up to `through` and no further: what lies beyond has not been pushed to the other lanes yet.
    pub(crate) fn peek(&mut self, own: &str, through: u64, loader: &Loader) -> Result<Option<u64>, StateError> {
        if let Some(sequence) = self.peek_returned() {
            return Ok(Some(sequence));
        }
        loop {
            let Some(segment) = self.segments.front() else {
                if self.complete {
                    return Ok(None);
                }
                self.load(through, loader)?;
                continue;
            };
            let sequence = segment.next_sequence();
            if self.done.contains(sequence) {
                self.step();
                self.last_taken = sequence;
            } else if self.lane.source == Source::Broadcast
                && segment.batch.record(usize::from(segment.indexes[segment.next])).from == own
            {
                // Left behind without moving `last_taken`: the ack of the next message covers it.
                self.step();
            } else {
                // What lies in a gap closes it; only what lies behind the last one could open another.
                let in_gap = self.done.ranges.last().is_some_and(|(_, through)| sequence < *through);
                return Ok((in_gap || self.done.ranges.len() < MAX_RANGES).then_some(sequence));
            }
        }
    }

    /// Takes what `peek` has seen.
    pub(crate) fn take(&mut self, loader: &Loader) -> Result<Option<Item>, StateError> {
        while let Some((sequence, lease)) = self.returned.pop_first() {
            // It expired while it was held back, and the history was trimmed; or its workspace is gone.
            let Some(batch) = loader.batch(lease.batch)? else {
                self.gone.push(lease);
                continue;
            };
            let message = MessageRef { batch, index: (sequence - lease.batch) as u16 };
            return Ok(Some(Item {
                message,
                lane: self.lane,
                after: lease.after,
                attempt: 1,
                expires_ms: lease.expires_ms,
            }));
        }
        let Some(segment) = self.segments.front() else { return Ok(None) };
        let message = MessageRef { batch: Arc::clone(&segment.batch), index: segment.indexes[segment.next] };
        let sequence = message.sequence();
        let expires_ms = message.record().expires_ms(message.batch.time_ms);
        let item = Item { message, lane: self.lane, after: self.last_taken, attempt: 1, expires_ms };
        self.last_taken = sequence;
        self.step();
        Ok(Some(item))
    }

    /// Puts back what a subscription took and did not acknowledge.
    pub(crate) fn give_back(&mut self, lease: Lease) {
        self.returned.insert(lease.sequence, lease);
    }

    /// Marks a range as acknowledged; returns the runs that the floor passed.
    pub(crate) fn acknowledge(&mut self, range: &AckedRange, finished: &mut Vec<FinishedRun>) {
        self.done.insert(range.after, range.through);
        while let Some((first, last)) = self.open_runs.front().copied()
            && last <= self.done.floor
        {
            finished.push(FinishedRun { priority: self.lane.priority, first, last });
            self.open_runs.pop_front();
        }
    }

    fn step(&mut self) {
        if let Some(segment) = self.segments.front_mut() {
            let before = segment.bytes();
            segment.next += 1;
            self.queued -= 1;
            self.queued_bytes -= before - segment.bytes();
            if segment.next == segment.indexes.len() {
                self.segments.pop_front();
            }
        }
    }

    fn add(&mut self, segment: Segment, last: u64) {
        if self.lane.source == Source::Direct {
            self.open_runs.push_back((segment.batch.first_sequence, last));
        }
        self.queued += segment.indexes.len() - segment.next;
        self.queued_bytes += segment.bytes();
        self.loaded_through = last;
        self.scan_from = segment.batch.first_sequence + 1;
        self.segments.push_back(segment);
    }

    /// Reads the next part of the lane from disk. The caller holds the lock that `push` needs, so nothing is missed: a
    /// batch that the scan does not see is pushed afterwards.
    fn load(&mut self, through: u64, loader: &Loader) -> Result<(), StateError> {
        let source = keys::source_of(self.lane, loader.sandbox);
        let from = keys::run(loader.workspace, source, self.lane.priority, self.scan_from);
        let to = keys::run(loader.workspace, source, self.lane.priority, through.saturating_add(1));
        let mut runs: Vec<(u64, Arc<[u16]>)> = Vec::new();
        let mut messages = 0;
        let mut more = false;
        loader.reader.engine().scan(RUNS, &from, &to, Direction::Forward, &mut |key, value| {
            if messages >= LOAD_MESSAGES {
                more = true;
                return ControlFlow::Break(());
            }
            let indexes = decode_run(value);
            messages += indexes.len();
            runs.push((keys::sequence_of(key), indexes));
            ControlFlow::Continue(())
        })?;
        for (first, indexes) in runs {
            let Some(last) = indexes.last().map(|index| first + u64::from(*index)) else { continue };
            if self.queued_bytes >= MAX_QUEUED_BYTES {
                more = true;
                break;
            }
            self.scan_from = first + 1;
            if indexes.iter().all(|index| self.done.contains(first + u64::from(*index))) {
                // Nothing to hand out, and no reason to read the batch.
                if self.lane.source == Source::Direct {
                    self.open_runs.push_back((first, last));
                }
                self.loaded_through = self.loaded_through.max(last);
                continue;
            }
            if last <= self.loaded_through {
                continue;
            }
            let Some(batch) = loader.batch(first)? else { continue };
            let next = indexes.partition_point(|index| first + u64::from(*index) <= self.loaded_through);
            let pinned_bytes = batch.bytes().len();
            self.add(Segment { batch, indexes, next, pinned_bytes }, last);
        }
        self.complete = !more;
        Ok(())
    }
}
