//! Set policy: who may say what to whom.

use bytes::Bytes;

use crate::encoding::encoded;

encoded! {
    /// The policy that a workspace gets.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct SetPolicy {
        pub(crate) workspace: String,
        /// Its JSON; empty to remove it.
        pub(crate) json: Bytes,
        /// Only if the policy has this revision.
        pub(crate) if_revision: Option<u64>,
        /// Who sets it.
        pub(crate) by: String,
    }
}

encoded! {
    /// The policy is in force.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct PolicySet {
        pub(crate) revision: u64,
        /// Since when.
        pub(crate) time_ms: u64,
    }
}
