//! What a node needs to be a member: addresses, the secret, a port for its peers.

use std::{collections::BTreeMap, fs, net::SocketAddr, sync::Arc};

use tandem_raft::{Accept, Application, ClusterOptions, Dial, Introduction, PeerMetrics, Secret, TcpDial, Versions};
use tokio::net::TcpListener;

use super::tls::{PeerTls, TlsAccept};
use crate::{
    auth::seal::Seal,
    config::{ClusterConfig, Config, ConfigError, cluster::MIN_SECRET_BYTES},
    data_dir::DataDir,
    error::StartError,
};

/// A node that is about to join its cluster: its port is bound, its settings are checked.
pub(crate) struct Membership {
    addresses: BTreeMap<u64, String>,
    secret: Secret,
    seal: Option<Seal>,
    listener: TcpListener,
    tls: Option<PeerTls>,
    advertise: String,
}

impl Membership {
    /// Binds the port for peers. None for a node that is alone.
    pub(crate) async fn prepare(
        config: &Config,
        data_dir: &mut DataDir,
        service: SocketAddr,
    ) -> Result<Option<Self>, StartError> {
        let cluster = ClusterConfig { members: data_dir.identity.members.clone(), ..config.cluster.clone() };
        let addresses = cluster.addresses()?;
        let Some(own) = addresses.get(&config.node_id).cloned() else { return Ok(None) };
        let listen = if cluster.peer_listen.is_empty() { &own } else { &cluster.peer_listen };
        let listener = bind(listen).await?;
        let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        if config.tls.is_on() && config.tls.ca_file.as_os_str().is_empty() {
            let expected = "the authority of all nodes' certificates, because they pass on requests";
            return Err(ConfigError::Value { key: "tls.ca_file", value: "not set".into(), expected }.into());
        }
        let secret = secret(&cluster, local)?;
        let seal = match config.auth.open {
            true => None,
            false if secret.is_empty() => {
                let expected = "a file with a secret that the nodes share, unless auth.open lets everyone in";
                return Err(ConfigError::Value { key: "cluster.secret_file", value: "not set".into(), expected }.into());
            }
            false => Some(Seal::new(&secret)),
        };
        let secret = Secret::new(secret);
        let advertise =
            if cluster.advertise.is_empty() { advertised(service, &own) } else { cluster.advertise.clone() };
        let tls = PeerTls::new(&cluster)?;
        let mut prepared = Self { addresses, secret, seal, listener, tls, advertise };
        if data_dir.identity.waits {
            prepared.join(data_dir, &own).await?;
        }
        Ok(Some(prepared))
    }

    /// With what nodes vouch for clients to each other; None where everyone may come.
    pub(crate) fn seal(&self) -> Option<Seal> {
        self.seal.clone()
    }

    /// Waits until the cluster takes this node in, and notes that in the data directory.
    async fn join(&mut self, data_dir: &mut DataDir, own_address: &str) -> Result<(), StartError> {
        let application = Application {
            own: self.introduction(data_dir),
            secret: self.secret.clone(),
            members: self.addresses.clone(),
            dial: self.dial(),
        };
        let node = data_dir.identity.node_id;
        let waiting = application.wait(|reason| {
            let command = format!("tandem cluster add {node} --peer {own_address}");
            tracing::warn!(code = reason.code.code(), %reason, command, "waiting for the cluster to take this node in, by add or replace");
        });
        let admission = waiting.await?;
        tracing::info!(cluster = admission.cluster_id, "the cluster takes this node in");
        data_dir.admit(admission.cluster_id, &admission.members)?;
        // Whom the settings say to be elsewhere is there.
        let told = admission.members.into_iter();
        self.addresses = told.map(|(id, address)| (id, self.addresses.remove(&id).unwrap_or(address))).collect();
        Ok(())
    }

    /// How other nodes are reached.
    fn dial(&self) -> Arc<dyn Dial> {
        match &self.tls {
            Some(tls) => Arc::new(tls.clone()),
            None => Arc::new(TcpDial),
        }
    }

    fn introduction(&self, data_dir: &DataDir) -> Introduction {
        let identity = &data_dir.identity;
        Introduction {
            cluster_id: identity.cluster_id.clone(),
            node_id: identity.node_id,
            disk_id: identity.disk_id.clone(),
            shards: identity.shards,
            service_address: self.advertise.clone(),
            versions: Versions::default(),
        }
    }

    /// What replication wants to know.
    pub(crate) fn options(self, data_dir: &DataDir, metrics: PeerMetrics) -> ClusterOptions {
        let (own, dial) = (self.introduction(data_dir), self.dial());
        ClusterOptions {
            own,
            secret: self.secret,
            joins: data_dir.identity.joined,
            dial,
            members: self.addresses,
            accept: match self.tls {
                Some(tls) => Box::new(TlsAccept::new(tls, self.listener)) as Box<dyn Accept>,
                None => Box::new(self.listener),
            },
            metrics,
        }
    }
}

async fn bind(address: &str) -> Result<TcpListener, StartError> {
    let failed = |reason: String| StartError::ListenForPeers { address: address.to_owned(), reason };
    TcpListener::bind(address).await.map_err(|error| failed(error.to_string()))
}

/// Where others reach the service: the port that it has, at a host that means something to them.
fn advertised(service: SocketAddr, own_peer_address: &str) -> String {
    if !service.ip().is_unspecified() {
        return service.to_string();
    }
    let host = own_peer_address.rsplit_once(':').map_or(own_peer_address, |(host, _)| host);
    format!("{host}:{}", service.port())
}

fn secret(cluster: &ClusterConfig, local: bool) -> Result<Vec<u8>, StartError> {
    let wrong = |value: String, expected| {
        StartError::Config(ConfigError::Value { key: "cluster.secret_file", value, expected })
    };
    let path = &cluster.secret_file;
    if path.as_os_str().is_empty() {
        if local {
            return Ok(Vec::new());
        }
        let expected = "a file with a secret that the nodes share, because this node listens beyond loopback";
        return Err(wrong("not set".into(), expected));
    }
    let shown = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| wrong(format!("{shown} ({error})"), "a file that can be read"))?;
    let trimmed = bytes.trim_ascii();
    if trimmed.len() < MIN_SECRET_BYTES {
        return Err(wrong(shown, "a file with a secret of 16 bytes or more"));
    }
    Ok(trimmed.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_an_address_that_means_something() {
        assert_eq!(advertised("10.0.0.1:8001".parse().unwrap(), "n1:7001"), "10.0.0.1:8001");
        assert_eq!(advertised("0.0.0.0:8001".parse().unwrap(), "n1:7001"), "n1:8001");
        assert_eq!(advertised("[::]:8001".parse().unwrap(), "[fe80::1]:7001"), "[fe80::1]:8001");
    }

    #[test]
    fn a_secret_is_needed_beyond_loopback_and_must_be_long() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        let with = |path: &std::path::Path| ClusterConfig { secret_file: path.to_owned(), ..ClusterConfig::default() };
        assert!(secret(&ClusterConfig::default(), true).is_ok());
        assert!(secret(&ClusterConfig::default(), false).unwrap_err().to_string().contains("beyond loopback"));
        assert!(secret(&with(&file), true).unwrap_err().to_string().contains("can be read"));
        fs::write(&file, "short\n").unwrap();
        let text = secret(&with(&file), true).unwrap_err().to_string();
        assert!(text.contains("16 bytes") && !text.contains("short\n"), "{text}");
        fs::write(&file, "0123456789abcdef\n").unwrap();
        assert_eq!(secret(&with(&file), false).unwrap(), b"0123456789abcdef");
    }
}
