//! The inbox of one recipient while somebody is subscribed to it.

use std::{sync::Arc, task::Waker};

use super::{
    lane::{Item, LaneQueue, Lease},
    loader::Loader,
};
use crate::{
    batch::Batch,
    command::{Ack, AckedRange, Lane, Source},
    machine::{StateError, inbox::Inbox, workspace::Workspace},
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
}

/// Lanes, and the subscriptions that share them.
pub(crate) struct InboxQueue {
    pub(crate) loader: Loader,
    sandbox_name: String,
    lanes: Vec<LaneQueue>,
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
            lanes: Vec::new(),
            streams: 0,
            acks_in_flight: 0,
            wakers: Vec::new(),
            pushed_through: 0,
            ended: None,
        }
    }

    /// Takes over what the state has. Until then the inbox is known to those who push, and has no lanes.
    pub(crate) fn load(&mut self, inbox: &Inbox, workspace: &Workspace) {
        if !self.lanes.is_empty() {
            return;
        }
        self.pushed_through = self.pushed_through.max(workspace.last_sequence);
        self.lanes = (0..Lane::COUNT)
            .map(Lane::from_index)
            .map(|lane| {
                let cursor = inbox.cursor(lane).clone();
                let empty = match lane.source {
                    // Not told by the counter: a message must be found also where a count is wrong.
                    Source::Direct => false,
                    Source::Broadcast => workspace.newest_broadcast[usize::from(lane.priority)] <= cursor.floor,
                };
                LaneQueue::new(lane, cursor, empty)
            })
            .collect();
    }

    /// A batch was appended: priority and indexes of what is addressed to this recipient, and of broadcasts.
    pub(crate) fn push(
        &mut self,
        batch: &Arc<Batch>,
        direct: &[(u32, u8, Arc<[u16]>)],
        broadcast: &[(u8, Arc<[u16]>)],
    ) {
        let direct = direct.iter().map(|(_, priority, indexes)| (Source::Direct, *priority, indexes));
        let broadcast = broadcast.iter().map(|(priority, indexes)| (Source::Broadcast, *priority, indexes));
        for (source, priority, indexes) in direct.chain(broadcast) {
            if let Some(lane) = self.lanes.get_mut(Lane { source, priority }.index()) {
                lane.push(batch, indexes);
            }
        }
        self.pushed_through = self.pushed_through.max(batch.first_sequence + batch.len() as u64 - 1);
        self.wake();
    }

    /// It has ended, and what is done in it is not settled yet: nobody can know what is to be delivered.
    pub(crate) fn waits_for_acks(&self) -> bool {
        self.ended.is_some() && self.acks_in_flight > 0
    }

    pub(crate) fn lane_mut(&mut self, lane: Lane) -> Option<&mut LaneQueue> {
        self.lanes.get_mut(lane.index())
    }

    /// Takes up to `limit` messages: higher priority first, within a priority in the order of their sequences.
    pub(crate) fn take(
        &mut self,
        limit: usize,
        mut accept: impl FnMut(&Item) -> bool,
        taken: &mut Vec<Item>,
    ) -> Result<(), StateError> {
        for priority in (0..10).rev() {
            let pair = [Source::Direct, Source::Broadcast].map(|source| Lane { source, priority }.index());
            loop {
                if taken.len() >= limit {
                    return Ok(());
                }
                let mut next: Option<(u64, usize)> = None;
                for index in pair {
                    let Some(lane) = self.lanes.get_mut(index).filter(|lane| lane.may_have()) else { continue };
                    if let Some(sequence) = lane.peek(&self.sandbox_name, self.pushed_through, &self.loader)?
                        && next.is_none_or(|(other, _)| sequence < other)
                    {
                        next = Some((sequence, index));
                    }
                }
                let Some((_, index)) = next else { break };
                let Some(item) = self.lanes[index].take(&self.loader)? else { break };
                let go_on = accept(&item);
                taken.push(item);
                if !go_on {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Makes one ack of messages that a subscription is done with.
    pub(crate) fn acknowledge(&mut self, mut leases: Vec<Lease>) -> Ack {
        leases.sort_by_key(|lease| (lease.lane, lease.sequence));
        let mut ranges: Vec<AckedRange> = Vec::new();
        for Lease { lane, sequence, after, .. } in leases {
            match ranges.last_mut() {
                Some(range) if range.lane == lane && range.through == after => {
                    range.through = sequence;
                    range.count += 1;
                }
                _ => ranges.push(AckedRange { lane, after, through: sequence, count: 1 }),
            }
        }
        let mut finished = Vec::new();
        for range in &ranges {
            self.lanes[range.lane.index()].acknowledge(range, &mut finished);
        }
        // A lane with too many ranges goes on once the oldest message is done; others may wait for that.
        self.wake();
        self.acks_in_flight += 1;
        Ack { workspace: self.loader.workspace, sandbox: self.loader.sandbox, ranges, finished }
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

    /// Nobody needs it any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.streams == 0 && self.acks_in_flight == 0
    }
}
