//! What an operator says of encryption on the ports for clients.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{ConfigError, check};

/// TLS on the gRPC port and on the port of `/metrics`; that of the nodes among each other is in
/// [`ClusterConfig`](super::ClusterConfig).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate that clients are shown, as PEM, with those in between: valid for the hosts that clients use. With this and
    /// the next one both ports speak TLS 1.3 only. Read again when it changes.
    pub cert_file: PathBuf,
    /// The private key of that certificate, as PEM.
    pub key_file: PathBuf,
    /// Certificates of the authority that has signed those of all nodes, as PEM: for what nodes pass on to each other. Needed in
    /// a cluster.
    pub ca_file: PathBuf,
    /// Certificates of an authority as PEM: clients of the gRPC port must show one that it has signed. Empty: they need none. In
    /// a cluster the certificates of the nodes must be signed by it, too. The port of `/metrics` asks for none.
    pub client_ca_file: PathBuf,
    /// Whether clients may come without a certificate nevertheless, so that some have one and others a token. Default false.
    pub client_certs_optional: bool,
    /// Whether the broker may listen beyond loopback without TLS. Whoever can read the network then reads messages and
    /// tokens. Default false.
    pub allow_plain: bool,
}

impl TlsConfig {
    /// Whether the ports speak TLS.
    pub(crate) fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }

    pub(super) fn validate(&self, ports: [SocketAddr; 2], in_cluster: bool) -> Result<(), ConfigError> {
        let set = |file: &PathBuf| !file.as_os_str().is_empty();
        let both = set(&self.cert_file) == set(&self.key_file);
        check("tls.cert_file", self.cert_file.display(), both, "set together with tls.key_file")?;
        let needs = (!set(&self.ca_file) && !set(&self.client_ca_file)) || self.is_on();
        check("tls.cert_file", "not set", needs, "set where tls.ca_file or tls.client_ca_file is")?;
        let ca = !self.is_on() || !in_cluster || set(&self.ca_file);
        check("tls.ca_file", "not set", ca, "the authority of all nodes' certificates, because they pass on requests")?;
        for (key, port) in ["listen", "metrics_listen"].into_iter().zip(ports) {
            let fine = self.is_on() || self.allow_plain || port.ip().is_loopback();
            let expected = "a loopback address, unless tls.cert_file and tls.key_file encrypt what is said there, or \
                            tls.allow_plain = true says that nobody else can read it";
            check(key, port, fine, expected)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(cert: &str, key: &str, ca: &str) -> TlsConfig {
        TlsConfig { cert_file: cert.into(), key_file: key.into(), ca_file: ca.into(), ..TlsConfig::default() }
    }

    #[test]
    fn beyond_loopback_nothing_is_plain_that_nobody_has_called_so() {
        let (here, there) = ("127.0.0.1:1".parse().unwrap(), "0.0.0.0:1".parse().unwrap());
        let plain = TlsConfig::default();
        plain.validate([here, here], false).unwrap();
        for ports in [[there, here], [here, there]] {
            assert!(plain.validate(ports, false).unwrap_err().to_string().contains("tls.allow_plain"));
            TlsConfig { allow_plain: true, ..TlsConfig::default() }.validate(ports, true).unwrap();
            with("c", "k", "").validate(ports, false).unwrap();
        }
        assert!(with("c", "k", "").validate([here, here], true).unwrap_err().to_string().contains("tls.ca_file"));
        with("c", "k", "a").validate([here, here], true).unwrap();
        for half in [with("c", "", ""), with("", "k", ""), with("", "", "a")] {
            assert!(half.validate([here, here], false).is_err(), "{half:?}");
        }
    }
}
