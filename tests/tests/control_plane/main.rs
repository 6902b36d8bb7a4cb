//! The REST service of the control plane, before a real broker.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod collaboration;
mod docker;
mod sandboxes;
mod sockets;
mod stage;
mod walls;
mod workspaces;
