//! TLS 1.3 on the ports for clients. Certificates are used as they are in their files by now: they change without a restart, and
//! connections that are open stay as they are.

use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::{Certificate, ClientTlsConfig};

use crate::{
    clock,
    config::{ConfigError, TlsConfig},
    counts::Counts,
    pem::{authority, certificates, private_key, wrong},
};

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at once; who comes when there are more waits in the queue of the system.
const MAX_HANDSHAKES: usize = 1_024;
/// Of one host: who opens connections and says nothing keeps nobody else out.
const MAX_HANDSHAKES_OF_A_HOST: u32 = 64;
/// The files are looked at again after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// What the two ports speak, as handshakes call it.
pub(crate) const HTTP_2: &[u8] = b"h2";
pub(crate) const HTTP_1: &[u8] = b"http/1.1";

/// Certificate and key of the ports for clients.
pub(crate) struct ServerTls {
    settings: TlsConfig,
    protocol: &'static [u8],
    current: Mutex<Current>,
}

struct Current {
    looked: Instant,
    /// When the files were changed.
    stamps: [Option<SystemTime>; 3],
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// None where the settings name no files. Those that they name must be readable now.
    pub(crate) fn new(settings: &TlsConfig, protocol: &'static [u8]) -> Result<Option<Arc<Self>>, ConfigError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let current = Current { looked: clock::now(), stamps: stamps(settings), config: load(settings, protocol)? };
        Ok(Some(Arc::new(Self { settings: settings.clone(), protocol, current: Mutex::new(current) })))
    }

    /// As the files are by now. Where they cannot be used, as they were.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock();
        let now = clock::now();
        if now.saturating_duration_since(current.looked) >= LOOK_AGAIN {
            current.looked = now;
            let stamps = stamps(&self.settings);
            if stamps != current.stamps {
                match load(&self.settings, self.protocol) {
                    Ok(config) => {
                        tracing::info!("the certificate for clients is another one by now");
                        (current.config, current.stamps) = (config, stamps);
                    }
                    // Two files are not written at once: it is tried again.
                    Err(error) => tracing::warn!(%error, "the certificate for clients has changed and cannot be used"),
                }
            }
        }
        Arc::clone(&current.config)
    }

    /// Connections that have shaken hands, in the order in which they have. Ends with what takes them.
    pub(crate) fn connections(self: Arc<Self>, listener: TcpListener) -> Connections {
        let address = listener.local_addr();
        let (done, connections) = mpsc::channel(MAX_HANDSHAKES);
        tokio::spawn(accept(self, listener, done));
        Connections { address, connections }
    }
}

/// Connections with TLS.
pub(crate) struct Connections {
    address: io::Result<SocketAddr>,
    connections: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Connections {
    /// The next one that has shaken hands.
    pub(crate) async fn next(&mut self) -> Option<(TlsStream<TcpStream>, SocketAddr)> {
        self.connections.recv().await
    }
}

impl axum::serve::Listener for Connections {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.connections.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }
}

async fn accept(tls: Arc<ServerTls>, listener: TcpListener, done: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let places = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let hosts = Arc::<Counts<_>>::default();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = done.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection of a client could not be taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(host) = hosts.enter(&peer.ip(), MAX_HANDSHAKES_OF_A_HOST) else {
            tracing::debug!(%peer, "too many connections of this host do not finish their handshake");
            continue;
        };
        let (tls, done) = (Arc::clone(&tls), done.clone());
        tokio::spawn(async move {
            // Without it a small answer waits up to 40 ms for the peer's delayed acknowledgement.
            stream.set_nodelay(true).ok();
            let handshake = TlsAcceptor::from(tls.config()).accept(stream);
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await;
            drop((place, host));
            match shaken {
                Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                Ok(Err(error)) => tracing::debug!(%peer, %error, "a client and this node do not agree on TLS"),
                Err(_) => tracing::debug!(%peer, "a client did not finish its handshake"),
            }
        });
    }
}

/// When a file was changed.
fn stamp(file: &Path) -> Option<SystemTime> {
    std::fs::metadata(file).and_then(|found| found.modified()).ok()
}

fn stamps(settings: &TlsConfig) -> [Option<SystemTime>; 3] {
    [stamp(&settings.cert_file), stamp(&settings.key_file), stamp(&settings.client_ca_file)]
}

fn load(settings: &TlsConfig, protocol: &[u8]) -> Result<Arc<ServerConfig>, ConfigError> {
    let TlsConfig { cert_file, key_file, client_ca_file, .. } = settings;
    let chain = certificates("tls.cert_file", cert_file)?;
    let key = private_key("tls.key_file", key_file)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let bad_key = |error: rustls::Error| {
        wrong("tls.key_file", key_file, &error, "the private key of the certificate in tls.cert_file")
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(bad_key)?;
    let builder = if client_ca_file.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let authority = Arc::new(authority("tls.client_ca_file", client_ca_file)?);
        let verifier = WebPkiClientVerifier::builder_with_provider(authority, provider);
        let verifier = if settings.client_certs_optional { verifier.allow_unauthenticated() } else { verifier }.build();
        let expected = "certificates of an authority as PEM";
        builder.with_client_cert_verifier(
            verifier.map_err(|error| wrong("tls.client_ca_file", client_ca_file, &error, expected))?,
        )
    };
    let mut config = builder.with_single_cert(chain, key).map_err(bad_key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// How this node speaks to the ports for clients of others.
pub(crate) struct TowardsNodes {
    settings: TlsConfig,
    current: Mutex<Outgoing>,
}

struct Outgoing {
    looked: Instant,
    stamps: [Option<SystemTime>; 3],
    /// Rises when the files have changed.
    generation: u64,
    config: ClientTlsConfig,
}

impl TowardsNodes {
    /// None where they are plain. The files must be readable now.
    pub(crate) fn new(settings: &TlsConfig) -> Result<Option<Self>, ConfigError> {
        if !settings.is_on() || settings.ca_file.as_os_str().is_empty() {
            return Ok(None);
        }
        let (stamps, config) = (Self::stamps(settings), load_outgoing(settings)?);
        let current = Outgoing { looked: clock::now(), stamps, generation: 0, config };
        Ok(Some(Self { settings: settings.clone(), current: Mutex::new(current) }))
    }

    fn stamps(settings: &TlsConfig) -> [Option<SystemTime>; 3] {
        [stamp(&settings.cert_file), stamp(&settings.key_file), stamp(&settings.ca_file)]
    }

    /// As the files are by now, and how often they have changed. Where they cannot be used, as they were.
    pub(crate) fn config(&self) -> (u64, ClientTlsConfig) {
        let mut current = self.current.lock();
        let now = clock::now();
        if now.saturating_duration_since(current.looked) >= LOOK_AGAIN {
            current.looked = now;
            let stamps = Self::stamps(&self.settings);
            if stamps != current.stamps {
                match load_outgoing(&self.settings) {
                    Ok(config) => {
                        let generation = current.generation + 1;
                        *current = Outgoing { looked: now, stamps, generation, config };
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the certificates for other nodes have changed and cannot be used")
                    }
                }
            }
        }
        (current.generation, current.config.clone())
    }
}

fn load_outgoing(settings: &TlsConfig) -> Result<ClientTlsConfig, ConfigError> {
    // Read as what it must be, so that a mistake shows now.
    authority("tls.ca_file", &settings.ca_file)?;
    let read = |key: &'static str, file: &Path| {
        std::fs::read(file).map_err(|error| wrong(key, file, &error, "a file that can be read"))
    };
    let authority = Certificate::from_pem(read("tls.ca_file", &settings.ca_file)?);
    let own = tonic::transport::Identity::from_pem(
        read("tls.cert_file", &settings.cert_file)?,
        read("tls.key_file", &settings.key_file)?,
    );
    Ok(ClientTlsConfig::new().ca_certificate(authority).identity(own))
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
