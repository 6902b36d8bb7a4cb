//! How far a follower is in a topic.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::{
    cursor::Cursor,
    keys::{self, CURSORS},
    state::{State, StateError},
};
use crate::{
    command::AckedRange,
    encoding::{DecodeError, Field, Reader},
};

/// The cursors of one follower in one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicCursors {
    /// Where the cursors begin.
    pub(crate) base: u64,
    /// Messages of the topic that are not for this follower or done.
    pub(crate) done: u64,
    /// Those that have moved, by priority.
    cursors: BTreeMap<u8, Cursor>,
}

impl TopicCursors {
    /// A follower that begins behind `base`, with that many messages of the topic before.
    pub(crate) fn new(base: u64, done: u64) -> Self {
        Self { base, done, cursors: BTreeMap::new() }
    }

    pub(crate) fn cursor(&self, priority: u8) -> Cursor {
        self.cursors.get(&priority).cloned().unwrap_or_else(|| Cursor::new(self.base))
    }

    fn cursor_mut(&mut self, priority: u8) -> &mut Cursor {
        let base = self.base;
        self.cursors.entry(priority).or_insert_with(|| Cursor::new(base))
    }
}

impl Field for TopicCursors {
    fn put(&self, out: &mut BytesMut) {
        self.base.put(out);
        self.done.put(out);
        (self.cursors.len() as u8).put(out);
        for (priority, cursor) in &self.cursors {
            priority.put(out);
            cursor.put(out);
        }
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        let mut read = Self::new(reader.u64()?, reader.u64()?);
        for _ in 0..reader.u8()? {
            let priority = reader.u8()?;
            if priority > 9 || read.cursors.insert(priority, Cursor::get(reader)?).is_some() {
                return Err(DecodeError::Unknown { what: "priority of a topic cursor", value: priority });
            }
        }
        Ok(read)
    }
}

/// Marks a part of a topic's lane as done for a follower. False when it was already.
///
/// Without a record the follower came before the topic did: it begins with the topic.
pub(super) fn take(
    state: &mut State,
    workspace: u32,
    topic: u32,
    sandbox: u32,
    range: &AckedRange,
) -> Result<bool, StateError> {
    let key = keys::cursors(workspace, topic, sandbox);
    let mut cursors: TopicCursors = state.read(CURSORS, &key, "topic cursors")?.unwrap_or_default();
    if !cursors.cursor_mut(range.lane.priority).insert(range.after, range.through) {
        return Ok(false);
    }
    cursors.done += u64::from(range.count);
    state.put(CURSORS, key, cursors.to_bytes());
    Ok(true)
}
