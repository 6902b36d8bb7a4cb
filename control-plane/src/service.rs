//! What can be done, without HTTP and without SQL.

pub(crate) mod caller;
pub(crate) mod listing;
pub(crate) mod reconciler;
pub(crate) mod workspace;
pub(crate) mod workspaces;
