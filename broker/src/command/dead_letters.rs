//! Redrive and purge: dead letters go back to an inbox, or away.

use crate::encoding::encoded;

encoded! {
    /// Dead letters to put back, by the number of their recipient and their sequence.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Redrive {
        pub(crate) workspace: String,
        pub(crate) dead_letters: Vec<(u32, u64)>,
        /// Where they go. Empty: back to the inbox that each left.
        pub(crate) to_sandbox: String,
    }
}

encoded! {
    /// What a redrive came to. Dead letters that are gone count nowhere.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Redriven {
        pub(crate) redriven: u64,
        /// Left alone because the inbox is full or gone.
        pub(crate) skipped: u64,
    }
}

encoded! {
    /// Dead letters to remove, by the number of their recipient and their sequence.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Purge {
        pub(crate) workspace: String,
        pub(crate) dead_letters: Vec<(u32, u64)>,
    }
}

encoded! {
    /// What a purge came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Purged {
        pub(crate) purged: u64,
    }
}
