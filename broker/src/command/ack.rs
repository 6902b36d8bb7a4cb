//! Ack: messages of one recipient are done. What the leader knows of their places travels along, so that applying it reads
//! nothing but the recipient's record.

use bytes::BytesMut;

use crate::encoding::{DecodeError, Field, Reader, encoded};

/// Where a message of a recipient waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Source {
    /// Addressed to the recipient.
    Direct,
    /// For everybody in the workspace.
    Broadcast,
    /// A topic, by its number.
    Topic(u32),
    /// On its own: a retry, a delayed message, a replay. See `machine::parked`.
    Parked,
}

impl Source {
    /// The number under which the runs of a source are kept: of a recipient its own, of a topic its own from the other half.
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Direct => 0,
            Self::Parked => u32::MAX - 1,
            Self::Broadcast => u32::MAX,
            Self::Topic(number) => number,
        }
    }

    fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Direct,
            u32::MAX => Self::Broadcast,
            number if number == u32::MAX - 1 => Self::Parked,
            number => Self::Topic(number),
        }
    }
}

/// One ordered queue of a recipient: a source and a priority. Lanes sort by source, then priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lane {
    pub(crate) source: Source,
    /// 0 to 9.
    pub(crate) priority: u8,
}

impl Lane {
    /// How many lanes every recipient has beside those of topics and what is parked.
    pub(crate) const FIXED: usize = 20;

    /// Position among the lanes that every recipient has; none for the others.
    pub(crate) fn fixed_index(self) -> Option<usize> {
        match self.source {
            Source::Direct => Some(usize::from(self.priority)),
            Source::Broadcast => Some(10 + usize::from(self.priority)),
            Source::Topic(_) | Source::Parked => None,
        }
    }

    pub(crate) fn from_fixed_index(index: usize) -> Self {
        let source = if index < 10 { Source::Direct } else { Source::Broadcast };
        Self { source, priority: (index % 10) as u8 }
    }
}

impl Field for Lane {
    fn put(&self, out: &mut BytesMut) {
        self.source.number().put(out);
        self.priority.put(out);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        let source = Source::from_number(reader.u32()?);
        match reader.u8()? {
            priority @ 0..=9 => Ok(Self { source, priority }),
            value => Err(DecodeError::Unknown { what: "priority", value }),
        }
    }
}

encoded! {
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
        /// How many bytes they have together.
        pub(crate) bytes: u64,
    }
}

encoded! {
    /// Acks of one recipient. By number: a sandbox that is registered again is another one.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Ack {
        pub(crate) workspace: u32,
        pub(crate) sandbox: u32,
        pub(crate) ranges: Vec<AckedRange>,
        /// Runs that the floor passes with these ranges; they are removed. One that it does not pass is kept.
        pub(crate) finished: Vec<FinishedRun>,
        /// Of what is parked: priority and sequence.
        pub(crate) parked: Vec<(u8, u64)>,
    }
}

impl Ack {
    /// The messages in it that waited on their own: priority and sequence.
    pub(crate) fn alone(&self) -> impl Iterator<Item = (u8, u64)> {
        self.parked.iter().copied()
    }
}

encoded! {
    /// The part of a batch that one direct lane got.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct FinishedRun {
        pub(crate) priority: u8,
        /// First sequence of the batch.
        pub(crate) first: u64,
        /// Sequence of the last message of the run.
        pub(crate) last: u64,
    }
}

encoded! {
    /// What an ack came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Acked {
        /// Messages that left the inbox.
        pub(crate) count: u64,
    }
}
