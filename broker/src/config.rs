//! What an operator can set: one structure per component, read once, from a TOML file, the environment and flags.

pub(crate) mod audit;
pub(crate) mod auth;
pub(crate) mod cluster;
pub(crate) mod encryption;
mod layers;
mod tls;

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    audit::AuditConfig, auth::AuthConfig, cluster::ClusterConfig, encryption::EncryptionConfig, tls::TlsConfig,
};

/// Everything. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the data lies. Created when absent. Default `data`.
    pub data_dir: PathBuf,
    /// Address of the gRPC service. Default `127.0.0.1:8001`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of `/metrics`, `/health` and `/ready`. Default `127.0.0.1:9001`.
    pub metrics_listen: SocketAddr,
    /// Id of this node within its cluster, from 1. Default 1. Fixed with the data directory.
    pub node_id: u64,
    /// Workspace that a new server begins with; empty for none. Default `default`.
    pub default_workspace: String,
    /// Who may come in.
    pub auth: AuthConfig,
    /// Encryption of what clients say.
    pub tls: TlsConfig,
    /// Encryption of what is stored.
    pub encryption: EncryptionConfig,
    /// What becomes of heads of the audit.
    pub audit: AuditConfig,
    /// The other nodes, if there are any.
    pub cluster: ClusterConfig,
    /// Replication and storage.
    pub storage: StorageConfig,
    /// What requests may ask for.
    pub limits: Limits,
    /// What the process writes to standard error.
    pub log: LogConfig,
    /// Time that streams and requests have to end after a signal, in milliseconds. Default 5,000.
    pub shutdown_grace_ms: u64,
}

/// Replication and storage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// `rocksdb`, or `memory`, which forgets everything at the end. Default `rocksdb`.
    pub engine: EngineKind,
    /// Number of Raft groups. Fixed with the data directory. 1 to 64, default 4.
    pub shards: u32,
    /// A snapshot is taken and the log purged after this many bytes of commands on a shard. Default 128 MiB.
    pub snapshot_every_bytes: u64,
    /// How much of the end of each shard's log stays in memory, in bytes. Default 16 MiB.
    pub log_cache_bytes: usize,
    /// One write buffer of a shard's state, in bytes; up to four of them fill while others are written out. Default 64 MiB.
    pub state_memtable_bytes: usize,
    /// Block cache of all states together, in bytes. Default 128 MiB.
    pub block_cache_bytes: usize,
    /// How fast the node reads everything on its disk again to look for damage, in bytes a second; 0: it does not. Default
    /// 16 MiB.
    pub scrub_bytes_per_second: u64,
    /// From the end of such a pass to the beginning of the next, in milliseconds. The first begins after a twenty-fourth of
    /// it. Default 86,400,000, a day.
    pub scrub_interval_ms: u64,
}

/// The storage engines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// On disk.
    Rocksdb,
    /// In memory, for tests.
    Memory,
}

/// What requests may ask for, and what the process holds at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of one encoded message. Default 1 MiB, at most 8 MiB.
    pub max_message_bytes: usize,
    /// Messages in one request. Default 1,000, at most 10,000.
    pub max_batch_messages: usize,
    /// Bytes of one request. Default 4 MiB, at most 16 MiB.
    pub max_batch_bytes: usize,
    /// Bytes of requests that wait to be committed, per shard. Default 64 MiB.
    pub max_queued_bytes: usize,
    /// Requests of one publish stream that wait for their answer. Default 64.
    pub max_stream_requests: usize,
    /// Credit of one subscription, in messages. Default 65,536.
    pub max_credit_messages: u32,
    /// Credit of one subscription, in bytes. Default 64 MiB.
    pub max_credit_bytes: u64,
    /// Deliveries of one subscription that are not acknowledged, counted from the oldest; beyond, nothing is sent. Default
    /// 65,536.
    pub max_unacknowledged: usize,
    /// A subscription that never gives credit ends after this many milliseconds. Default 60,000.
    pub credit_timeout_ms: u64,
    /// Messages addressed to one sandbox that wait. Default 1,000,000.
    pub max_inbox_messages: u64,
    /// Bytes of messages addressed to one sandbox that wait. Default 1 GiB.
    pub max_inbox_bytes: u64,
    /// Dead letters of one sandbox; beyond, what would become one stays in the inbox. Default 100,000.
    pub max_dead_letters_per_sandbox: u64,
    /// For how long message ids, producers and conversations are remembered, at least, in milliseconds. Taken over by a
    /// workspace when it is created. Default 604,800,000, a week.
    pub dedupe_window_ms: u64,
    /// Topics in one workspace. Default 10,000.
    pub max_topics_per_workspace: u32,
    /// API keys that are bound to one workspace, and as many that are bound to none; those that ended count for 30 days. At most
    /// 10,000, default 1,000.
    pub max_api_keys: u32,
    /// Tokens made by the broker that are bound to one workspace, and as many that are bound to none; those that ended count until a
    /// day after they cannot be renewed any more. Default 100,000.
    pub max_tokens: u32,
    /// Patterns that one sandbox follows. Default 256.
    pub max_follows_per_sandbox: u32,
    /// Sandboxes in one workspace. Default 100,000.
    pub max_sandboxes_per_workspace: u32,
    /// Workspaces on one shard. Default 10,000.
    pub max_workspaces_per_shard: u32,
    /// How long a request of one message may take to come, in milliseconds. 100 or more, default 60,000.
    pub request_timeout_ms: u64,
    /// Connections of one host to the gRPC port at once. Default 5,000.
    pub max_connections_per_host: u32,
    /// Connections of clients and nodes to the gRPC port at once; one that is too many is closed. Default 10,000.
    pub max_connections: usize,
    /// Streams that the server serves at once. Default 20,000.
    pub max_streams: usize,
    /// A sandbox without a heartbeat for this many milliseconds counts as offline. Default 30,000.
    pub heartbeat_timeout_ms: u64,
}

/// What the process writes to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// Filter, such as `info` or `tandem_broker=debug,warn`. Default `info,openraft=error`: the library warns of what
    /// passes by itself, and what does not stops the node.
    pub filter: String,
    /// `text` or `json`. Default `text`.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("data"),
            listen: SocketAddr::from(([127, 0, 0, 1], 8001)),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 9001)),
            node_id: 1,
            default_workspace: "default".into(),
            auth: AuthConfig::default(),
            tls: TlsConfig::default(),
            encryption: EncryptionConfig::default(),
            audit: AuditConfig::default(),
            cluster: ClusterConfig::default(),
            storage: StorageConfig::default(),
            limits: Limits::default(),
            log: LogConfig::default(),
            shutdown_grace_ms: 5_000,
        }
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            engine: EngineKind::Rocksdb,
            shards: 4,
            snapshot_every_bytes: 128 << 20,
            log_cache_bytes: 16 << 20,
            state_memtable_bytes: 64 << 20,
            block_cache_bytes: 128 << 20,
            scrub_bytes_per_second: 16 << 20,
            scrub_interval_ms: 24 * 3_600_000,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 1 << 20,
            max_batch_messages: 1_000,
            max_batch_bytes: 4 << 20,
            max_queued_bytes: 64 << 20,
            max_stream_requests: 64,
            max_credit_messages: 65_536,
            max_credit_bytes: 64 << 20,
            max_unacknowledged: 65_536,
            credit_timeout_ms: 60_000,
            max_inbox_messages: 1_000_000,
            max_inbox_bytes: 1 << 30,
            max_dead_letters_per_sandbox: 100_000,
            dedupe_window_ms: 7 * 24 * 3_600_000,
            max_topics_per_workspace: 10_000,
            max_api_keys: 1_000,
            max_tokens: 100_000,
            max_follows_per_sandbox: 256,
            max_sandboxes_per_workspace: 100_000,
            max_workspaces_per_shard: 10_000,
            request_timeout_ms: 60_000,
            max_connections_per_host: 5_000,
            max_connections: 10_000,
            max_streams: 20_000,
            heartbeat_timeout_ms: 30_000,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info,openraft=error".into(), format: LogFormat::Text }
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A single setting cannot be.
    #[error("setting {key} = {value}: {reason}")]
    Setting {
        /// The key, with dots.
        key: String,
        /// The value as it was given.
        value: String,
        /// What is wrong.
        reason: String,
    },
    /// A value is out of its range.
    #[error("setting {key} is {value}; it must be {expected}")]
    Value {
        /// The key in the file.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

impl Config {
    /// Checks every range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        check("node_id", self.node_id, self.node_id >= 1, "1 or more")?;
        self.cluster.validate(self.node_id)?;
        check("storage.shards", self.storage.shards, (1..=64).contains(&self.storage.shards), "1 to 64")?;
        let snapshot = self.storage.snapshot_every_bytes;
        check("storage.snapshot_every_bytes", snapshot, snapshot >= 1 << 20, "1 MiB or more")?;
        let pause = self.storage.scrub_interval_ms;
        check("storage.scrub_interval_ms", pause, pause >= 1_000, "1,000 or more")?;
        let message = limits.max_message_bytes;
        check("limits.max_message_bytes", message, (1..=8 << 20).contains(&message), "1 byte to 8 MiB")?;
        let batch = limits.max_batch_messages;
        check("limits.max_batch_messages", batch, (1..=10_000).contains(&batch), "1 to 10,000")?;
        let bytes = limits.max_batch_bytes;
        check("limits.max_batch_bytes", bytes, (message..=16 << 20).contains(&bytes), "max_message_bytes to 16 MiB")?;
        let queued = limits.max_queued_bytes;
        check("limits.max_queued_bytes", queued, (bytes..=1 << 30).contains(&queued), "max_batch_bytes to 1 GiB")?;
        check("limits.max_stream_requests", limits.max_stream_requests, limits.max_stream_requests >= 1, "1 or more")?;
        let leases = limits.max_unacknowledged;
        check("limits.max_unacknowledged", leases, (1..=1 << 20).contains(&leases), "1 to 1,048,576")?;
        let timeout = limits.request_timeout_ms;
        check("limits.request_timeout_ms", timeout, timeout >= 100, "100 or more")?;
        let connections = limits.max_connections_per_host;
        check("limits.max_connections_per_host", connections, connections >= 1, "1 or more")?;
        let connections = limits.max_connections;
        check("limits.max_connections", connections, connections >= 1, "1 or more")?;
        check("limits.max_streams", limits.max_streams, limits.max_streams >= 1, "1 or more")?;
        if !self.default_workspace.is_empty() {
            crate::field::id("default_workspace", &self.default_workspace).map_err(|rejection| ConfigError::Value {
                key: "default_workspace",
                value: rejection.text,
                expected: "an id, or empty",
            })?;
        }
        self.tls.validate([self.listen, self.metrics_listen], !self.cluster.members.is_empty())?;
        self.encryption.validate()?;
        self.audit.validate()?;
        self.auth.validate()?;
        let certificates = self.auth.certificates.is_empty() || !self.tls.client_ca_file.as_os_str().is_empty();
        check(
            "tls.client_ca_file",
            "not set",
            certificates,
            "set where auth.certificates is: it says which certificates count",
        )
    }
}

fn check(key: &'static str, value: impl ToString, ok: bool, expected: &'static str) -> Result<(), ConfigError> {
    if ok { Ok(()) } else { Err(ConfigError::Value { key, value: value.to_string(), expected }) }
}
