//! Nodes of one process, and the connections between them, which a test can cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tandem_storage::Engine;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    sync::{mpsc, watch},
};

use super::journal::{Journal, commands, memory_states};
use crate::{
    Accept, Application, ClusterOptions, CommitMetrics, Dial, FatalError, FatalSink, Group, Introduction, Node,
    NodeOptions, OpenState, PeerMetrics, Secret, Versions, Wire,
};

pub(crate) const NODES: [u64; 3] = [1, 2, 3];
/// Also those that may join later.
const EVERYBODY: std::ops::RangeInclusive<u64> = 1..=9;

/// Brings connections about.
#[derive(Default)]
pub(crate) struct Hub {
    doors: Mutex<BTreeMap<u64, mpsc::UnboundedSender<Box<dyn Wire>>>>,
    /// Pairs that cannot reach each other; everything between them is closed at once.
    cut: watch::Sender<BTreeSet<(u64, u64)>>,
    /// What comes for a node that asked lies unread.
    unread: watch::Sender<Option<u64>>,
    /// What a node asks is lost.
    unheard: Mutex<Option<u64>>,
}

impl Hub {
    pub(crate) fn cut_off(&self, node: u64) {
        self.cut.send_modify(|cut| cut.extend(EVERYBODY.flat_map(|other| [(node, other), (other, node)])));
    }

    pub(crate) fn heal(&self) {
        self.cut.send_modify(BTreeSet::clear);
    }

    /// Lets the answers that a node gets lie unread, as those of a process that is stopped.
    pub(crate) fn leave_unread(&self, node: u64) {
        self.unread.send_replace(Some(node));
    }

    /// Answers are read, one after the other; but nobody hears any more what the node asks, and nobody asks it.
    pub(crate) fn silence(&self, node: u64) {
        *self.unheard.lock() = Some(node);
        self.cut.send_modify(|cut| cut.extend(EVERYBODY.map(|other| (other, node))));
    }

    pub(crate) fn read_at_last(&self) {
        self.unread.send_replace(None);
    }
}

struct Door(mpsc::UnboundedReceiver<Box<dyn Wire>>);

impl Accept for Door {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Wire>>> {
        Box::pin(async {
            match self.0.recv().await {
                Some(wire) => Ok(wire),
                // The node is being stopped: nobody comes any more.
                None => std::future::pending().await,
            }
        })
    }
}

struct Caller(Arc<Hub>, u64);

impl Dial for Caller {
    fn dial<'a>(&'a self, node_id: u64, _address: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Wire>>> {
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let pair = (self.1, node_id);
            let mut cut = self.0.cut.subscribe();
            if cut.borrow_and_update().contains(&pair) {
                return Err(refused());
            }
            let door = self.0.doors.lock().get(&node_id).cloned().ok_or_else(refused)?;
            let (here, there) = tokio::io::duplex(1 << 20);
            let severed: BoxFuture<'static, ()> = Box::pin(async move {
                while !cut.borrow_and_update().contains(&pair) {
                    cut.changed().await.ok();
                }
            });
            door.send(Box::new(there)).map_err(|_| refused())?;
            let (hub, node, hold, slow) = (Arc::clone(&self.0), self.1, None, false);
            Ok(Box::new(Severable { stream: here, severed, hub, node, hold, slow }) as Box<dyn Wire>)
        })
    }
}

/// Less than two answers.
const PIECE_BYTES: usize = 32;

/// Ends when its pair is cut.
struct Severable {
    stream: DuplexStream,
    severed: BoxFuture<'static, ()>,
    hub: Arc<Hub>,
    node: u64,
    /// Nothing is read before this.
    hold: Option<BoxFuture<'static, ()>>,
    /// Reads little at a time.
    slow: bool,
}

impl Severable {
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(hold) = &mut self.hold {
                std::task::ready!(hold.as_mut().poll(context));
                self.hold = None;
            }
            let (mut unread, node) = (self.hub.unread.subscribe(), self.node);
            if *unread.borrow_and_update() != Some(node) {
                return Poll::Ready(());
            }
            self.slow = true;
            self.hold = Some(Box::pin(async move { drop(unread.wait_for(|unread| *unread != Some(node)).await) }));
        }
    }
}

impl AsyncRead for Severable {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.severed.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        std::task::ready!(self.poll_held(context));
        if !self.slow {
            return Pin::new(&mut self.stream).poll_read(context, buf);
        }
        let mut piece = [0; PIECE_BYTES];
        let mut piece = ReadBuf::new(&mut piece[..PIECE_BYTES.min(buf.remaining())]);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut piece))?;
        buf.put_slice(piece.filled());
        self.hold = Some(Box::pin(tokio::time::sleep(Duration::from_millis(2))));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Severable {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if *self.hub.unheard.lock() == Some(self.node) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Three nodes, of which some run, and nodes that join them.
pub(crate) struct Trio {
    pub(crate) hub: Arc<Hub>,
    pub(crate) dirs: BTreeMap<u64, tempfile::TempDir>,
    logs: BTreeMap<u64, Arc<dyn Engine>>,
    pub(crate) nodes: BTreeMap<u64, Node<Journal>>,
    fatals: BTreeMap<u64, FatalSink>,
    pub(crate) shards: u32,
    pub(crate) snapshot_every_bytes: u64,
    pub(crate) held_log_bytes: u64,
    pub(crate) snapshot_bytes_per_second: u64,
    pub(crate) metrics: BTreeMap<u64, PeerMetrics>,
    /// What nodes announce that do not come with this version.
    pub(crate) versions: BTreeMap<u64, Versions>,
    states: fn() -> Arc<dyn OpenState>,
}

impl Trio {
    /// Three nodes whose states are in memory, and whose logs outlive them.
    pub(crate) async fn start(shards: u32) -> Self {
        Self::with(shards, u64::MAX, memory_states).await
    }

    pub(crate) async fn with(shards: u32, snapshot_every_bytes: u64, states: fn() -> Arc<dyn OpenState>) -> Self {
        let (dirs, logs) = (BTreeMap::new(), BTreeMap::new());
        let (nodes, fatals) = (BTreeMap::new(), BTreeMap::new());
        let mut trio = Self {
            hub: Arc::default(),
            dirs,
            logs,
            nodes,
            fatals,
            shards,
            snapshot_every_bytes,
            held_log_bytes: 1 << 30,
            snapshot_bytes_per_second: 0,
            metrics: BTreeMap::new(),
            versions: BTreeMap::new(),
            states,
        };
        for id in NODES {
            trio.wipe(id);
            trio.run(id).await;
        }
        trio
    }

    /// Starts a node, with the log that it had.
    pub(crate) async fn run(&mut self, id: u64) {
        for _ in 0..200 {
            let fatal = FatalSink::default();
            self.fatals.insert(id, fatal.clone());
            match self.run_with_disk(id, &format!("disk-{id}"), fatal).await {
                // Whoever reads last closes the state that it had before; a process would have ended by then.
                Err(error) if error.code() == "STORAGE_LOCKED" => tokio::time::sleep(Duration::from_millis(50)).await,
                started => return started.unwrap(),
            }
        }
        panic!("the state of node {id} is never closed");
    }

    /// Fails the test when a node had to stop that should not have.
    pub(crate) fn expect_health(&self) {
        for (id, fatal) in &self.fatals {
            assert!(fatal.get().is_none(), "node {id} had to stop: {:?}", fatal.get());
        }
    }

    pub(crate) async fn run_with_disk(&mut self, id: u64, disk_id: &str, fatal: FatalSink) -> Result<(), FatalError> {
        let started = self.starting(id, disk_id, fatal).await?;
        self.nodes.insert(id, started);
        Ok(())
    }

    /// A node while it starts: several may do so at once.
    pub(crate) fn starting(
        &mut self,
        id: u64,
        disk_id: &str,
        fatal: FatalSink,
    ) -> impl Future<Output = Result<Node<Journal>, FatalError>> + use<> {
        let (door, queue) = mpsc::unbounded_channel();
        self.hub.doors.lock().insert(id, door);
        let own = self.introduction(id, disk_id);
        let cluster = ClusterOptions {
            own,
            secret: Secret::new(b"a secret of the test".to_vec()),
            joins: !NODES.contains(&id),
            members: NODES.into_iter().chain([id]).map(|id| (id, address(id))).collect(),
            dial: Arc::new(Caller(Arc::clone(&self.hub), id)),
            accept: Box::new(Door(queue)),
            metrics: self.metrics.entry(id).or_default().clone(),
        };
        let mut options = NodeOptions::new(id, self.dirs[&id].path().to_owned(), self.shards);
        options.snapshot_every_bytes = self.snapshot_every_bytes;
        options.held_log_bytes = self.held_log_bytes;
        options.snapshot_bytes_per_second = self.snapshot_bytes_per_second;
        (options.heartbeat_interval_ms, options.election_timeout_ms) = (50, 300);
        let log = Arc::clone(&self.logs[&id]);
        let states = (self.states)();
        async move {
            let apply = |_| Journal::default();
            Node::start_member(&options, cluster, log, states, apply, CommitMetrics::default(), fatal).await
        }
    }

    /// What a new node asks with.
    pub(crate) fn application(&self, id: u64) -> Application {
        Application {
            own: Introduction { cluster_id: String::new(), ..self.introduction(id, &format!("disk-{id}")) },
            secret: Secret::new(b"a secret of the test".to_vec()),
            members: NODES.into_iter().chain([id]).map(|id| (id, address(id))).collect(),
            dial: Arc::new(Caller(Arc::clone(&self.hub), id)),
        }
    }

    fn introduction(&self, id: u64, disk_id: &str) -> Introduction {
        Introduction {
            cluster_id: "test".into(),
            node_id: id,
            disk_id: disk_id.into(),
            shards: self.shards,
            service_address: format!("service-{id}"),
            versions: self.versions.get(&id).copied().unwrap_or_default(),
        }
    }

    /// Ends a node.
    pub(crate) async fn stop(&mut self, id: u64) {
        self.hub.doors.lock().remove(&id);
        self.nodes.remove(&id).unwrap().shutdown().await.unwrap();
    }

    /// Waits until a node that was taken out says so, and ends it.
    pub(crate) async fn expect_removal(&mut self, id: u64) {
        self.expect_fatal(id, "NODE_REMOVED").await;
    }

    /// Waits until a node says that it must stop, and ends it.
    pub(crate) async fn expect_fatal(&mut self, id: u64, code: &str) -> FatalError {
        let fatal = self.fatals.remove(&id).unwrap();
        let reason = tokio::time::timeout(Duration::from_secs(60), fatal.wait()).await.unwrap();
        assert_eq!(reason.code(), code, "{reason}");
        self.stop(id).await;
        reason
    }

    /// Whether a node had to stop.
    pub(crate) fn has_ended(&self, id: u64) -> bool {
        self.fatals.get(&id).is_some_and(|fatal| fatal.get().is_some())
    }

    /// The first of some nodes that ends, each of which may lead.
    pub(crate) async fn expect_fatal_of(&mut self, ids: &[u64], code: &str) -> FatalError {
        let ends = ids.iter().map(|id| {
            let fatal = self.fatals[id].clone();
            Box::pin(async move { (*id, fatal.wait().await) })
        });
        let first = tokio::time::timeout(Duration::from_secs(60), futures_util::future::select_all(ends)).await;
        let ((id, reason), ..) = first.unwrap();
        assert_eq!(reason.code(), code, "{reason}");
        self.fatals.remove(&id);
        self.stop(id).await;
        reason
    }

    /// An empty disk for a node that does not run.
    pub(crate) fn wipe(&mut self, id: u64) {
        self.logs.insert(id, Arc::new(tandem_storage::MemoryEngine::new(crate::LOG_SPACES)));
        self.dirs.insert(id, tempfile::tempdir().unwrap());
    }

    pub(crate) fn group(&self, id: u64, shard: u32) -> &Arc<Group<Journal>> {
        &self.nodes[&id].groups()[shard as usize]
    }

    /// The node that leads a shard and can prove it.
    pub(crate) async fn leader(&self, shard: u32) -> u64 {
        for _ in 0..12_000 {
            for (id, node) in &self.nodes {
                let group = &node.groups()[shard as usize];
                if group.leadership().borrow().is_leader && group.read_barrier().await.is_ok() {
                    return *id;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("shard {shard} has no leader within a minute");
    }

    pub(crate) fn journal(&self, id: u64, shard: u32) -> Vec<bytes::Bytes> {
        commands(self.group(id, shard).engine_for_tests().as_ref())
    }

    pub(crate) async fn shutdown(mut self) {
        self.expect_health();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.stop(id).await;
        }
    }
}

/// Where a node would be dialed.
pub(crate) fn address(id: u64) -> String {
    format!("peer-{id}:1")
}

/// Waits for a condition: for long enough that a slow machine may need several elections for it.
pub(crate) async fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(60_000, condition).await, "not within a minute: {what}");
}

/// Waits until every node that runs sees every other one.
pub(crate) async fn until_connected(trio: &Trio) {
    until("all are connected", || {
        trio.nodes.iter().all(|(own, node)| {
            let cluster = node.cluster().unwrap();
            trio.nodes.keys().all(|id| id == own || cluster.is_connected(*id))
        })
    })
    .await;
}

/// Whether a condition comes true in time.
pub(crate) async fn within(millis: u64, mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..millis.div_ceil(5) {
        if condition() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    condition()
}
