//! Decide: somebody approves or denies a message that waits for it.

use bytes::Bytes;

use crate::{encoding::encoded, machine::approval::ApprovalState};

encoded! {
    /// What somebody decides.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Decide {
        pub(crate) workspace: String,
        /// Of the approval.
        pub(crate) number: u64,
        pub(crate) approve: bool,
        /// UTF-8, for the sender and whoever asks later.
        pub(crate) comment: Bytes,
        pub(crate) by: String,
        /// The sandbox that he is bound to; empty: none.
        pub(crate) sandbox: String,
    }
}

encoded! {
    /// What has become of the message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Decided {
        pub(crate) state: ApprovalState,
        /// In the log, once it is approved; else 0.
        pub(crate) sequence: u64,
    }
}
