//! Tokens that the broker signs, and the end of those that others do. All of them are kept by shard 0.

use crate::encoding::encoded;

encoded! {
    /// A token that can be renewed. It is not kept itself.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct CreateToken {
        /// What it says in `jti`.
        pub(crate) token_id: String,
        pub(crate) subject: String,
        /// As bits.
        pub(crate) roles: u8,
        /// Empty: all.
        pub(crate) workspace: String,
        /// Empty: all.
        pub(crate) sandbox: String,
        /// How long each one holds.
        pub(crate) life_ms: u64,
        /// It cannot be renewed beyond.
        pub(crate) ends_ms: u64,
        pub(crate) by: String,
        /// How many tokens a workspace may have, and those that are bound to none.
        pub(crate) max_tokens: u32,
    }
}

encoded! {
    /// The token to end.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct RevokeToken {
        pub(crate) token_id: String,
        /// Empty: a key of the settings has signed it.
        pub(crate) issuer: String,
        /// Only one that is bound to this workspace; empty: any.
        pub(crate) workspace: String,
        /// For one that is not known: it ends by then. 0: only one that is known.
        pub(crate) ends_ms: u64,
        pub(crate) by: String,
        /// As in [`CreateToken`].
        pub(crate) max_tokens: u32,
    }
}
