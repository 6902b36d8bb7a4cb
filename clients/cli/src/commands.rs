//! One file per command.

pub(crate) mod agents;
pub(crate) mod completions;
pub(crate) mod dev;
pub(crate) mod history;
pub(crate) mod info;
pub(crate) mod publish;
pub(crate) mod sandbox;
pub(crate) mod subscribe;
pub(crate) mod workspace;
