//! API keys: make one, end one, and say which were used. All of them are kept by shard 0.

use bytes::Bytes;

use crate::encoding::encoded;

encoded! {
    /// A key; its secret only as a hash.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct CreateKey {
        /// Drawn by whoever makes it.
        pub(crate) id: u64,
        /// SHA-256 of the secret.
        pub(crate) hash: Bytes,
        pub(crate) subject: String,
        /// As bits.
        pub(crate) roles: u8,
        /// Empty: all.
        pub(crate) workspace: String,
        /// Empty: all.
        pub(crate) sandbox: String,
        /// 0: never.
        pub(crate) expires_ms: u64,
        pub(crate) by: String,
        /// How many keys a workspace may have, and those that are bound to none.
        pub(crate) max_keys: u32,
    }
}

encoded! {
    /// The key to end.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct RevokeKey {
        pub(crate) id: u64,
        /// Only one that is bound to this workspace; empty: any.
        pub(crate) workspace: String,
    }
}

encoded! {
    /// Keys that were used since this was said last.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct KeysUsed {
        pub(crate) ids: Vec<u64>,
    }
}
