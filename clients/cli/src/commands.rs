//! One file per command, and the reading of an inbox that two of them share.

pub(crate) mod agents;
pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod certs;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod containers;
pub(crate) mod dev;
pub(crate) mod dlq;
pub(crate) mod events;
pub(crate) mod history;
mod inbox;
pub(crate) mod info;
pub(crate) mod key;
pub(crate) mod nack;
pub(crate) mod policy;
pub(crate) mod publish;
pub(crate) mod replay_range;
pub(crate) mod request;
pub(crate) mod roles;
pub(crate) mod sandbox;
pub(crate) mod subscribe;
pub(crate) mod team;
pub(crate) mod token;
pub(crate) mod topic;
pub(crate) mod workspace;
