//! Replay: messages of the history go into an inbox once more.

use crate::encoding::encoded;

encoded! {
    /// Messages to put into an inbox, as batches of one.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Replay {
        pub(crate) workspace: String,
        pub(crate) sandbox: String,
        /// Sequence, and the message as a batch of one.
        pub(crate) messages: Vec<(u64, bytes::Bytes)>,
    }
}

encoded! {
    /// What a replay came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Replayed {
        pub(crate) replayed: u64,
    }
}
