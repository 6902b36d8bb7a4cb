//! Tick: time has passed. What is due by the time of the command happens: delays and backoffs end, messages expire, sandboxes
//! go offline, requests time out.

use super::ack::Lane;
use crate::encoding::encoded;

encoded! {
    /// A message that somebody is working on, and that must not expire meanwhile.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Leased {
        pub(crate) workspace: u32,
        pub(crate) sandbox: u32,
        pub(crate) lane: Lane,
        pub(crate) sequence: u64,
    }
}

encoded! {
    /// What may happen now.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Tick {
        /// Entries to look at, at the most; the next tick goes on.
        pub(crate) max_entries: u32,
        /// Leased messages whose ttl has ended.
        pub(crate) leased: Vec<Leased>,
        pub(crate) heartbeat_timeout_ms: u64,
    }
}

encoded! {
    /// What a tick came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Ticked {
        /// Entries that were due and are gone.
        pub(crate) entries: u32,
        /// Whether more are due.
        pub(crate) more: bool,
    }
}
