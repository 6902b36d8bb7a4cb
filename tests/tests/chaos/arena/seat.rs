//! One seat: the node that sits there, its settings, and its process.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use tandem_broker::{Config, LogFormat};
use tandem_tests::broker_binary;

use super::{
    Arena,
    disk::Disk,
    process::{Ended, Process},
};

/// Where the broker of a seat listens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) grpc: SocketAddr,
    pub(crate) metrics: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// What never changes.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) number: usize,
    pub(crate) addresses: Addresses,
    pub(crate) folder: PathBuf,
    pub(crate) secret: PathBuf,
}

/// See the module.
pub(crate) struct Seat {
    pub(crate) place: Place,
    pub(crate) disk: Disk,
    /// None: nobody sits here.
    pub(crate) node_id: Option<u64>,
    joins: bool,
    pub(crate) process: Option<Process>,
    /// Its disk is or was full: it may stop.
    pub(crate) may_end: bool,
    /// It is taken out of the cluster: it is to stop.
    pub(crate) may_leave: bool,
    /// It was asked to stop, and will be started by who asked.
    pub(crate) stopping: bool,
}

impl Seat {
    pub(super) fn empty(place: Place, disk: Disk) -> Self {
        Self {
            place,
            disk,
            node_id: None,
            joins: false,
            process: None,
            may_end: false,
            may_leave: false,
            stopping: false,
        }
    }

    /// A new node, with nothing on its disk.
    pub(crate) fn take_place(&mut self, node_id: u64, joins: bool) {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(&data).unwrap();
        }
        (self.node_id, self.joins, self.may_leave, self.stopping) = (Some(node_id), joins, false, false);
    }

    /// Its node is none any more.
    pub(crate) fn leave(&mut self) {
        (self.node_id, self.process) = (None, None);
    }

    /// The file that libfaketime reads: how far the clock of this seat is off.
    pub(crate) fn clock(&self) -> PathBuf {
        self.place.folder.join("clock")
    }

    fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.place.folder.join(format!("node-{}.log", self.node_id.unwrap_or(0)))
    }

    fn config(&self, arena: &Arena) -> Config {
        let Addresses { grpc, metrics, peer } = self.place.addresses;
        let node_id = self.node_id.expect("somebody sits here");
        let mut config = Config { data_dir: self.data(), listen: grpc, metrics_listen: metrics, ..Config::default() };
        (config.auth.open, config.tls.allow_plain) = (true, true);
        config.node_id = node_id;
        config.default_workspace = String::new();
        config.shutdown_grace_ms = 1_000;
        config.storage.shards = 4;
        // Small, so that logs are purged and nodes that were away get snapshots.
        config.storage.snapshot_every_bytes = 2 << 20;
        config.storage.state_memtable_bytes = 8 << 20;
        config.storage.block_cache_bytes = 32 << 20;
        config.log.format = LogFormat::Json;
        config.cluster.id = "chaos".to_owned();
        config.cluster.members = arena.members(self.place.number, node_id, self.joins);
        config.cluster.join = self.joins;
        config.cluster.secret_file = self.place.secret.clone();
        config.cluster.peer_listen = peer.to_string();
        config
    }

    /// Starts the process; it may take a while until it serves.
    pub(crate) fn start(&mut self, arena: &Arena) {
        let data = self.data();
        // Members are read once, when the data directory is new; another list would only confuse who reads the file.
        let config = self.place.folder.join(format!("node-{}.toml", self.node_id.unwrap_or(0)));
        if !config.exists() || !data.exists() {
            fs::write(&config, toml::to_string(&self.config(arena)).unwrap()).unwrap();
        }
        let mut command = arena.network.command(self.place.number, &broker_binary());
        clean(&mut command);
        command.arg("--config").arg(config);
        super::disk::shift_clock(&mut command, &self.clock());
        self.stopping = false;
        self.process = Some(Process::spawn(command, self.log()));
    }

    pub(super) fn ended_by_itself(&mut self) -> Option<Ended> {
        let ended = self.process.as_mut()?.ended()?;
        self.process = None;
        (!self.may_end && !self.may_leave && !self.stopping).then_some(ended)
    }
}

/// Nothing of this process's settings reaches the broker.
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TANDEM_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
}
