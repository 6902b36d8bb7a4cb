//! TLS 1.3 on the REST port. The certificate is the one that is in its files by now: it changes without a restart, and
//! connections that are open stay as they are.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    clock,
    config::{ConfigError, TlsConfig},
};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The files are looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Certificate and key of the port.
pub(crate) struct Tls {
    settings: TlsConfig,
    current: Mutex<Current>,
}

struct Current {
    looked: Instant,
    /// When the files were changed.
    stamps: [Option<SystemTime>; 2],
    config: Arc<ServerConfig>,
}

impl Tls {
    /// None where the settings name no files. Those that they name must be readable now.
    pub(crate) fn new(settings: &TlsConfig) -> Result<Option<Arc<Self>>, ConfigError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let current = Current { looked: clock::now(), stamps: stamps(settings), config: load(settings)? };
        Ok(Some(Arc::new(Self { settings: settings.clone(), current: Mutex::new(current) })))
    }

    /// As the files are by now. Where they cannot be used, as they were.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock();
        let now = clock::now();
        if now.saturating_duration_since(current.looked) >= LOOK_AGAIN {
            current.looked = now;
            let stamps = stamps(&self.settings);
            if stamps != current.stamps {
                match load(&self.settings) {
                    Ok(config) => {
                        tracing::info!("the certificate is another one by now");
                        (current.config, current.stamps) = (config, stamps);
                    }
                    // Two files are not written at once: it is tried again.
                    Err(error) => tracing::warn!(%error, "the certificate has changed and cannot be used"),
                }
            }
        }
        Arc::clone(&current.config)
    }

    /// Shakes hands with who has connected.
    ///
    /// # Errors
    /// What the two do not agree on, or that it took too long.
    pub(crate) async fn shake_hands(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let handshake = TlsAcceptor::from(self.config()).accept(stream);
        tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await?
    }
}

fn stamps(settings: &TlsConfig) -> [Option<SystemTime>; 2] {
    [&settings.cert_file, &settings.key_file]
        .map(|file| std::fs::metadata(file).and_then(|found| found.modified()).ok())
}

fn load(settings: &TlsConfig) -> Result<Arc<ServerConfig>, ConfigError> {
    let TlsConfig { cert_file, key_file } = settings;
    let bad_chain = |error: &dyn std::fmt::Display| wrong("tls.cert_file", cert_file, error, "certificates as PEM");
    let chain: Vec<_> =
        CertificateDer::pem_file_iter(cert_file).and_then(Iterator::collect).map_err(|error| bad_chain(&error))?;
    if chain.is_empty() {
        return Err(bad_chain(&"it has none"));
    }
    let bad_key = |error: &dyn std::fmt::Display| {
        wrong("tls.key_file", key_file, error, "the private key of the certificate in tls.cert_file, as PEM")
    };
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| bad_key(&error))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| bad_key(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn wrong(key: &'static str, file: &Path, error: &dyn std::fmt::Display, expected: &'static str) -> ConfigError {
    ConfigError::Value { key, value: format!("{} ({error})", file.display()), expected }
}
