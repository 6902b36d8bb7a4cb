//! The broker: gives replicated commands their meaning, and hands messages to those they are for.
//!
//! Owns the edge (gRPC, the operators' HTTP port), the commands and the machine that applies them, deliveries, history and
//! configuration. It deliberately does not know how bytes are replicated (`tandem-raft`) or laid on disk
//! (`tandem-storage`), and nothing of Docker, REST or workspaces' owners (the control plane).
//!
//! Read first: `machine` (what each command does to the state; its keys are in `machine::keys`), `batcher` (everything that
//! waits becomes one command), `delivery` (leader only: credit, leases, queues in memory).
//!
//! Invariants:
//! - Data goes one way: edge, batcher, raft, machine, delivery. The machine never calls delivery; its effects can be found
//!   again in the state.
//! - Applying reads no clock, randomness or configuration: what it needs travels in the command.
//! - A message is stored as its publisher encoded it, and handed out so, with the broker's fields behind it.
//! - Every queue has a limit, and whoever meets it is told.
//!
//! Tested by table tests and a reference model of the machine, golden bytes for every key and record, property tests of the
//! message reader, and end to end by the crates `tests` and `clients`.

mod anchors;
mod app;
pub mod audit;
pub mod auth;
mod batch;
mod batcher;
mod clock;
mod cluster;
mod command;
mod config;
mod connections;
pub mod core_dumps;
mod counts;
mod data_dir;
mod delivery;
mod encoding;
mod error;
mod field;
#[doc(hidden)]
pub mod fuzzing;
mod grpc;
mod http;
mod leader_time;
pub mod logging;
mod machine;
mod message;
mod metrics;
mod pem;
pub mod policy;
mod query;
mod quotas;
mod random;
mod rejection;
mod retention;
mod running;
mod sealing;
mod serve;
mod shard;
#[cfg(test)]
mod simulation;
mod ticker;
mod tls;

pub use app::Broker;
pub use config::{
    AuditConfig, AuthConfig, ClusterConfig, Config, ConfigError, EncryptionConfig, EngineKind, Limits, LogConfig,
    LogFormat, StorageConfig, TlsConfig,
};
pub use error::StartError;
pub use rejection::{Reason, Rejection};
