//! The record of one recipient: how far it is in each of its lanes, and how much waits.

use bytes::{BufMut, Bytes, BytesMut};

use crate::{
    command::Lane,
    encoding::{DecodeError, Reader},
    machine::cursor::Cursor,
};

const VERSION: u8 = 1;

/// Cursors and counters of one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inbox {
    /// The workspace's newest sequence when the sandbox came: where every cursor begins.
    base: u64,
    /// Direct messages that wait, leased ones included, by priority.
    pub(crate) waiting: [u64; 10],
    /// Broadcasts of the workspace that are not for this recipient or done: committed before it came, sent by itself, or
    /// acknowledged.
    pub(crate) broadcasts_done: u64,
    /// One for each lane.
    cursors: Vec<Cursor>,
}

impl Inbox {
    /// The inbox of a sandbox that comes when the workspace is at `last_sequence` with `broadcasts` broadcasts.
    pub(crate) fn new(last_sequence: u64, broadcasts: u64) -> Self {
        let cursors = vec![Cursor::new(last_sequence); Lane::COUNT];
        Self { base: last_sequence, waiting: [0; 10], broadcasts_done: broadcasts, cursors }
    }

    pub(crate) fn cursor(&self, lane: Lane) -> &Cursor {
        &self.cursors[lane.index()]
    }

    pub(crate) fn cursor_mut(&mut self, lane: Lane) -> &mut Cursor {
        &mut self.cursors[lane.index()]
    }

    /// Direct messages that wait.
    pub(crate) fn direct_waiting(&self) -> u64 {
        self.waiting.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// All messages that wait, in a workspace with that many broadcasts.
    pub(crate) fn pending(&self, broadcasts: u64) -> u64 {
        self.direct_waiting().saturating_add(broadcasts.saturating_sub(self.broadcasts_done))
    }

    /// Only what differs from a fresh inbox is written: this record is written with every batch that touches it.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(VERSION);
        out.put_u64(self.base);
        out.put_u64(self.broadcasts_done);
        let waiting = self.waiting.iter().enumerate().filter(|(_, count)| **count > 0);
        out.put_u8(waiting.clone().count() as u8);
        for (priority, count) in waiting {
            out.put_u8(priority as u8);
            out.put_u64(*count);
        }
        let fresh = Cursor::new(self.base);
        let moved = self.cursors.iter().enumerate().filter(|(_, cursor)| **cursor != fresh);
        out.put_u8(moved.clone().count() as u8);
        for (lane, cursor) in moved {
            out.put_u8(lane as u8);
            out.put_u64(cursor.floor);
            out.put_u32(cursor.ranges.len() as u32);
            for (after, through) in &cursor.ranges {
                out.put_u64(*after);
                out.put_u64(*through);
            }
        }
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
            let priority = reader.u8()?;
            let count = inbox.waiting.get_mut(usize::from(priority));
            *count.ok_or(DecodeError::Unknown { what: "priority", value: priority })? = reader.u64()?;
        }
        for _ in 0..reader.u8()? {
            let lane = reader.u8()?;
            let mut cursor = Cursor::new(reader.u64()?);
            for _ in 0..reader.u32()? {
                cursor.ranges.push((reader.u64()?, reader.u64()?));
            }
            let slot = inbox.cursors.get_mut(usize::from(lane));
            *slot.ok_or(DecodeError::Unknown { what: "lane", value: lane })? = cursor;
        }
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
        inbox.cursor_mut(Lane::from_index(13)).insert(20, 30);
        inbox.cursor_mut(Lane::from_index(2)).insert(7, 9);
        assert_eq!(Inbox::decode(inbox.encode()).unwrap(), inbox);
        assert_eq!(inbox.pending(5), 6);
    }

    #[test]
    fn an_inbox_has_these_bytes() {
        let mut inbox = Inbox::new(7, 3);
        inbox.waiting[9] = 4;
        inbox.cursor_mut(Lane::from_index(2)).insert(7, 9);
        let golden = [
            1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 3, // version, base, broadcasts done
            1, 9, 0, 0, 0, 0, 0, 0, 0, 4, // one priority waits
            1, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, // one cursor has moved
        ];
        assert_eq!(inbox.encode().as_ref(), golden);
    }
}
