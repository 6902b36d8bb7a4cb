//! Which message is handed out next.

use super::InboxQueue;
use crate::{
    command::Source,
    delivery::lane::{Item, Lease},
    machine::StateError,
};

/// Messages that one call may hold back; it runs under the lock of the inbox, where publishers wait too.
const MAX_HELD_BACK: usize = 1_024;

/// Where the next message is.
#[derive(Clone, Copy)]
enum Next {
    Fixed(usize),
    Topic((u8, u32)),
    Ready(usize),
}

/// How a subscription wants its messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taking {
    /// Messages at the most.
    pub(crate) limit: usize,
    /// Of 100 messages, how many are not of the highest priority that waits.
    pub(crate) low_priority_percent: u32,
    /// In milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl InboxQueue {
    /// Takes messages: higher priority first, within a priority in the order of their sequences. True when it stopped early
    /// and is to be called again, even if nothing was taken.
    pub(crate) fn take(
        &mut self,
        taking: Taking,
        mut accept: impl FnMut(&Lease) -> bool,
        taken: &mut Vec<(Item, Lease)>,
    ) -> Result<bool, StateError> {
        if self.fixed.is_empty() {
            return Ok(false);
        }
        let (mut priority, mut held_back) = (9, 0);
        while taken.len() < taking.limit {
            let Some(next) = self.next(&mut priority, taking.low_priority_percent)? else { break };
            let Some(item) = self.take_next(next)? else { continue };
            let lease = item.lease();
            if self.is_dropped(&item, &lease, taking.now_ms) {
                continue;
            }
            if !self.keyed.admit(lease) {
                // Held back as a place only; its batch is at hand as long as the cache has room. A message on its own may
                // carry a batch of one, which is not the batch that begins there.
                if item.lane.source != Source::Parked {
                    self.loader.keep(&item.message.batch);
                }
                held_back += 1;
                if held_back == MAX_HELD_BACK {
                    return Ok(true);
                }
                continue;
            }
            if lease.expires_ms > 0 {
                self.expiring.insert((lease.expires_ms, lease.lane, lease.sequence));
            }
            let go_on = accept(&lease);
            taken.push((item, lease));
            if !go_on {
                break;
            }
        }
        Ok(false)
    }

    /// Where the next message is. `highest` is the priority from which on there may be something; it only falls.
    fn next(&mut self, highest: &mut u8, low_priority_percent: u32) -> Result<Option<Next>, StateError> {
        let top = loop {
            if let Some((_, next)) = self.peek(*highest)? {
                break next;
            }
            if *highest == 0 {
                return Ok(None);
            }
            *highest -= 1;
        };
        self.low_priority_debt += low_priority_percent;
        if self.low_priority_debt < 100 {
            return Ok(Some(top));
        }
        let mut oldest: Option<(u64, Next)> = None;
        for priority in 0..*highest {
            if let Some((sequence, next)) = self.peek(priority)?
                && oldest.is_none_or(|(other, _)| sequence < other)
            {
                oldest = Some((sequence, next));
            }
        }
        self.low_priority_debt = if oldest.is_some() { self.low_priority_debt - 100 } else { 100 };
        Ok(Some(oldest.map_or(top, |(_, next)| next)))
    }

    /// The oldest message of a priority. While as much is held back as may be, of the lanes only what was taken before: what
    /// all the others wait for is there, or waits on its own.
    fn peek(&mut self, priority: u8) -> Result<Option<(u64, Next)>, StateError> {
        let mut next: Option<(u64, Next)> = None;
        let mut offer = |sequence: Option<u64>, place: Next| {
            if let Some(sequence) = sequence
                && next.is_none_or(|(other, _)| sequence < other)
            {
                next = Some((sequence, place));
            }
        };
        let full = self.keyed.is_full();
        for index in [usize::from(priority), 10 + usize::from(priority)] {
            let lane = &mut self.fixed[index];
            if full {
                offer(lane.peek_returned(), Next::Fixed(index));
            } else if lane.may_have() {
                offer(lane.peek(&self.sandbox_name, self.pushed_through, &self.loader)?, Next::Fixed(index));
            }
        }
        let ready = &mut self.ready[usize::from(priority)];
        if ready.may_have() {
            offer(ready.peek(&self.loader)?, Next::Ready(usize::from(priority)));
        }
        for (key, lane) in self.topics.range_mut((9 - priority, 0)..=(9 - priority, u32::MAX)) {
            if full {
                offer(lane.peek_returned(), Next::Topic(*key));
            } else if lane.may_have() {
                offer(lane.peek(&self.sandbox_name, self.pushed_through, &self.loader)?, Next::Topic(*key));
            }
        }
        Ok(next)
    }

    fn take_next(&mut self, next: Next) -> Result<Option<Item>, StateError> {
        let lane = match next {
            Next::Fixed(index) => &mut self.fixed[index],
            Next::Ready(priority) => return self.ready[priority].take(&self.loader),
            Next::Topic(key) => match self.topics.get_mut(&key) {
                Some(lane) => lane,
                None => return Ok(None),
            },
        };
        let taken = lane.take(&self.loader);
        for gone in std::mem::take(&mut lane.gone) {
            if let Some(next) = self.keyed.pass(gone.ordering, gone.sequence, false) {
                self.put_back(next);
            }
        }
        taken
    }

    /// Whether nobody is to get a message. One of a direct lane, or on its own, is taken out by the machine.
    fn is_dropped(&mut self, item: &Item, lease: &Lease, now_ms: u64) -> bool {
        let expired = item.expires_ms > 0 && item.expires_ms <= now_ms;
        let shared = matches!(item.lane.source, Source::Broadcast | Source::Topic(_));
        let own = shared && item.message.record().from == self.sandbox_name;
        if !expired && !own {
            return false;
        }
        if !own {
            // An own message never had a turn; another copy of it may have.
            let alone = lease.lane.source == Source::Parked;
            if let Some(next) = self.keyed.pass(lease.ordering, lease.sequence, alone) {
                self.put_back(next);
            }
        }
        if shared {
            // Its ack frees no key: it holds none.
            self.dropped.push(Lease { ordering: 0, ..*lease });
        }
        true
    }
}
