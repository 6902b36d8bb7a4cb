//! The way from sandboxes to the broker: a port on the host's side of each of their networks, behind which bytes go on.
//!
//! With it the broker need not listen anywhere else, and a network needs one opening only. What goes on is not looked at. Where the
//! broker speaks TLS it begins here: in front of it is a bridge of this host that nobody else hears.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

/// How long the broker may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Connections of one network at once.
const MOST: usize = 4_096;
/// After an error of the system, such as too many open files.
const BREATH: Duration = Duration::from_millis(50);

/// Where bytes go.
#[derive(Clone)]
struct Beyond {
    host: String,
    port: u16,
    tls: Option<TlsConnector>,
}

/// The relays of all networks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Relays {
    beyond: Arc<Vec<Beyond>>,
    open: Arc<Mutex<HashMap<Ipv4Addr, JoinHandle<()>>>>,
}

impl Relays {
    /// `endpoints`: URLs of the broker. `ca_file`: whose signature counts; None: what the system trusts.
    ///
    /// # Errors
    /// What is wrong with an endpoint, or the file.
    pub(crate) fn new(endpoints: &[String], ca_file: Option<&Path>) -> Result<Self, String> {
        let mut beyond = Vec::new();
        for endpoint in endpoints {
            let wrong = || format!("{endpoint:?} is no URL such as http://127.0.0.1:8001");
            let uri: hyper::Uri = endpoint.parse().map_err(|_| wrong())?;
            let is_tls = uri.scheme_str() == Some("https");
            let host = uri.host().ok_or_else(wrong)?.trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
            let tls = is_tls.then(|| connector(ca_file)).transpose()?;
            beyond.push(Beyond { host, port, tls });
        }
        Ok(Self { beyond: Arc::new(beyond), open: Arc::default() })
    }

    /// Listens on an address of a network. Where somebody does already it is another control plane of this host, which is as good.
    pub(crate) async fn listen(&self, on: Ipv4Addr, port: u16) -> io::Result<()> {
        if self.open.lock().get(&on).is_some_and(|task| !task.is_finished()) {
            return Ok(());
        }
        let listener = match TcpListener::bind(SocketAddrV4::new(on, port)).await {
            Ok(listener) => listener,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(()),
            Err(error) => return Err(error),
        };
        let task = tokio::spawn(serve(listener, Arc::clone(&self.beyond)));
        if let Some(before) = self.open.lock().insert(on, task) {
            before.abort();
        }
        Ok(())
    }

    /// Does not listen there any more.
    pub(crate) fn close(&self, on: Ipv4Addr) {
        if let Some(task) = self.open.lock().remove(&on) {
            task.abort();
        }
    }
}

fn connector(ca_file: Option<&Path>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let file = ca_file.map_or_else(|| Path::new("/etc/ssl/certs/ca-certificates.crt").to_owned(), Path::to_owned);
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    for certificate in CertificateDer::pem_file_iter(&file).map_err(|error| wrong(&error))? {
        roots.add(certificate.map_err(|error| wrong(&error))?).map_err(|error| wrong(&error))?;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn serve(listener: TcpListener, beyond: Arc<Vec<Beyond>>) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut turn = 0_usize;
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "a relay cannot take a connection");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        turn = turn.wrapping_add(1);
        let beyond = Arc::clone(&beyond);
        tokio::spawn(async move {
            if let Err(error) = pass(client, &beyond, turn).await {
                tracing::debug!(%error, "a connection through a relay ended");
            }
            drop(place);
        });
    }
}

/// To one of the broker's nodes; those that do not answer are passed over.
async fn pass(client: TcpStream, beyond: &[Beyond], turn: usize) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut failed = io::Error::other("the broker has no address");
    for step in 0..beyond.len() {
        let to = &beyond[(turn + step) % beyond.len()];
        let server = match timeout(CONNECT, TcpStream::connect((to.host.as_str(), to.port))).await {
            Ok(Ok(server)) => server,
            Ok(Err(error)) => {
                failed = error;
                continue;
            }
            Err(_) => continue,
        };
        server.set_nodelay(true)?;
        let Some(tls) = &to.tls else { return both_ways(client, server).await };
        let name = ServerName::try_from(to.host.clone()).map_err(io::Error::other)?;
        match timeout(CONNECT, tls.connect(name, server)).await {
            Ok(Ok(server)) => return both_ways(client, server).await,
            Ok(Err(error)) => failed = error,
            Err(_) => {}
        }
    }
    tracing::warn!(error = %failed, "no node of the broker can be reached for a sandbox");
    Err(failed)
}

async fn both_ways(mut client: TcpStream, mut server: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Where a relay listens.
pub(crate) fn url(gateway: Ipv4Addr, port: u16) -> String {
    format!("http://{}", SocketAddr::from((gateway, port)))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_go_to_a_node_that_answers() {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoints: Vec<_> =
            [&dead, &node].map(|node| format!("http://{}", node.local_addr().unwrap())).into_iter().collect();
        drop(dead);
        let relays = Relays::new(&endpoints, None).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        relays.listen(Ipv4Addr::LOCALHOST, free).await.unwrap();
        relays.listen(Ipv4Addr::LOCALHOST, free).await.unwrap();
        for _ in 0..3 {
            let mut client = TcpStream::connect(("127.0.0.1", free)).await.unwrap();
            client.write_all(b"hello").await.unwrap();
            let (mut server, _) = node.accept().await.unwrap();
            let mut read = [0; 5];
            server.read_exact(&mut read).await.unwrap();
            server.write_all(&read).await.unwrap();
            client.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"hello");
        }
        relays.close(Ipv4Addr::LOCALHOST);
        tokio::time::timeout(Duration::from_secs(5), async {
            while TcpStream::connect(("127.0.0.1", free)).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        assert!(Relays::new(&["nowhere at all".to_owned()], None).is_err());
        assert!(Relays::new(&["https://h".to_owned()], Some(Path::new("/nowhere"))).is_err());
    }
}
