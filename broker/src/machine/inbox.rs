//! The record of one recipient: how far it is in each of its lanes, and how much waits.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    command::{Header, Lane, register_sandbox::InboxSettings},
    encoding::{DecodeError, Field, Reader, encoded},
    machine::cursor::Cursor,
};

const VERSION: u8 = 2;

encoded! {
    /// Counters and settings beside the lanes.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Counters {
        /// Bytes of the messages addressed to this recipient that wait, in lanes or on their own.
        pub(crate) bytes: u64,
        /// Messages that wait on their own.
        pub(crate) parked: u64,
        /// Of these, the ones that wait for their time.
        pub(crate) deferred: u64,
        pub(crate) dead_letters: u64,
        /// Retries that later messages of their ordering key wait for.
        pub(crate) keyed: u64,
        /// Patterns of topics that it follows.
        pub(crate) follows: u32,
        /// Requests that wait for a response.
        pub(crate) requests: u32,
        /// A publish was refused because it was full, and there has not been room since.
        pub(crate) full: bool,
    }
}

/// Cursors and counters of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inbox {
    /// The workspace's newest sequence when the sandbox came: where every cursor begins.
    pub(crate) base: u64,
    /// Direct messages that wait, leased ones included, by priority.
    pub(crate) waiting: [u64; 10],
    /// The newest direct message of each priority.
    pub(crate) newest: [u64; 10],
    /// Broadcasts of the workspace that are not for this recipient or done: committed before it came, sent by itself, or
    /// acknowledged.
    pub(crate) broadcasts_done: u64,
    pub(crate) counters: Counters,
    pub(crate) settings: InboxSettings,
    /// One for each lane that every recipient has.
    cursors: Vec<Cursor>,
}

/// Attempts in all, unless the sandbox says otherwise.
const MAX_ATTEMPTS: u32 = 5;
/// Before the second attempt, in milliseconds, unless the sandbox says otherwise.
const INITIAL_BACKOFF_MS: u64 = 1_000;
/// Where doubling ends, in milliseconds, unless the sandbox says otherwise.
const MAX_BACKOFF_MS: u64 = 16_000;

impl Inbox {
    /// The inbox of a sandbox that comes when the workspace is at `last_sequence` with `broadcasts` broadcasts.
    pub(crate) fn new(last_sequence: u64, broadcasts: u64) -> Self {
        Self {
            base: last_sequence,
            waiting: [0; 10],
            newest: [last_sequence; 10],
            broadcasts_done: broadcasts,
            counters: Counters::default(),
            settings: InboxSettings::default(),
            cursors: vec![Cursor::new(last_sequence); Lane::FIXED],
        }
    }

    /// The cursor of a lane that every recipient has.
    pub(crate) fn cursor(&self, lane: Lane) -> Option<&Cursor> {
        self.cursors.get(lane.fixed_index()?)
    }

    pub(crate) fn cursor_mut(&mut self, lane: Lane) -> Option<&mut Cursor> {
        self.cursors.get_mut(lane.fixed_index()?)
    }

    /// Messages that wait in the lanes of what is addressed to it.
    pub(crate) fn direct_waiting(&self) -> u64 {
        self.waiting.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Messages that count against the limit: all but broadcasts and topics.
    pub(crate) fn held(&self) -> u64 {
        self.direct_waiting().saturating_add(self.counters.parked)
    }

    /// All messages that wait, in a workspace with that many broadcasts, without those of topics.
    pub(crate) fn pending(&self, broadcasts: u64) -> u64 {
        self.held().saturating_add(broadcasts.saturating_sub(self.broadcasts_done))
    }

    /// How many messages and bytes may wait, where a server has these limits.
    pub(crate) fn limits(&self, header: &Header) -> (u64, u64) {
        self.limits_of((header.max_inbox_messages, header.max_inbox_bytes))
    }

    /// The same, where the server's limits are at hand.
    pub(crate) fn limits_of(&self, (most_messages, most_bytes): (u64, u64)) -> (u64, u64) {
        let limit = |own: u64, most: u64| if own == 0 { most } else { own.min(most) };
        (limit(self.settings.max_messages, most_messages), limit(self.settings.max_bytes, most_bytes))
    }

    /// Whether one more message of that many bytes fits.
    pub(crate) fn has_room(&self, bytes: u64, header: &Header) -> bool {
        let (max_messages, max_bytes) = self.limits(header);
        self.held() < max_messages && self.counters.bytes.saturating_add(bytes) <= max_bytes
    }

    /// How many attempts a message has.
    pub(crate) fn max_attempts(&self) -> u32 {
        if self.settings.max_attempts == 0 { MAX_ATTEMPTS } else { self.settings.max_attempts }
    }

    /// The time before an attempt, from the second on, in milliseconds. `seed` spreads it by up to 20 % either way, the same
    /// on every node.
    pub(crate) fn backoff_ms(&self, attempt: u32, seed: u64) -> u64 {
        let or = |value: u64, default: u64| if value == 0 { default } else { value };
        let initial = or(self.settings.initial_backoff_ms, INITIAL_BACKOFF_MS);
        let most = or(self.settings.max_backoff_ms, MAX_BACKOFF_MS).max(initial);
        let doublings = attempt.saturating_sub(2).min(40);
        let backoff = initial.saturating_mul(1 << doublings).min(most);
        backoff * 4 / 5 + seed % (backoff * 2 / 5 + 1)
    }

    /// Only what differs from a fresh inbox is written: this record is written with every batch that touches it.
    pub(crate) fn encode(&self) -> Bytes {
        let fresh = Self::new(self.base, 0);
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(VERSION);
        out.put_u64(self.base);
        out.put_u64(self.broadcasts_done);
        let used = (0..10).filter(|priority| self.waiting[*priority] > 0 || self.newest[*priority] > self.base);
        out.put_u8(used.clone().count() as u8);
        for priority in used {
            out.put_u8(priority as u8);
            out.put_u64(self.waiting[priority]);
            out.put_u64(self.newest[priority]);
        }
        let moved = self.cursors.iter().enumerate().filter(|(index, cursor)| **cursor != fresh.cursors[*index]);
        out.put_u8(moved.clone().count() as u8);
        for (lane, cursor) in moved {
            out.put_u8(lane as u8);
            cursor.put(&mut out);
        }
        (self.counters != fresh.counters).then_some(self.counters).put(&mut out);
        (self.settings != fresh.settings).then_some(self.settings).put(&mut out);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes, "inbox");
        match reader.u8()? {
            VERSION => {}
            value => return Err(DecodeError::Unknown { what: "inbox version", value }),
        }
        let mut inbox = Self::new(reader.u64()?, reader.u64()?);
        for _ in 0..reader.u8()? {
            let value = reader.u8()?;
            let priority = usize::from(value);
            if priority > 9 {
                return Err(DecodeError::Unknown { what: "priority", value });
            }
            inbox.waiting[priority] = reader.u64()?;
            inbox.newest[priority] = reader.u64()?;
        }
        for _ in 0..reader.u8()? {
            let lane = reader.u8()?;
            let cursor = Cursor::get(&mut reader)?;
            let slot = inbox.cursors.get_mut(usize::from(lane));
            *slot.ok_or(DecodeError::Unknown { what: "lane", value: lane })? = cursor;
        }
        inbox.counters = Option::get(&mut reader)?.unwrap_or_default();
        inbox.settings = Option::get(&mut reader)?.unwrap_or_default();
        reader.end()?;
        Ok(inbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_comes_back_as_it_was() {
        let mut inbox = Inbox::new(7, 3);
        inbox.waiting[9] = 4;
        inbox.newest[9] = 40;
        inbox.counters.bytes = 9;
        inbox.settings.max_attempts = 2;
        inbox.cursor_mut(Lane::from_fixed_index(13)).unwrap().insert(20, 30);
        inbox.cursor_mut(Lane::from_fixed_index(2)).unwrap().insert(7, 9);
        assert_eq!(Inbox::decode(inbox.encode()).unwrap(), inbox);
        assert_eq!(inbox.pending(5), 6);
    }

    #[test]
    fn an_inbox_has_these_bytes() {
        let mut inbox = Inbox::new(7, 3);
        inbox.waiting[9] = 4;
        inbox.newest[9] = 8;
        inbox.cursor_mut(Lane::from_fixed_index(2)).unwrap().insert(7, 9);
        let golden = [
            2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3, // version, base, broadcasts done
            1, 9, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 8, // one priority waits
            1, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, // one cursor has moved
            0, 0, // counters and settings as they begin
        ];
        assert_eq!(inbox.encode().as_ref(), golden);
    }

    #[test]
    fn backoffs_double_up_to_the_limit_and_spread_by_a_fifth() {
        let inbox = Inbox::new(0, 0);
        let middle: Vec<_> = (2..8).map(|attempt| inbox.backoff_ms(attempt, 0) * 5 / 4).collect();
        assert_eq!(middle, [1_000, 2_000, 4_000, 8_000, 16_000, 16_000]);
        let spread: std::collections::BTreeSet<_> = (0..100_000).map(|seed| inbox.backoff_ms(2, seed)).collect();
        assert_eq!((spread.first(), spread.last()), (Some(&800), Some(&1_200)));
        assert_eq!(inbox.backoff_ms(u32::MAX, 0), 12_800);
    }
}
