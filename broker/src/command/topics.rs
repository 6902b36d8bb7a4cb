//! Topics come and go, and sandboxes follow them.

use crate::encoding::encoded;

encoded! {
    /// The topic to create.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct CreateTopic {
        pub(crate) workspace: String,
        pub(crate) topic: String,
        /// How many topics a workspace may have.
        pub(crate) max_topics: u32,
    }
}

encoded! {
    /// What a creation came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct TopicCreated {
        /// False when the topic had been there.
        pub(crate) created: bool,
    }
}

encoded! {
    /// The topic to delete.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct DeleteTopic {
        pub(crate) workspace: String,
        pub(crate) topic: String,
    }
}

encoded! {
    /// What a sandbox follows from now on.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct FollowTopics {
        pub(crate) workspace: String,
        pub(crate) sandbox: String,
        /// A topic, or a pattern with `*` and `>`.
        pub(crate) pattern: String,
        /// The first sequence that counts; none for the next message.
        pub(crate) from_sequence: Option<u64>,
        /// How many patterns a sandbox may follow.
        pub(crate) max_follows: u32,
    }
}

encoded! {
    /// What a follow came to.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Followed {
        /// False when the pattern had been followed.
        pub(crate) created: bool,
        /// The first sequence that counts.
        pub(crate) from_sequence: u64,
    }
}

encoded! {
    /// What a sandbox follows no more.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct UnfollowTopics {
        pub(crate) workspace: String,
        pub(crate) sandbox: String,
        pub(crate) pattern: String,
    }
}
