//! Connections of clients: how many there may be, how long one may take to say what it speaks, and whose they are.

use std::{
    collections::HashMap,
    hash::Hash,
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    ops::SubAssign,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, stream};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::{
    auth::{Seen, refusals::Refusals},
    metrics::Metrics,
    rejection::{Reason, Rejection},
    tls::{self, ServerTls},
};

/// How long a client may take for the first bytes of HTTP/2; pings tell later whether it is still there.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// After a connection that could not be taken.
const PAUSE: Duration = Duration::from_millis(100);
/// The bytes that HTTP/2 begins with (RFC 9113).
const GREETING_BYTES: usize = 24;
/// Places beyond all others for connections of other nodes.
const KEPT_FOR_NODES: usize = 256;
/// What refusals of connections are about.
pub(crate) const CONNECTION: &str = "connection";
/// HTTP/2: a frame's header, the type of the last frame, and the error that is none.
const FRAME_HEADER: usize = 9;
const GOAWAY: u8 = 7;
const NO_ERROR: u32 = 0;

/// Whether there is another node at an address.
type IsNode = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;
/// How many connections a workspace may have; 0: any number.
type QuotaOf = Box<dyn Fn(&str) -> u32 + Send + Sync>;

/// Places for connections.
pub(crate) struct Connections {
    most: usize,
    most_of_a_host: usize,
    is_node: IsNode,
    quota_of: QuotaOf,
    open: AtomicUsize,
    metrics: Arc<Metrics>,
    refusals: Arc<Refusals>,
    of_hosts: Mutex<HashMap<IpAddr, usize>>,
    /// Of each workspace, as far as who is bound to it has opened them.
    of_workspaces: Mutex<HashMap<String, u32>>,
}

impl Connections {
    pub(crate) fn new(
        (most, most_of_a_host): (usize, usize),
        metrics: Arc<Metrics>,
        refusals: Arc<Refusals>,
        (is_node, quota_of): (IsNode, QuotaOf),
    ) -> Arc<Self> {
        let (open, of_hosts, of_workspaces) = (AtomicUsize::new(0), Mutex::default(), Mutex::default());
        Arc::new(Self { most, most_of_a_host, is_node, quota_of, open, of_hosts, metrics, refusals, of_workspaces })
    }

    /// A place for one more; None: there are as many as there may be.
    pub(crate) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        let place = Place { connections: Arc::clone(self), peer, workspaces: Mutex::default() };
        self.metrics.connections.inc();
        // The place gives back what it has taken, also one that is too many.
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        // What nodes pass on to each other goes on also when clients have taken all places.
        let for_nodes = || open < self.most + KEPT_FOR_NODES && (self.is_node)(peer.ip());
        let room = open < self.most || for_nodes();
        let of_host = {
            let mut hosts = self.of_hosts.lock();
            let count = hosts.entry(peer.ip()).or_default();
            *count += 1;
            *count
        };
        let text = if !room {
            format!("there are {} connections, as many as there may be (limits.max_connections)", self.most)
        } else if of_host > self.most_of_a_host && !for_nodes() {
            format!(
                "this host has {} connections, as many as one may have (limits.max_connections_per_host)",
                self.most_of_a_host
            )
        } else {
            return Some(place);
        };
        place.refuse(&Rejection::new(Reason::TooManyConnections, text));
        None
    }
}

/// A place among the connections, for as long as one is open.
pub(crate) struct Place {
    connections: Arc<Connections>,
    peer: SocketAddr,
    /// Those that somebody on this connection is bound to. Few: who connects is mostly one.
    workspaces: Mutex<Vec<String>>,
}

impl Place {
    /// Something is wrong with the connection itself, whoever it is of.
    fn refuse(&self, why: &Rejection) {
        tracing::debug!(peer = %self.peer, why = %why, "a connection is refused");
        self.connections.metrics.connections_refused.inc();
        let seen = Seen { address: self.peer.to_string(), request_id: String::new() };
        self.connections.refusals.add(("", ""), &seen, CONNECTION, why);
    }

    /// Somebody on this connection is bound to a workspace, whose quota may be used up.
    pub(crate) fn belongs_to(&self, workspace: &str) -> Result<(), Rejection> {
        let mut own = self.workspaces.lock();
        if own.iter().any(|known| known == workspace) {
            return Ok(());
        }
        let most = (self.connections.quota_of)(workspace);
        let mut all = self.connections.of_workspaces.lock();
        let count = all.entry(workspace.to_owned()).or_default();
        if most > 0 && *count >= most {
            let text = format!(
                "workspace {workspace:?} has {count} connections open here, and its quota is {most}; close one"
            );
            return Err(Rejection::new(Reason::QuotaExceeded, text));
        }
        *count += 1;
        own.push(workspace.to_owned());
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.metrics.connections.dec();
        forget_one(&mut self.connections.of_hosts.lock(), &self.peer.ip());
        let mut all = self.connections.of_workspaces.lock();
        for workspace in self.workspaces.get_mut() {
            forget_one(&mut all, workspace);
        }
    }
}

/// Counts one less.
fn forget_one<K: Eq + Hash, C: Copy + From<u8> + SubAssign + PartialEq>(counts: &mut HashMap<K, C>, of: &K) {
    if let Some(count) = counts.get_mut(of) {
        *count -= C::from(1);
        if *count == C::from(0) {
            counts.remove(of);
        }
    }
}

/// Where connections come from.
enum Source {
    Plain(TcpListener),
    Tls(tls::Connections),
}

impl Source {
    /// The next one; None: there will be no more.
    async fn next(&mut self, places: &Arc<Connections>) -> Option<Connection> {
        loop {
            match self {
                Self::Plain(listener) => match listener.accept().await {
                    Ok((stream, peer)) => {
                        // Without it a small answer waits up to 40 ms for the peer's delayed acknowledgement.
                        stream.set_nodelay(true).ok();
                        if let Some(place) = places.enter(peer) {
                            return Some(Connection::plain(stream, place));
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection of a client could not be taken");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Self::Tls(connections) => {
                    let (stream, peer) = connections.next().await?;
                    if let Some(place) = places.enter(peer) {
                        return Some(Connection::tls(stream, place));
                    }
                }
            }
        }
    }
}

/// Connections as they come.
pub(crate) fn arriving(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    places: Arc<Connections>,
) -> impl Stream<Item = io::Result<Connection>> {
    let from = match tls {
        None => Source::Plain(listener),
        Some(tls) => Source::Tls(tls.connections(listener)),
    };
    stream::unfold((from, places), |(mut from, places)| async move {
        let connection = from.next(&places).await?;
        Some((Ok(connection), (from, places)))
    })
}

/// What a request knows of its connection. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Arrived {
    pub(crate) place: Arc<Place>,
    /// Those that the client has shown, its own first; checked by then.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
}

impl Arrived {
    /// From where.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.place.peer
    }
}

/// A connection of a client.
pub(crate) struct Connection {
    stream: Bytes,
    arrived: Arrived,
    /// Bytes that are missing of the greeting, and for how long they may; None: it is said.
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
    /// Whether the next bytes that are written begin with a frame.
    at_frame: bool,
}

enum Bytes {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Without TLS.
    pub(crate) fn plain(stream: TcpStream, place: Place) -> Self {
        Self::new(Bytes::Plain(stream), place, Vec::new())
    }

    /// With TLS, after the handshake.
    pub(crate) fn tls(stream: TlsStream<TcpStream>, place: Place) -> Self {
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let certificates = shown.into_iter().map(CertificateDer::into_owned).collect();
        Self::new(Bytes::Tls(Box::new(stream)), place, certificates)
    }

    fn new(stream: Bytes, place: Place, certificates: Vec<CertificateDer<'static>>) -> Self {
        let greeting = Some((GREETING_BYTES, Box::pin(tokio::time::sleep(GREETING_TIMEOUT))));
        let arrived = Arrived { place: Arc::new(place), certificates: certificates.into() };
        Self { stream, arrived, greeting, at_frame: true }
    }

    /// Looks for the frame with which the server ends a connection that did what it must not.
    fn wrote(&mut self, bytes: &[u8], written: &Poll<io::Result<usize>>, offered: usize) {
        let Poll::Ready(Ok(written)) = written else { return };
        if self.at_frame
            && let Some(error) = ends_with_error(bytes)
        {
            let text = format!("the connection did what HTTP/2 does not allow, or too much of it (error {error})");
            self.arrived.place.refuse(&Rejection::new(Reason::ConnectionAbused, text));
        }
        self.at_frame = *written == offered;
    }
}

/// The error of a frame that ends the connection, if there is one in what begins with a frame.
fn ends_with_error(mut bytes: &[u8]) -> Option<u32> {
    while let Some((header, rest)) = bytes.split_at_checked(FRAME_HEADER) {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let (payload, rest) = rest.split_at_checked(length)?;
        if header[3] == GOAWAY {
            let error = payload.get(4..8)?.first_chunk().copied().map(u32::from_be_bytes)?;
            return Some(error).filter(|error| *error != NO_ERROR);
        }
        bytes = rest;
    }
    None
}

impl Connected for Connection {
    type ConnectInfo = Arrived;

    fn connect_info(&self) -> Arrived {
        self.arrived.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Bytes::Tls(stream) => Pin::new(stream).poll_read(context, into),
        };
        let Some((missing, late)) = &mut self.greeting else { return read };
        if read.is_ready() {
            *missing = missing.saturating_sub(into.filled().len() - before);
            if *missing == 0 {
                self.greeting = None;
            }
            return read;
        }
        ready!(late.as_mut().poll(context));
        let text = format!("the client did not say within {} s that it speaks HTTP/2", GREETING_TIMEOUT.as_secs());
        self.arrived.place.refuse(&Rejection::new(Reason::RequestTooSlow, text));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Bytes::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        self.wrote(bytes, &written, bytes.len());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Bytes::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        let offered = slices.iter().map(|slice| slice.len()).sum();
        self.wrote(slices.first().map_or(&[], |slice| slice), &written, offered);
        written
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Bytes::Plain(stream) => stream.is_write_vectored(),
            Bytes::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_flush(context),
            Bytes::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Bytes::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Bytes::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, 0, 0, 0, 0, 0], payload].concat()
    }

    #[test]
    fn the_frame_that_ends_a_connection_is_found() {
        let calm = frame(GOAWAY, &[0, 0, 0, 1, 0, 0, 0, 11]);
        let settings = frame(4, &[7; 12]);
        assert_eq!(ends_with_error(&[settings.clone(), calm.clone()].concat()), Some(11));
        assert_eq!(ends_with_error(&frame(GOAWAY, &[0; 8])), None, "an end in order");
        assert_eq!(ends_with_error(&settings), None);
        for cut in 0..calm.len() {
            assert_eq!(ends_with_error(&calm[..cut]), None, "cut at {cut}");
        }
    }

    fn connections(most: usize) -> Arc<Connections> {
        let is_node = |host: IpAddr| host == IpAddr::from([127, 0, 0, 9]);
        Connections::new((most, 3), Metrics::new(), Arc::default(), (Box::new(is_node), Box::new(|_| 1)))
    }

    async fn pair(place: Place) -> (Connection, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Connection::plain(listener.accept().await.unwrap().0, place), client)
    }

    fn peer() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 1))
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_ends() {
        let connections = connections(2);
        let (mut silent, _client) = pair(connections.enter(peer()).unwrap()).await;
        let (mut slow, mut talking) = pair(connections.enter(peer()).unwrap()).await;
        assert!(connections.enter(peer()).is_none(), "there are two");
        tokio::time::pause();
        talking.write_all(&[1; GREETING_BYTES]).await.unwrap();
        let mut greeting = [0; GREETING_BYTES];
        slow.read_exact(&mut greeting).await.unwrap();
        let ended = silent.read(&mut greeting).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        drop(silent);
        assert!(connections.enter(peer()).is_some());
        // Who has said it may be silent for as long as he answers pings.
        let waiting = tokio::time::timeout(10 * GREETING_TIMEOUT, slow.read(&mut greeting)).await;
        assert!(waiting.is_err());
        assert_eq!(connections.metrics.connections_refused.get(), 2);
    }

    #[test]
    fn one_host_does_not_take_the_places_of_all() {
        let connections = connections(10);
        let held: Vec<_> = (0..3).map(|_| connections.enter(peer()).unwrap()).collect();
        assert!(connections.enter(peer()).is_none());
        let other = connections.enter(SocketAddr::from(([127, 0, 0, 2], 1))).unwrap();
        drop(held);
        let held: Vec<_> = (10..19).map(|host| connections.enter(SocketAddr::from(([127, 0, 0, host], 1)))).collect();
        assert!(held.iter().all(Option::is_some) && connections.enter(peer()).is_none(), "there are ten");
        let node = connections.enter(SocketAddr::from(([127, 0, 0, 9], 1)));
        assert!(node.is_some(), "there is room for nodes still");
        drop((held, node));
        assert!(connections.enter(peer()).is_some());
        drop(other);
        assert!(connections.of_hosts.lock().is_empty());
    }

    #[test]
    fn connections_of_a_workspace_are_counted_once_and_given_back() {
        let connections = connections(10);
        let (one, two) = (connections.enter(peer()).unwrap(), connections.enter(peer()).unwrap());
        for _ in 0..3 {
            one.belongs_to("w").unwrap();
        }
        assert_eq!(two.belongs_to("w").unwrap_err().reason, Reason::QuotaExceeded);
        two.belongs_to("v").unwrap();
        drop(one);
        two.belongs_to("w").unwrap();
        drop(two);
        assert!(connections.of_workspaces.lock().is_empty());
        assert_eq!(connections.open.load(Ordering::Relaxed), 0);
    }
}
