//! The way to each peer: dialed, and dialed again for as long as the node lives.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, task::AbortHandle};

use super::{
    Dial,
    connection::Connection,
    frame::FrameReader,
    handshake::{self, Gate},
    refusal::{Refusal, RefusalCode},
};
use crate::error::{FatalError, FatalSink};

/// The first wait before a peer is dialed again; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// The longest wait for a peer that cannot be reached.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// The wait after a refusal that stays until somebody changes a setting.
const REFUSED_WAIT: Duration = Duration::from_secs(2);

/// How things stand with a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PeerState {
    /// Not reached yet.
    #[default]
    Connecting,
    /// Connected.
    Connected,
    /// Not connected, and why.
    Down(Refusal),
}

/// A peer as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its id.
    pub node_id: u64,
    /// Where it is dialed.
    pub peer_address: String,
    /// Where it serves clients; empty until it was reached once.
    pub service_address: String,
    /// How things stand.
    pub state: PeerState,
}

/// The way to one peer.
pub(crate) struct Link {
    node_id: u64,
    current: watch::Sender<Option<Arc<Connection>>>,
    seen: Mutex<(PeerState, String)>,
}

/// The ways to all peers. Dialing ends when this is dropped.
pub(crate) struct Links {
    pub(crate) gate: Arc<Gate>,
    links: BTreeMap<u64, Arc<Link>>,
    dialers: Vec<AbortHandle>,
    /// Whether a peer has been connected since this node started.
    met: AtomicBool,
    /// Counts connections that came about or ended.
    changes: watch::Sender<u64>,
}

impl Links {
    /// Begins to dial every other member. A node that all others refuse for good is told to stop through `fatal`.
    pub(crate) fn start(gate: Arc<Gate>, dial: &Arc<dyn Dial>, fatal: &FatalSink) -> Arc<Self> {
        let others = gate.roster.members().keys().copied().filter(|id| *id != gate.own.node_id);
        let link = |node_id| Arc::new(Link { node_id, current: watch::Sender::new(None), seen: Mutex::default() });
        let links: BTreeMap<u64, Arc<Link>> = others.map(|node_id| (node_id, link(node_id))).collect();
        Arc::new_cyclic(|all: &std::sync::Weak<Self>| {
            let dialers = links.values().map(|link| {
                let (link, gate, dial) = (Arc::clone(link), Arc::clone(&gate), Arc::clone(dial));
                tokio::spawn(keep_connected(link, gate, dial, all.clone(), fatal.clone())).abort_handle()
            });
            let dialers = dialers.collect();
            Self { gate, links, dialers, met: AtomicBool::new(false), changes: watch::Sender::new(0) }
        })
    }

    /// The connection to a node, if there is one right now.
    pub(crate) fn connection(&self, node_id: u64) -> Option<Arc<Connection>> {
        self.links.get(&node_id)?.current.borrow().clone()
    }

    /// Where a node serves clients, as it said when it was last connected.
    pub(crate) fn service_address(&self, node_id: u64) -> Option<String> {
        let address = self.links.get(&node_id)?.seen.lock().1.clone();
        (!address.is_empty()).then_some(address)
    }

    /// All peers, for operators.
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let members = self.gate.roster.members();
        let status = |link: &Arc<Link>| {
            let (state, service_address) = link.seen.lock().clone();
            let peer_address = members.get(&link.node_id).cloned().unwrap_or_default();
            PeerStatus { node_id: link.node_id, peer_address, service_address, state }
        };
        self.links.values().map(status).collect()
    }

    /// Changes whenever a connection comes about or ends.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// The refusal, when every peer gave one that stays, and none was connected before: then it is this node that is wrong.
    fn refused_by_all(&self) -> Option<Refusal> {
        if self.met.load(Ordering::Relaxed) {
            return None;
        }
        let mut newest = None;
        for link in self.links.values() {
            match &link.seen.lock().0 {
                PeerState::Down(refusal) if refusal.code.is_definite() => newest = Some(refusal.clone()),
                _ => return None,
            }
        }
        newest
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.dialers.iter().for_each(AbortHandle::abort);
        for link in self.links.values() {
            if let Some(connection) = link.current.send_replace(None) {
                connection.close();
            }
        }
    }
}

async fn keep_connected(
    link: Arc<Link>,
    gate: Arc<Gate>,
    dial: Arc<dyn Dial>,
    all: std::sync::Weak<Links>,
    fatal: FatalSink,
) {
    let mut wait = FIRST_WAIT;
    loop {
        let outcome = tokio::time::timeout(handshake::TIMEOUT, connect(&gate, dial.as_ref(), link.node_id)).await;
        match outcome.unwrap_or_else(|_| Err(Refusal::broken(&"no answer in time"))) {
            Ok(connection) => {
                wait = FIRST_WAIT;
                *link.seen.lock() = (PeerState::Connected, connection.peer.service_address.clone());
                tracing::info!(node = link.node_id, "connected to a peer");
                link.current.send_replace(Some(Arc::clone(&connection)));
                all.upgrade().inspect(|all| {
                    all.met.store(true, Ordering::Relaxed);
                    all.changed();
                });
                connection.closed().await;
                link.current.send_replace(None);
                link.seen.lock().0 = PeerState::Down(Refusal::broken(&"the connection ended"));
                all.upgrade().inspect(|all| all.changed());
            }
            Err(refusal) => wait = refused(&link, refusal, wait),
        }
        let hopeless = all.upgrade().and_then(|all| all.refused_by_all());
        if let Some(refusal) = hopeless {
            fatal.report(FatalError::Refused { code: refusal.code.code(), detail: refusal.text });
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT.max(wait));
    }
}

/// Notes a refusal, logs it when it is news, and says how long to wait.
fn refused(link: &Link, refusal: Refusal, wait: Duration) -> Duration {
    let mut seen = link.seen.lock();
    let definite = refusal.code.is_definite();
    let news = seen.0 != PeerState::Down(refusal.clone());
    if news && definite {
        tracing::error!(node = link.node_id, code = refusal.code.code(), %refusal, "a peer and this node refuse each other");
    } else if news {
        tracing::debug!(node = link.node_id, %refusal, "a peer cannot be reached");
    }
    seen.0 = PeerState::Down(refusal);
    if definite { REFUSED_WAIT } else { wait.min(LONGEST_WAIT) }
}

async fn connect(gate: &Gate, dial: &dyn Dial, node_id: u64) -> Result<Arc<Connection>, Refusal> {
    let wire = dial.dial(node_id).await.map_err(|error| Refusal::new(RefusalCode::Broken, error.to_string()))?;
    let (read, mut write) = tokio::io::split(wire);
    let mut from = FrameReader::new(read, 0);
    let peer = handshake::dial(gate, node_id, &mut from, &mut write).await?;
    Ok(Connection::start(peer, from, write))
}
