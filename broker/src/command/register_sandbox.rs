//! Register: a sandbox gets an inbox, or a new description.

use bytes::Bytes;

use crate::encoding::encoded;

encoded! {
    /// How the broker treats the inbox of a sandbox. 0 is the default of each.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct InboxSettings {
        /// Attempts in all. 0: 5.
        pub(crate) max_attempts: u32,
        /// Before the second attempt, in milliseconds. 0: 1,000.
        pub(crate) initial_backoff_ms: u64,
        /// Where doubling ends, in milliseconds. 0: 16,000.
        pub(crate) max_backoff_ms: u64,
        /// Messages addressed to the sandbox that may wait. 0: as many as the server allows.
        pub(crate) max_messages: u64,
        /// Their bytes. 0: as many as the server allows.
        pub(crate) max_bytes: u64,
    }
}

encoded! {
    /// A sandbox as its owner describes it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct RegisterSandbox {
        pub(crate) workspace: String,
        pub(crate) sandbox: String,
        /// The encoded `Sandbox` of the contract, with the client's fields. Opaque here.
        pub(crate) description: Bytes,
        /// How many sandboxes a workspace may have.
        pub(crate) max_sandboxes: u32,
        pub(crate) settings: InboxSettings,
        /// What its agents can do, each once, sorted.
        pub(crate) capabilities: Vec<String>,
        /// Without a heartbeat for this long it counts as offline, in milliseconds.
        pub(crate) heartbeat_timeout_ms: u64,
    }
}

encoded! {
    /// What a registration came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Registered {
        /// False when the sandbox had been there.
        pub(crate) created: bool,
    }
}
