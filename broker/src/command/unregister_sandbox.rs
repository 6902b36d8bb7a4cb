//! Unregister: a sandbox goes, with its inbox.

use crate::encoding::encoded;

encoded! {
    /// The sandbox to remove.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct UnregisterSandbox {
        pub(crate) workspace: String,
        pub(crate) sandbox: String,
    }
}

encoded! {
    /// What the removal came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Unregistered {
        /// Messages that were still waiting.
        pub(crate) abandoned: u64,
    }
}
