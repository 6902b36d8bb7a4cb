//! Heartbeat: a sandbox is alive, or those that have open subscriptions are.

use crate::encoding::encoded;

encoded! {
    /// The sandbox that is alive, as of the time of the command.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Heartbeat {
        pub(crate) workspace: String,
        pub(crate) sandbox: String,
    }
}

encoded! {
    /// Sandboxes that are alive because somebody is subscribed to them: workspace and sandbox, by number.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Alive {
        pub(crate) sandboxes: Vec<(u32, u32)>,
    }
}
