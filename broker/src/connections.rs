//! Connections of clients: how many there may be, how long one may take to say what it speaks, and whose they are.

mod farewell;
mod frames;

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, OnceLock,
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
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use self::{
    farewell::Farewell,
    frames::{Frames, Patience},
};
use crate::{
    auth::{Caller, Seen, refusals::Refusals},
    counts::{Counted, Counts},
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

/// Whether there is another node at an address.
type IsNode = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;
/// How many connections a workspace may have; 0: any number.
type QuotaOf = Box<dyn Fn(&str) -> u32 + Send + Sync>;

/// Places for connections.
pub(crate) struct Connections {
    most: usize,
    most_of_a_host: u32,
    is_node: IsNode,
    quota_of: QuotaOf,
    open: AtomicUsize,
    metrics: Arc<Metrics>,
    refusals: Arc<Refusals>,
    of_hosts: Arc<Counts<IpAddr>>,
    /// Of each workspace, as far as who is bound to it has opened them.
    of_workspaces: Arc<Counts<String>>,
}

impl Connections {
    pub(crate) fn new(
        (most, most_of_a_host): (usize, u32),
        metrics: Arc<Metrics>,
        refusals: Arc<Refusals>,
        (is_node, quota_of): (IsNode, QuotaOf),
    ) -> Arc<Self> {
        let (open, of_hosts, of_workspaces) = (AtomicUsize::new(0), Arc::default(), Arc::default());
        Arc::new(Self { most, most_of_a_host, is_node, quota_of, open, of_hosts, metrics, refusals, of_workspaces })
    }

    /// A place for one more; None: there are as many as there may be.
    pub(crate) fn enter(self: &Arc<Self>, peer: SocketAddr) -> Option<Place> {
        self.metrics.connections.inc();
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        // The place gives back what it has taken, also one that is too many.
        let mut place = Place {
            connections: Arc::clone(self),
            peer,
            of_host: None,
            workspaces: Mutex::default(),
            whose: OnceLock::new(),
        };
        match self.room(open, peer.ip()) {
            Ok(of_host) => place.of_host = Some(of_host),
            Err(text) => {
                place.refuse(&Rejection::new(Reason::TooManyConnections, text));
                return None;
            }
        }
        Some(place)
    }

    /// Whether there is room for one more of a host where so many are open; Err: what there are too many of.
    fn room(&self, open: usize, host: IpAddr) -> Result<Counted<IpAddr>, String> {
        // What nodes pass on to each other goes on also when clients have taken all places.
        let for_nodes = || open < self.most + KEPT_FOR_NODES && (self.is_node)(host);
        if open >= self.most && !for_nodes() {
            let most = self.most;
            return Err(format!("there are {most} connections, as many as there may be (limits.max_connections)"));
        }
        let entered = self.of_hosts.enter(&host, self.most_of_a_host);
        let entered = entered.or_else(|had| if for_nodes() { self.of_hosts.enter(&host, u32::MAX) } else { Err(had) });
        entered.map_err(|had| {
            format!("this host has {had} connections, as many as one may have (limits.max_connections_per_host)")
        })
    }
}

/// A place among the connections, for as long as one is open.
pub(crate) struct Place {
    connections: Arc<Connections>,
    peer: SocketAddr,
    of_host: Option<Counted<IpAddr>>,
    /// Those that somebody on this connection is bound to. Few: who connects is mostly one.
    workspaces: Mutex<Vec<Counted<String>>>,
    /// Who the certificate says it is, once somebody has asked.
    pub(crate) whose: OnceLock<Result<Option<Caller>, Rejection>>,
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
        if own.iter().any(|known| known.key() == workspace) {
            return Ok(());
        }
        let most = (self.connections.quota_of)(workspace);
        let limit = if most == 0 { u32::MAX } else { most };
        let counted = self.connections.of_workspaces.enter(&workspace.to_owned(), limit).map_err(|count| {
            let text = format!(
                "workspace {workspace:?} has {count} connections open here, and its quota is {most}; close one"
            );
            Rejection::new(Reason::QuotaExceeded, text)
        })?;
        own.push(counted);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.metrics.connections.dec();
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
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    arrived: Arrived,
    /// Bytes that are missing of the greeting, and for how long they may; None: it is said.
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
    coming: Frames,
    going: Frames,
    patience: Patience,
    /// Of a connection that is about to be ended.
    farewell: Option<Farewell>,
}

impl Connection {
    /// Without TLS.
    pub(crate) fn plain(stream: TcpStream, place: Place) -> Self {
        Self::new(Either::Left(stream), place, Vec::new())
    }

    /// With TLS, after the handshake.
    pub(crate) fn tls(stream: TlsStream<TcpStream>, place: Place) -> Self {
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        let certificates = shown.into_iter().map(CertificateDer::into_owned).collect();
        Self::new(Either::Right(Box::new(stream)), place, certificates)
    }

    fn new(
        stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
        place: Place,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Self {
        let greeting = Some((GREETING_BYTES, Box::pin(tokio::time::sleep(GREETING_TIMEOUT))));
        let arrived = Arrived { place: Arc::new(place), certificates: certificates.into() };
        let (coming, going) = (Frames::after(GREETING_BYTES), Frames::after(0));
        Self { stream, arrived, greeting, coming, going, patience: Patience::new(), farewell: None }
    }

    /// Bytes have come; false: there were too many frames among them that carry nothing.
    fn bears(&mut self, bytes: &[u8]) -> bool {
        let Self { coming, patience, .. } = self;
        let mut borne = true;
        coming.read(bytes, |frame| borne = borne && patience.bears(&frame));
        if !borne {
            let text =
                "the connection sent pings, settings, windows or empty frames without end, and nothing with them";
            self.arrived.place.refuse(&Rejection::new(Reason::ConnectionAbused, text));
        }
        borne
    }

    /// What becomes of something to be written; None: it is written.
    fn part(&mut self, context: &mut Context<'_>, offered: usize) -> Option<Poll<io::Result<usize>>> {
        let farewell = self.farewell.as_mut()?;
        let ended = farewell.poll(context, &mut self.stream, self.going.at_frame());
        match ended {
            Poll::Ready(error) => Some(Poll::Ready(Err(error))),
            // Nobody hears it any more.
            Poll::Pending if farewell.is_said() => Some(Poll::Ready(Ok(offered))),
            Poll::Pending if self.going.at_frame() => Some(Poll::Pending),
            Poll::Pending => None,
        }
    }

    /// Looks for what the library that speaks HTTP/2 answers by itself, where nobody else hears of it.
    fn has_written(&mut self, slices: &[IoSlice<'_>], written: &Poll<io::Result<usize>>) {
        let Poll::Ready(Ok(written)) = written else { return };
        let Self { going, patience, arrived, .. } = self;
        let mut left = *written;
        for slice in slices {
            let part = &slice[..left.min(slice.len())];
            left -= part.len();
            going.read(part, |frame| {
                patience.sent(&frame);
                if let Some(error) = frame.ends_with() {
                    let text =
                        format!("the connection did what HTTP/2 does not allow, or too much of it (error {error})");
                    arrived.place.refuse(&Rejection::new(Reason::ConnectionAbused, text));
                } else if frame.refuses_headers() {
                    let text = "the headers of a request were larger than any that are read";
                    arrived.place.refuse(&Rejection::new(Reason::HeadersTooLarge, text));
                }
            });
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arrived;

    fn connect_info(&self) -> Arrived {
        self.arrived.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(farewell) = &mut this.farewell {
            return farewell.poll(context, &mut this.stream, this.going.at_frame()).map(Err);
        }
        let before = into.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, into);
        if read.is_ready() && !this.bears(&into.filled()[before..]) {
            into.set_filled(before);
            let farewell = this.farewell.insert(Farewell::new());
            return farewell.poll(context, &mut this.stream, this.going.at_frame()).map(Err);
        }
        let Some((missing, late)) = &mut this.greeting else { return read };
        if read.is_ready() {
            *missing = missing.saturating_sub(into.filled().len() - before);
            if *missing == 0 {
                this.greeting = None;
            }
            return read;
        }
        ready!(late.as_mut().poll(context));
        let text = format!("the client did not say within {} s that it speaks HTTP/2", GREETING_TIMEOUT.as_secs());
        this.arrived.place.refuse(&Rejection::new(Reason::RequestTooSlow, text));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(ended) = self.part(context, slices.iter().map(|slice| slice.len()).sum()) {
            return ended;
        }
        let written = match slices {
            [only] => Pin::new(&mut self.stream).poll_write(context, only),
            _ => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        };
        self.has_written(slices, &written);
        if self.farewell.is_some() && self.going.at_frame() {
            // What is to be said last can be said now.
            context.waker().wake_by_ref();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

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
        assert!(connections.of_hosts.is_empty());
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
        assert!(connections.of_workspaces.is_empty());
        assert_eq!(connections.open.load(Ordering::Relaxed), 0);
    }
}
