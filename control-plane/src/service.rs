//! What can be done, without HTTP and without SQL.

pub(crate) mod caller;
pub(crate) mod listing;
pub(crate) mod networks;
pub(crate) mod reconciler;
pub(crate) mod sandbox;
pub(crate) mod sandboxes;
pub(crate) mod workspace;
pub(crate) mod workspaces;
