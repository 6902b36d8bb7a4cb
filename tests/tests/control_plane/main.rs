//! The REST service of the control plane, before a real broker.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod alerts;
mod collaboration;
mod docker;
mod figures;
mod participants;
mod providers;
mod sandboxes;
mod sockets;
mod stage;
mod tls;
mod walls;
mod warm;
mod workspaces;
