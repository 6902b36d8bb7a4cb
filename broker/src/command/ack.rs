//! Ack: messages that a sandbox is done with.

use bytes::{BufMut, Bytes, BytesMut};

use crate::encoding::{DecodeError, Reader};

/// One ordered queue of a recipient: a source and a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lane {
    pub(crate) source: Source,
    /// 0 to 9.
    pub(crate) priority: u8,
}

/// Where a recipient's messages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Source {
    /// Addressed to the sandbox.
    Direct,
    /// The topic that every sandbox follows.
    Broadcast,
}

impl Lane {
    /// How many lanes a recipient has.
    pub(crate) const COUNT: usize = 20;

    /// Position among the lanes of a recipient.
    pub(crate) fn index(self) -> usize {
        match self.source {
            Source::Direct => usize::from(self.priority),
            Source::Broadcast => 10 + usize::from(self.priority),
        }
    }

    pub(crate) fn from_index(index: usize) -> Self {
        let source = if index < 10 { Source::Direct } else { Source::Broadcast };
        Self { source, priority: (index % 10) as u8 }
    }
}

/// Messages of one lane that are neighbours in it: all with `after < sequence <= through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AckedRange {
    pub(crate) lane: Lane,
    /// The message before the first of these in the lane, acknowledged or not; the floor where there is none.
    pub(crate) after: u64,
    /// The last of them.
    pub(crate) through: u64,
    /// How many they are.
    pub(crate) count: u32,
}

/// Acks of one recipient. By number: a sandbox that is registered again is another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ack {
    pub(crate) workspace: u32,
    pub(crate) sandbox: u32,
    pub(crate) ranges: Vec<AckedRange>,
    /// Runs that the floor passes with these ranges; they are removed. One that it does not pass is kept.
    pub(crate) finished: Vec<FinishedRun>,
}

/// The part of a batch that one direct lane got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FinishedRun {
    pub(crate) priority: u8,
    /// First sequence of the batch.
    pub(crate) first: u64,
    /// Sequence of the last message of the run.
    pub(crate) last: u64,
}

/// What an ack came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acked {
    /// Messages that left the inbox.
    pub(crate) count: u64,
}

impl Ack {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.workspace);
        out.put_u32(self.sandbox);
        out.put_u32(self.ranges.len() as u32);
        for range in &self.ranges {
            out.put_u8(range.lane.index() as u8);
            out.put_u64(range.after);
            out.put_u64(range.through);
            out.put_u32(range.count);
        }
        out.put_u32(self.finished.len() as u32);
        for run in &self.finished {
            out.put_u8(run.priority);
            out.put_u64(run.first);
            out.put_u64(run.last);
        }
    }

    pub(super) fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload, "ack");
        let (workspace, sandbox) = (reader.u32()?, reader.u32()?);
        let mut ranges = Vec::new();
        for _ in 0..reader.u32()? {
            let lane = reader.u8()?;
            if usize::from(lane) >= Lane::COUNT {
                return Err(DecodeError::Unknown { what: "lane", value: lane });
            }
            ranges.push(AckedRange {
                lane: Lane::from_index(usize::from(lane)),
                after: reader.u64()?,
                through: reader.u64()?,
                count: reader.u32()?,
            });
        }
        let mut finished = Vec::new();
        for _ in 0..reader.u32()? {
            let priority = reader.u8()?;
            if priority > 9 {
                return Err(DecodeError::Unknown { what: "priority", value: priority });
            }
            finished.push(FinishedRun { priority, first: reader.u64()?, last: reader.u64()? });
        }
        reader.end()?;
        Ok(Self { workspace, sandbox, ranges, finished })
    }
}

impl Acked {
    pub(super) fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.count);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { count: reader.u64()? })
    }
}
