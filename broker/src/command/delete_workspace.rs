//! Delete workspace: with its log, sandboxes and inboxes.

use crate::encoding::encoded;

encoded! {
    /// The workspace to delete.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct DeleteWorkspace {
        pub(crate) workspace: String,
    }
}
