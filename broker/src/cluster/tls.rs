//! Mutual TLS on the peer port: both sides show a certificate of the cluster's authority, and the one that was dialed shows
//! one for the host it was dialed at. TLS 1.3 only. Replication knows nothing of it: these are its `Dial` and `Accept`.
//!
//! Certificates are read anew for each connection: new files are used without a restart, and connections are few.
//! Connections that are open stay as they are.

mod dialed;

use std::{collections::HashMap, io, net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName, server::WebPkiClientVerifier};
use tandem_raft::{Accept, Dial, Refusal, RefusalCode, Wire};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use self::dialed::Dialed;
use crate::{
    config::{ClusterConfig, ConfigError},
    pem::{authority, certificates, private_key, wrong},
};

/// How long a connection may take to come about, its handshake included.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How long who is turned away may take until it has read why and goes, and how much of what it says meanwhile is read: within
/// `TIMEOUT`, because it takes a place.
const FAREWELL: Duration = Duration::from_secs(1);
const MAX_FAREWELL_BYTES: u64 = 64 << 10;
/// Handshakes with strangers at once.
const MAX_STRANGERS: usize = 64;
/// Hosts of which is known what was logged.
const MAX_TOLD: usize = 1_024;
/// The first byte of a TLS connection; no frame of the protocol between nodes begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// Where certificate, key and authority lie.
#[derive(Debug, Clone)]
pub(crate) struct PeerTls {
    settings: ClusterConfig,
}

type Sides = (Arc<ServerConfig>, Arc<ClientConfig>);

impl PeerTls {
    /// None where the settings name no files. Those that they name must be readable now.
    pub(crate) fn new(settings: &ClusterConfig) -> Result<Option<Self>, ConfigError> {
        if !settings.has_tls() {
            return Ok(None);
        }
        let tls = Self { settings: settings.clone() };
        tls.load()?;
        Ok(Some(tls))
    }

    fn load(&self) -> Result<Sides, ConfigError> {
        let ClusterConfig { tls_cert_file, tls_key_file, tls_ca_file, .. } = &self.settings;
        let certificates = certificates("cluster.tls_cert_file", tls_cert_file)?;
        let key = || private_key("cluster.tls_key_file", tls_key_file);
        let expected = "certificates of an authority as PEM";
        let authority = Arc::new(authority("cluster.tls_ca_file", tls_ca_file)?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let bad_ca = |error: &dyn std::fmt::Display| wrong("cluster.tls_ca_file", tls_ca_file, error, expected);
        let bad_key = |error: rustls::Error| {
            wrong(
                "cluster.tls_key_file",
                tls_key_file,
                &error,
                "the private key of the certificate in cluster.tls_cert_file",
            )
        };
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&authority), Arc::clone(&provider));
        let verifier = verifier.build().map_err(|error| bad_ca(&error))?;
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| bad_ca(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates.clone(), key()?)
            .map_err(bad_key)?;
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| bad_ca(&error))?
            .with_root_certificates(authority)
            .with_client_auth_cert(certificates, key()?)
            .map_err(bad_key)?;
        Ok((Arc::new(server), Arc::new(client)))
    }
}

/// What a node says of a connection that did not come about for the sake of TLS.
fn failed(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

impl Dial for PeerTls {
    fn dial<'a>(&'a self, node_id: u64, address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let (_, client) = self.load().map_err(|error| failed(error.to_string()))?;
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
            let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned()).map_err(|_| {
                failed(format!("the host {host:?} of node {node_id} is no name that a certificate can have"))
            })?;
            let connecting = async {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                TlsConnector::from(client).connect(name, stream).await.map_err(|error| {
                    failed(format!(
                        "node {node_id} at {address} and this node do not agree on TLS: {error}. Both need certificates of one \
                         authority (cluster.tls_ca_file), that of node {node_id} for the host {host}; or neither has them"
                    ))
                })
            };
            let stream = tokio::time::timeout(TIMEOUT, connecting).await.map_err(|_| io::ErrorKind::TimedOut)??;
            Ok(Box::new(Dialed::new(stream)) as Box<dyn Wire>)
        })
    }
}

/// Takes connections with TLS. Handshakes run beside each other: one that is slow holds up nobody.
pub(crate) struct TlsAccept {
    tls: PeerTls,
    listener: TcpListener,
    places: Arc<Semaphore>,
    told: Told,
    done: mpsc::Sender<Box<dyn Wire>>,
    wires: mpsc::Receiver<Box<dyn Wire>>,
}

impl TlsAccept {
    pub(crate) fn new(tls: PeerTls, listener: TcpListener) -> Self {
        let (done, wires) = mpsc::channel(MAX_STRANGERS);
        Self { tls, listener, places: Arc::new(Semaphore::new(MAX_STRANGERS)), told: Told::default(), done, wires }
    }
}

impl Accept for TlsAccept {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            loop {
                let stream = tokio::select! {
                    biased;
                    Some(wire) = self.wires.recv() => return Ok(wire),
                    accepted = self.listener.accept() => accepted?.0,
                };
                // Who comes when too many are not done is let go.
                let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else { continue };
                let (tls, done, told) = (self.tls.clone(), self.done.clone(), self.told.clone());
                tokio::spawn(async move {
                    let peer = stream.peer_addr().map(|peer| peer.ip());
                    match (tokio::time::timeout(TIMEOUT, welcome(tls, stream)).await, peer) {
                        (Ok(Ok(Some(wire))), peer) => {
                            peer.into_iter().for_each(|peer| told.forget(peer));
                            drop(done.send(wire).await);
                        }
                        (Ok(Err(error)), Ok(peer)) if told.is_news(peer, &error.to_string()) => {
                            tracing::warn!(%peer, %error, code = RefusalCode::Tls.code(), "a connection was refused");
                        }
                        _ => {}
                    }
                    drop(place);
                });
            }
        })
    }
}

/// What was logged last of each host that could not come in. It tries again for as long as it lives, and is told of once.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<HashMap<IpAddr, String>>>);

impl Told {
    /// Whether this has not been said of the host before.
    fn is_news(&self, peer: IpAddr, text: &str) -> bool {
        let mut told = self.0.lock();
        if told.len() >= MAX_TOLD && !told.contains_key(&peer) {
            told.clear();
        }
        told.insert(peer, text.to_owned()).as_deref() != Some(text)
    }

    /// It has come in: what goes wrong after that is news.
    fn forget(&self, peer: IpAddr) {
        self.0.lock().remove(&peer);
    }
}

/// Lets a node in. None for who goes without a word, as what only looks whether the port is open.
async fn welcome(tls: PeerTls, mut stream: TcpStream) -> io::Result<Option<Box<dyn Wire>>> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first[0] != TLS_HANDSHAKE {
        let text = "this node takes connections with TLS only; set cluster.tls_cert_file, tls_key_file and tls_ca_file on all nodes";
        stream.write_all(&Refusal::new(RefusalCode::Tls, text).on_wire()).await?;
        see_off(stream).await;
        return Err(failed("it came without TLS".to_owned()));
    }
    let (server, _) = tls.load().map_err(|error| failed(error.to_string()))?;
    match TlsAcceptor::from(server).accept(stream).into_fallible().await {
        Ok(stream) => Ok(Some(Box::new(stream))),
        // The alert that says why is on its way.
        Err((error, stream)) => {
            see_off(stream).await;
            Err(error)
        }
    }
}

/// Ends a connection after the last word. Who dialed has spoken first by then: a socket that is closed with something unread
/// resets the connection, and the other side may see that in place of the word.
async fn see_off(mut stream: TcpStream) {
    let gone = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MAX_FAREWELL_BYTES), &mut tokio::io::sink()).await
    };
    // It is turned away whatever comes of this.
    drop(tokio::time::timeout(FAREWELL, gone).await);
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
