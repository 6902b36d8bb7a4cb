//! What an operator says of the other nodes.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{ConfigError, check};

/// The cluster that a node belongs to. Without members a node is alone, and the rest means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// All nodes with their peer addresses, this one too: `["n1=10.0.0.1:7001", …]`. The voters of a new cluster, 3, 5 or 7
    /// of them; with `join` the members that may be asked. Later starts take only addresses from here: who the members are is
    /// what the cluster says. Default none.
    pub members: Vec<String>,
    /// Whether a new data directory joins the cluster of `members` instead of being a voter of a new one. It waits until
    /// `tandem cluster add` or `replace` names this node. Without effect on a data directory that is there. Default false.
    pub join: bool,
    /// Name of the cluster. Nodes with different ones do not talk to each other. Empty takes one that is made from
    /// `members`. Fixed with the data directory.
    pub id: String,
    /// File with the secret that the nodes share, 16 bytes or more. Needed unless all peer addresses are loopback.
    pub secret_file: PathBuf,
    /// Certificate that this node shows its peers, as PEM: valid for the host of its peer address. With this and the next two
    /// the peer port speaks TLS only; all nodes have them, or none. Read again for each connection.
    pub tls_cert_file: PathBuf,
    /// The private key of that certificate, as PEM.
    pub tls_key_file: PathBuf,
    /// Certificates of the authority that has signed those of all nodes, as PEM.
    pub tls_ca_file: PathBuf,
    /// Where this node listens for its peers. Empty takes its own entry in `members`.
    pub peer_listen: String,
    /// Where the other nodes reach this one's gRPC service, `host:port`. Empty takes `listen`, with the host of this
    /// node's peer address where that names no interface.
    pub advertise: String,
    /// Time between two heartbeats of a leader, in milliseconds. Default 50.
    pub heartbeat_interval_ms: u64,
    /// A follower that hears nothing from its leader calls an election after three to four times this many milliseconds.
    /// Default 150.
    pub election_timeout_ms: u64,
    /// How many bytes of snapshots leave this node in a second, for nodes that are too far behind for the log; 0 for no
    /// limit. Default 64 MiB.
    pub snapshot_bytes_per_second: u64,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            members: Vec::new(),
            join: false,
            id: String::new(),
            secret_file: PathBuf::new(),
            tls_cert_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            tls_ca_file: PathBuf::new(),
            peer_listen: String::new(),
            advertise: String::new(),
            heartbeat_interval_ms: 50,
            election_timeout_ms: 150,
            snapshot_bytes_per_second: 64 << 20,
        }
    }
}

/// Bytes of a secret at least.
pub(crate) const MIN_SECRET_BYTES: usize = 16;

impl ClusterConfig {
    /// Whether the peer port speaks TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls_files().iter().any(|file| !file.as_os_str().is_empty())
    }

    fn tls_files(&self) -> [&PathBuf; 3] {
        [&self.tls_cert_file, &self.tls_key_file, &self.tls_ca_file]
    }

    /// The members by id.
    pub(crate) fn addresses(&self) -> Result<BTreeMap<u64, String>, ConfigError> {
        let mut addresses = BTreeMap::new();
        for member in &self.members {
            let parsed = member.split_once('=').and_then(|(name, address)| {
                let id: u64 = name.trim().trim_start_matches('n').parse().ok()?;
                let (host, port) = address.trim().rsplit_once(':')?;
                let good = id >= 1 && !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0);
                good.then(|| (id, address.trim().to_owned()))
            });
            let expected = "a list like n1=host:port,n2=host:port,n3=host:port, with a different id for each";
            let wrong = || ConfigError::Value { key: "cluster.members", value: member.clone(), expected };
            let (id, address) = parsed.ok_or_else(wrong)?;
            if addresses.insert(id, address).is_some() {
                return Err(wrong());
            }
        }
        Ok(addresses)
    }

    pub(super) fn validate(&self, node_id: u64) -> Result<(), ConfigError> {
        let addresses = self.addresses()?;
        let expected = "a list like n1=host:port,n4=host:port, of members to ask and this node";
        check("cluster.members", format!("{} nodes", addresses.len()), !self.join || addresses.len() >= 2, expected)?;
        if addresses.is_empty() {
            return Ok(());
        }
        let count = addresses.len();
        check("cluster.members", format!("{count} nodes"), (2..=8).contains(&count), "2 to 8 nodes")?;
        check("node_id", node_id, addresses.contains_key(&node_id), "one of those in cluster.members")?;
        let named = self.tls_files().iter().filter(|file| !file.as_os_str().is_empty()).count();
        let expected = "set together with cluster.tls_key_file and cluster.tls_ca_file, or none of them";
        check("cluster.tls_cert_file", self.tls_cert_file.display(), named == 0 || named == 3, expected)?;
        let (heartbeat, election) = (self.heartbeat_interval_ms, self.election_timeout_ms);
        check("cluster.heartbeat_interval_ms", heartbeat, (10..=10_000).contains(&heartbeat), "10 to 10,000")?;
        let speed = self.snapshot_bytes_per_second;
        let expected = "1,048,576 (1 MiB) or more, or 0 for no limit";
        check("cluster.snapshot_bytes_per_second", speed, speed == 0 || speed >= 1 << 20, expected)?;
        let range = heartbeat * 2..=60_000;
        check(
            "cluster.election_timeout_ms",
            election,
            range.contains(&election),
            "twice the heartbeat interval to 60,000",
        )
    }
}

impl ClusterConfig {
    /// Whether these can be the voters of a new cluster: a number that an even one would not be better than.
    pub(crate) fn validate_bootstrap(&self) -> Result<(), ConfigError> {
        let count = self.members.len();
        let expected = "3, 5 or 7 nodes to make a new cluster of; to join one that is there, set cluster.join";
        check("cluster.members", format!("{count} nodes"), [0, 3, 5, 7].contains(&count), expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(list: &[&str]) -> ClusterConfig {
        ClusterConfig { members: list.iter().map(|text| (*text).to_owned()).collect(), ..ClusterConfig::default() }
    }

    #[test]
    fn members_have_ids_and_addresses() {
        let addresses = members(&["n1=a:1", "2=[::1]:2", " n3 = c:3 "]).addresses().unwrap();
        assert_eq!(addresses, BTreeMap::from([(1, "a:1".into()), (2, "[::1]:2".into()), (3, "c:3".into())]));
        for wrong in ["a:1", "n0=a:1", "n1=a", "n1=a:x", "n1=:1", "x=a:1", "n1=a:0"] {
            let error = members(&[wrong]).addresses().unwrap_err().to_string();
            assert!(error.contains("cluster.members") && error.contains(wrong), "{error}");
        }
        assert!(members(&["n1=a:1", "1=b:2"]).addresses().is_err(), "an id twice");
    }

    #[test]
    fn a_node_must_be_among_the_members_and_their_number_odd() {
        let three = members(&["n1=a:1", "n2=a:2", "n3=a:3"]);
        three.validate(3).unwrap();
        assert!(three.validate(4).unwrap_err().to_string().contains("node_id is 4"));
        three.validate_bootstrap().unwrap();
        let two = members(&["n1=a:1", "n2=a:2"]);
        assert!(two.validate_bootstrap().unwrap_err().to_string().contains("2 nodes"));
        members(&[]).validate(9).unwrap();
        ClusterConfig { join: true, ..two }.validate(2).unwrap();
        let nobody = ClusterConfig { join: true, ..members(&["n1=a:1"]) };
        assert!(nobody.validate(1).unwrap_err().to_string().contains("members to ask"));
    }
}
