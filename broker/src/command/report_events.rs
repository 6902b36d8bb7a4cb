//! ReportEvents: what who runs sandboxes has seen of them.

use bytes::Bytes;

use crate::{encoding::encoded, machine::events::EventKind};

encoded! {
    /// Events of a workspace, of kinds that are reported.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct ReportEvents {
        pub(crate) workspace: String,
        pub(crate) events: Vec<ReportedEvent>,
    }
}

encoded! {
    /// One of them.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct ReportedEvent {
        pub(crate) kind: EventKind,
        /// The name of the sandbox that it is about.
        pub(crate) sandbox: String,
        /// UTF-8.
        pub(crate) text: Bytes,
    }
}
