//! The inbox of one recipient while somebody is subscribed to it.

mod taking;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    task::Waker,
};

pub(crate) use self::taking::Taking;
use super::{
    keyed::KeyedOrder,
    lane::{LaneQueue, Lease},
    loader::Loader,
    ready::{EndedLease, ReadyQueue},
};
use crate::{
    batch::Batch,
    command::{Ack, AckedRange, FinishedRun, Lane, Source, nack::Failed},
    machine::{
        Appended, StateError,
        inbox::Inbox,
        keys::{BROADCAST, TOPIC_BIT},
        topic,
        workspace::Workspace,
    },
};

/// Why an inbox serves nobody any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The sandbox or its workspace was removed.
    Gone,
    /// This node stops.
    ShuttingDown,
    /// An ack could not be made durable; what is done must be read from disk again.
    AckFailed,
    /// Another node leads the shard now.
    LeaderChanged,
    /// The sandbox follows other topics now; the queues are built anew.
    FollowsChanged,
}

/// Lanes, and the subscriptions that share them.
pub(crate) struct InboxQueue {
    pub(crate) loader: Loader,
    sandbox_name: String,
    fixed: Vec<LaneQueue>,
    /// By inverted priority and number of the topic.
    topics: BTreeMap<(u8, u32), LaneQueue>,
    /// Patterns, and for topics that were met whether one of them fits.
    patterns: Vec<String>,
    followed: super::ByNumber<bool>,
    /// One for each priority.
    ready: Vec<ReadyQueue>,
    keyed: KeyedOrder,
    /// Leased messages by the time when they expire.
    expiring: BTreeSet<(u64, Lane, u64)>,
    /// Messages that nobody is to get, of lanes that others have too: own ones and expired ones. To be acknowledged.
    pub(crate) dropped: Vec<Lease>,
    /// Runs that the floor passed when messages expired; the next ack removes them.
    passed: Vec<FinishedRun>,
    low_priority_debt: u32,
    pub(crate) streams: usize,
    pub(crate) acks_in_flight: usize,
    wakers: Vec<Waker>,
    /// Every batch up to this sequence has been pushed here or is in the state that was loaded. What lies beyond in the
    /// state is left alone until it is pushed, so that all lanes show the same part of the log.
    pushed_through: u64,
    pub(crate) ended: Option<Ended>,
}

impl InboxQueue {
    pub(crate) fn new(loader: Loader, sandbox_name: String) -> Self {
        Self {
            loader,
            sandbox_name,
            fixed: Vec::new(),
            topics: BTreeMap::new(),
            patterns: Vec::new(),
            followed: super::ByNumber::default(),
            ready: Vec::new(),
            keyed: KeyedOrder::default(),
            expiring: BTreeSet::new(),
            dropped: Vec::new(),
            passed: Vec::new(),
            low_priority_debt: 0,
            streams: 0,
            acks_in_flight: 0,
            wakers: Vec::new(),
            pushed_through: 0,
            ended: None,
        }
    }

    /// Takes over what the state has. Until then the inbox is known to those who push, and has no lanes.
    pub(crate) fn load(&mut self, inbox: &Inbox, workspace: &Workspace) -> Result<(), StateError> {
        if !self.fixed.is_empty() {
            return Ok(());
        }
        self.pushed_through = self.pushed_through.max(workspace.last_sequence);
        for index in 0..Lane::FIXED {
            let lane = Lane::from_fixed_index(index);
            let Some(cursor) = inbox.cursor(lane).cloned() else { continue };
            let empty = match lane.source {
                // Not told by the counter: a message must be found also where a count is wrong.
                Source::Direct => inbox.newest[usize::from(lane.priority)] <= cursor.floor,
                _ => workspace.newest_broadcast.0[usize::from(lane.priority)] <= cursor.floor,
            };
            self.fixed.push(LaneQueue::new(lane, cursor, empty));
        }
        let none_ready = inbox.counters.parked == inbox.counters.deferred;
        self.ready = (0..10).map(|priority| ReadyQueue::new(priority, none_ready)).collect();
        if inbox.counters.keyed > 0 {
            for (ordering, sequence) in self.loader.reader.keyed(self.loader.workspace, self.loader.sandbox)? {
                self.keyed.block(ordering, sequence);
            }
        }
        if inbox.counters.follows > 0 {
            self.load_topics()?;
        }
        Ok(())
    }

    fn load_topics(&mut self) -> Result<(), StateError> {
        let (workspace, sandbox) = (self.loader.workspace, self.loader.sandbox);
        self.patterns = self.loader.reader.follow_patterns(workspace, sandbox)?;
        for (name, topic) in self.loader.reader.all_topics(workspace)? {
            if !self.follows(topic.number, &name) {
                continue;
            }
            let cursors = self.loader.reader.topic_cursors(workspace, topic.number, sandbox)?;
            for priority in 0..10_u8 {
                let cursor = cursors.cursor(priority);
                if topic.newest.0[usize::from(priority)] > cursor.floor {
                    let lane = Lane { source: Source::Topic(topic.number), priority };
                    self.topics.insert((9 - priority, topic.number), LaneQueue::new(lane, cursor, false));
                }
            }
        }
        Ok(())
    }

    fn follows(&mut self, number: u32, name: &str) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let patterns = &self.patterns;
        *self.followed.entry(number).or_insert_with(|| patterns.iter().any(|pattern| topic::matches(pattern, name)))
    }

    /// A batch was appended: what of it is addressed to this recipient, and what is shared.
    pub(crate) fn push(&mut self, appended: &Appended, direct: &[(u32, u8, Arc<[u16]>)]) {
        let batch = &appended.batch;
        for (_, priority, indexes) in direct {
            self.push_fixed(Lane { source: Source::Direct, priority: *priority }, batch, indexes);
        }
        for run in &appended.shared {
            if run.source == BROADCAST {
                self.push_fixed(Lane { source: Source::Broadcast, priority: run.priority }, batch, &run.indexes);
            } else if run.source & TOPIC_BIT != 0 && self.follows(run.source, &run.topic) {
                self.push_topic(run.source, run.priority, batch, &run.indexes);
            }
        }
        self.pushed_through = self.pushed_through.max(batch.first_sequence + batch.len() as u64 - 1);
        self.wake();
    }

    fn push_fixed(&mut self, lane: Lane, batch: &Arc<Batch>, indexes: &Arc<[u16]>) {
        if let Some(lane) = lane.fixed_index().and_then(|index| self.fixed.get_mut(index)) {
            lane.push(batch, indexes);
        }
    }

    fn push_topic(&mut self, number: u32, priority: u8, batch: &Arc<Batch>, indexes: &Arc<[u16]>) {
        if let Some(lane) = self.topics.get_mut(&(9 - priority, number)) {
            lane.push(batch, indexes);
            return;
        }
        let (workspace, sandbox) = (self.loader.workspace, self.loader.sandbox);
        match self.loader.reader.topic_cursors(workspace, number, sandbox) {
            Ok(cursors) => {
                // Met for the first time: it is read from disk, where this batch is by now.
                let lane = Lane { source: Source::Topic(number), priority };
                let queue = LaneQueue::new(lane, cursors.cursor(priority), false);
                self.topics.insert((9 - priority, number), queue);
            }
            // The reader has reported it; the stream is to be opened anew.
            Err(_) => self.end(Ended::AckFailed),
        }
    }

    /// A message on its own may be delivered.
    pub(crate) fn push_ready(&mut self, priority: u8, sequence: u64) {
        if let Some(ready) = self.ready.get_mut(usize::from(priority)) {
            ready.insert(sequence);
        }
        self.wake();
    }

    /// A message left without an ack of a subscriber.
    pub(crate) fn left(&mut self, priority: u8, sequence: u64, ordering: u64) {
        if let Some(ready) = self.ready.get_mut(usize::from(priority)) {
            ready.remove(sequence);
        }
        self.keyed.forget(ordering, sequence);
        self.release(ordering, sequence);
        self.wake();
    }

    /// A message that a subscription failed with had left before: there is no other attempt to wait for.
    pub(crate) fn left_before(&mut self, sequence: u64, ordering: Option<u64>) {
        if let Some(next) = self.keyed.give_up(sequence, ordering) {
            self.put_back(next);
        }
        self.wake();
    }

    /// Messages of direct lanes have expired.
    pub(crate) fn expired(&mut self, ranges: &[AckedRange]) {
        let mut passed = std::mem::take(&mut self.passed);
        for range in ranges {
            self.acknowledge_lane(range, &mut passed);
        }
        self.passed = passed;
        self.wake();
    }

    /// It has ended, and what is done in it is not settled yet: nobody can know what is to be delivered.
    pub(crate) fn waits_for_acks(&self) -> bool {
        self.ended.is_some() && self.acks_in_flight > 0
    }

    /// Whether what was handed out may be handed out by another queue, or another node, by now. A node that only stops still
    /// takes acks.
    pub(crate) fn has_lost_leases(&self) -> bool {
        self.ended.as_ref().is_some_and(|why| *why != Ended::ShuttingDown)
    }

    fn lane_mut(&mut self, lane: Lane) -> Option<&mut LaneQueue> {
        match lane.source {
            Source::Topic(number) => self.topics.get_mut(&(9 - lane.priority, number)),
            _ => self.fixed.get_mut(lane.fixed_index()?),
        }
    }

    /// Makes one ack of messages that a subscription is done with.
    pub(crate) fn acknowledge(&mut self, leases: Vec<Lease>) -> Ack {
        let (parked, leases): (Vec<_>, Vec<_>) =
            leases.into_iter().partition(|lease| lease.lane.source == Source::Parked);
        for lease in leases.iter().chain(&parked) {
            self.end_lease(lease);
            self.release(lease.ordering, lease.sequence);
        }
        let parked = parked.iter().map(|lease| (lease.lane.priority, lease.sequence)).collect();
        let (ranges, finished) = self.leave_lanes(leases);
        self.acks_in_flight += 1;
        Ack { workspace: self.loader.workspace, sandbox: self.loader.sandbox, ranges, finished, parked }
    }

    /// Takes messages that a subscription failed with out of their lanes. Their ordering keys stay taken.
    pub(crate) fn fail(&mut self, leases: Vec<Lease>) -> (Vec<Failed>, Vec<FinishedRun>) {
        for lease in &leases {
            self.end_lease(lease);
            self.keyed.rest(lease.ordering, lease.sequence, true);
        }
        let failed = leases
            .iter()
            .map(|Lease { lane, sequence, after, batch, .. }| Failed {
                lane: *lane,
                sequence: *sequence,
                after: *after,
                batch: *batch,
            })
            .collect();
        let lanes = leases.into_iter().filter(|lease| lease.lane.source != Source::Parked).collect();
        let (_, finished) = self.leave_lanes(lanes);
        self.acks_in_flight += 1;
        (failed, finished)
    }

    /// Puts back what a subscription took and never worked on.
    pub(crate) fn give_back(&mut self, lease: Lease) {
        self.end_lease_only(&lease);
        self.keyed.rest(lease.ordering, lease.sequence, lease.lane.source == Source::Parked);
        self.put_back(lease);
    }

    /// Where it is taken from next. The turn of its key stays what it is: it may not have been handed out.
    fn put_back(&mut self, lease: Lease) {
        if lease.lane.source == Source::Parked {
            if let Some(ready) = self.ready.get_mut(usize::from(lease.lane.priority)) {
                ready.give_back(lease.sequence);
            }
        } else if let Some(lane) = self.lane_mut(lease.lane) {
            lane.give_back(lease);
        }
    }

    /// Whether somebody works on a message that waits on its own.
    pub(crate) fn holds_ready(&self, priority: u8, sequence: u64) -> bool {
        self.ready.get(usize::from(priority)).is_some_and(|ready| ready.is_leased(sequence))
    }

    /// Leased messages whose time to expire has come.
    pub(crate) fn leased_beyond_ttl(&self, now_ms: u64) -> impl Iterator<Item = (Lane, u64)> + '_ {
        self.expiring.iter().take_while(move |(time_ms, ..)| *time_ms <= now_ms).map(|(_, lane, at)| (*lane, *at))
    }

    fn end_lease_only(&mut self, lease: &Lease) {
        if lease.expires_ms > 0 {
            self.expiring.remove(&(lease.expires_ms, lease.lane, lease.sequence));
        }
    }

    fn end_lease(&mut self, lease: &Lease) {
        self.end_lease_only(lease);
        if lease.lane.source == Source::Parked
            && let Some(ready) = self.ready.get_mut(usize::from(lease.lane.priority))
        {
            ready.end(lease.sequence);
        }
    }

    /// What [`InboxQueue::settled`] needs to know of an ack or a nack: the messages on their own that are in it.
    pub(crate) fn ending(&self, alone: impl Iterator<Item = (u8, u64)>) -> Vec<EndedLease> {
        let attempt = |priority: u8, sequence| self.ready.get(usize::from(priority))?.ending(sequence);
        alone.filter_map(|(priority, sequence)| Some((priority, sequence, attempt(priority, sequence)?))).collect()
    }

    /// An ack or a nack has an outcome.
    pub(crate) fn settled(&mut self, ended: &[EndedLease]) {
        self.acks_in_flight -= 1;
        let mut waits = false;
        for (priority, sequence, attempt) in ended {
            let ready = self.ready.get_mut(usize::from(*priority));
            waits |= ready.is_some_and(|ready| ready.settled(*sequence, *attempt));
        }
        if waits {
            self.wake();
        }
    }

    fn release(&mut self, ordering: u64, sequence: u64) {
        if ordering != 0
            && let Some(next) = self.keyed.release(ordering, sequence)
        {
            self.put_back(next);
        }
    }

    fn leave_lanes(&mut self, mut leases: Vec<Lease>) -> (Vec<AckedRange>, Vec<FinishedRun>) {
        leases.sort_by_key(|lease| (lease.lane, lease.sequence));
        let mut ranges: Vec<AckedRange> = Vec::new();
        for Lease { lane, sequence, after, bytes, .. } in leases {
            let bytes = u64::from(bytes);
            match ranges.last_mut() {
                Some(range) if range.lane == lane && range.through == after => {
                    range.through = sequence;
                    range.count += 1;
                    range.bytes += bytes;
                }
                _ => ranges.push(AckedRange { lane, after, through: sequence, count: 1, bytes }),
            }
        }
        let mut finished = std::mem::take(&mut self.passed);
        for range in &ranges {
            self.acknowledge_lane(range, &mut finished);
        }
        // A lane with too many ranges goes on once the oldest message is done; others may wait for that.
        self.wake();
        (ranges, finished)
    }

    fn acknowledge_lane(&mut self, range: &AckedRange, finished: &mut Vec<FinishedRun>) {
        if let Some(lane) = self.lane_mut(range.lane) {
            lane.acknowledge(range, finished);
        }
    }

    /// Calls this waker once there may be something new.
    pub(crate) fn wait(&mut self, waker: &Waker) {
        if !self.wakers.iter().any(|known| known.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }

    /// Wakes everybody who waits.
    pub(crate) fn wake(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }

    /// Ends all subscriptions.
    pub(crate) fn end(&mut self, why: Ended) {
        if self.ended.is_none() {
            self.ended = Some(why);
        }
        self.wake();
    }

    /// Lets it hold back fewer messages than it would, before it is used.
    #[cfg(test)]
    pub(crate) fn hold_back_at_most(&mut self, most: usize) {
        self.keyed = KeyedOrder::holding(most);
    }

    /// Nobody needs it any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.streams == 0 && self.acks_in_flight == 0
    }
}
