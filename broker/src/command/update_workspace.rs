//! Update workspace: other settings.

use super::create_workspace::Settings;
use crate::encoding::encoded;

encoded! {
    /// The settings that a workspace gets.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct UpdateWorkspace {
        pub(crate) workspace: String,
        pub(crate) settings: Settings,
    }
}
