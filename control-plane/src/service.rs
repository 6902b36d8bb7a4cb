//! What can be done, without HTTP and without SQL.

pub(crate) mod alert;
pub(crate) mod alerts;
pub(crate) mod caller;
pub(crate) mod collaboration;
pub(crate) mod listing;
pub(crate) mod mcp_servers;
pub(crate) mod networks;
pub(crate) mod patch;
pub(crate) mod providers;
pub(crate) mod reconciler;
pub(crate) mod sandbox;
pub(crate) mod sandboxes;
pub(crate) mod scoped;
pub(crate) mod values;
pub(crate) mod web_address;
pub(crate) mod workspace;
pub(crate) mod workspaces;
