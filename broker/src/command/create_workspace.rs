//! Create workspace, and change its settings.

use crate::encoding::encoded;

encoded! {
    /// What a workspace does with its messages. 0 is the default of each.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct Settings {
        /// How long a message without a ttl may wait, in milliseconds. 0: for ever.
        pub(crate) default_ttl_ms: u64,
        /// How long the history is kept, in milliseconds. 0: 30 days.
        pub(crate) retention_age_ms: u64,
        /// How many bytes of history are kept. 0: no limit.
        pub(crate) retention_bytes: u64,
        /// Hops that a conversation may have. 0: 16.
        pub(crate) max_hops: u8,
    }
}

/// How long a history is kept unless its workspace says otherwise, in milliseconds: 30 days.
const DEFAULT_RETENTION_AGE_MS: u64 = 30 * 24 * 3_600_000;

impl Settings {
    /// How long the history is kept, in milliseconds.
    pub(crate) fn retention_age(&self) -> u64 {
        if self.retention_age_ms == 0 { DEFAULT_RETENTION_AGE_MS } else { self.retention_age_ms }
    }

    /// Hops that a conversation may have.
    pub(crate) fn hop_limit(&self) -> u8 {
        if self.max_hops == 0 { 16 } else { self.max_hops }
    }
}

encoded! {
    /// The workspace to create.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct CreateWorkspace {
        pub(crate) workspace: String,
        /// How many workspaces a shard may have.
        pub(crate) max_workspaces: u32,
        pub(crate) settings: Settings,
    }
}
