//! Trim: old history goes. The leader has looked at what is still needed; applying it reads next to nothing.

use super::ack::Lane;
use crate::encoding::encoded;

encoded! {
    /// A batch before the history, and what somebody still waits for in it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct SpentBatch {
        pub(crate) first_sequence: u64,
        /// Indexes of messages that are needed, rising; none when the whole batch goes.
        pub(crate) keep: Vec<u16>,
        /// Source and priority of the runs that lead to it; only when the whole batch goes.
        pub(crate) runs: Vec<(u32, u8)>,
        /// Sandboxes that are gone, and what they held of it.
        pub(crate) stale: Vec<(u32, u64)>,
    }
}

encoded! {
    /// A recipient that is further behind in what it shares with others than its inbox may hold.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Overflow {
        pub(crate) sandbox: u32,
        /// Of a topic, or of broadcasts.
        pub(crate) lane: Lane,
        /// Messages that it loses, rising: all that still waited up to the last of them.
        pub(crate) sequences: Vec<u64>,
    }
}

encoded! {
    /// What goes.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Trim {
        pub(crate) workspace: String,
        /// The workspace that was looked at: another one may have taken its name.
        pub(crate) number: u32,
        /// Where the history begins from now on: the first sequence of a batch.
        pub(crate) first_sequence: u64,
        /// Bytes of all batches before it.
        pub(crate) trimmed_bytes: u64,
        /// Batches before where the history began already.
        pub(crate) batches: Vec<SpentBatch>,
        pub(crate) overflows: Vec<Overflow>,
    }
}

encoded! {
    /// What a trim came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Trimmed {
        /// Batches that are gone.
        pub(crate) batches: u64,
        /// Messages that were taken from inboxes.
        pub(crate) overflowed: u64,
    }
}
