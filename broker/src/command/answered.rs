//! Answered: a response reached the caller that waited for it.

use crate::encoding::encoded;

encoded! {
    /// The request that is answered.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Answered {
        pub(crate) workspace: u32,
        /// Who asked.
        pub(crate) sandbox: u32,
        /// Hash of the correlation id.
        pub(crate) correlation: u128,
    }
}
