//! The way to each peer: dialed, and dialed again for as long as the node lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use tokio::{sync::watch, task::AbortHandle};

use super::{
    Dial,
    connection::Connection,
    frame::FrameReader,
    handshake::{self, Gate},
    refusal::{Refusal, RefusalCode},
};
use crate::{
    clock,
    error::{FatalError, FatalSink},
};

/// The first wait before a peer is dialed again; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(20);
/// The longest wait for a peer that cannot be reached.
const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// The wait after a refusal that stays until somebody changes a setting.
const REFUSED_WAIT: Duration = Duration::from_secs(2);

/// How long a node that finds others at all addresses it knows waits for somebody who knows better. They dial it at least
/// every `LONGEST_WAIT`.
const LEARN_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// The newest level that it can apply; 0 where it is not connected.
    pub newest_level: u32,
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
    dial: Arc<dyn Dial>,
    fatal: FatalSink,
    /// With the task that dials each.
    links: RwLock<BTreeMap<u64, (Arc<Link>, AbortHandle)>>,
    /// Whether a peer has been connected since this node started.
    met: AtomicBool,
    started: Instant,
    /// Counts connections that came about or ended.
    changes: watch::Sender<u64>,
}

impl Links {
    /// Begins to dial every other member. A node that all others refuse for good is told to stop through `fatal`.
    pub(crate) fn start(gate: Arc<Gate>, dial: &Arc<dyn Dial>, fatal: &FatalSink) -> Arc<Self> {
        let links = Arc::new(Self {
            gate,
            dial: Arc::clone(dial),
            fatal: fatal.clone(),
            links: RwLock::default(),
            met: AtomicBool::new(false),
            started: clock::now(),
            changes: watch::Sender::new(0),
        });
        links.follow_roll();
        links
    }

    /// Begins to dial whoever is a member by now, and parts with whoever is none any more.
    pub(crate) fn follow_roll(self: &Arc<Self>) {
        let members = self.gate.roster.members();
        let mut parted = Vec::new();
        {
            let mut links = self.links.write();
            links.retain(|node_id, (link, dialer)| {
                let stays = members.contains_key(node_id);
                if !stays {
                    dialer.abort();
                    parted.push(Arc::clone(link));
                }
                stays
            });
            for node_id in members.into_keys().filter(|id| *id != self.gate.own.node_id) {
                links.entry(node_id).or_insert_with(|| {
                    let link = Arc::new(Link { node_id, current: watch::Sender::new(None), seen: Mutex::default() });
                    let dialing = keep_connected(Arc::clone(&link), Arc::clone(&self.dial), Arc::downgrade(self));
                    (link, tokio::spawn(dialing).abort_handle())
                });
            }
        }
        for link in &parted {
            link.part();
        }
        self.changed();
    }

    fn link(&self, node_id: u64) -> Option<Arc<Link>> {
        self.links.read().get(&node_id).map(|(link, _)| Arc::clone(link))
    }

    /// Where goes what must stop the node.
    pub(super) fn fatal(&self) -> &FatalSink {
        &self.fatal
    }

    /// The connection to a node, if there is one right now.
    pub(crate) fn connection(&self, node_id: u64) -> Option<Arc<Connection>> {
        self.link(node_id)?.current.borrow().clone()
    }

    /// The members that are connected right now, and this node.
    pub(crate) fn connected(&self) -> BTreeSet<u64> {
        let links = self.links.read();
        let connected = links.values().filter(|(link, _)| link.current.borrow().is_some());
        connected.map(|(link, _)| link.node_id).chain([self.gate.own.node_id]).collect()
    }

    /// The newest level that each member can apply, as it says right now; none for one that is not connected.
    pub(crate) fn levels(&self) -> BTreeMap<u64, u32> {
        let own = &self.gate.own;
        let links = self.links.read();
        let said = links.values().filter_map(|(link, _)| {
            let level = link.current.borrow().as_ref()?.peer.versions.newest_level;
            Some((link.node_id, level))
        });
        said.chain([(own.node_id, own.versions.newest_level)]).collect()
    }

    /// The members that cannot apply a level, or do not say so.
    pub(crate) fn below(&self, needed: u32) -> Vec<u64> {
        let levels = self.levels();
        let members = self.gate.roster.members().into_keys();
        members.filter(|node| levels.get(node).is_none_or(|level| *level < needed)).collect()
    }

    /// Where a node serves clients, as it said when it was last connected.
    pub(crate) fn service_address(&self, node_id: u64) -> Option<String> {
        let address = self.link(node_id)?.seen.lock().1.clone();
        (!address.is_empty()).then_some(address)
    }

    /// All peers, for operators.
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let members = self.gate.roster.members();
        let status = |link: &Arc<Link>| {
            let (state, service_address) = link.seen.lock().clone();
            let peer_address = members.get(&link.node_id).cloned().unwrap_or_default();
            let newest_level = link.current.borrow().as_ref().map_or(0, |there| there.peer.versions.newest_level);
            PeerStatus { node_id: link.node_id, peer_address, service_address, state, newest_level }
        };
        self.links.read().values().map(|(link, _)| status(link)).collect()
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
        for (link, _) in self.links.read().values() {
            match &link.seen.lock().0 {
                // Where others live by now, one of them will dial this node, and show it who the members are.
                PeerState::Down(refusal)
                    if refusal.code == RefusalCode::WrongNode && self.started.elapsed() < LEARN_TIMEOUT =>
                {
                    return None;
                }
                PeerState::Down(refusal) if refusal.code.is_definite() => newest = Some(refusal.clone()),
                _ => return None,
            }
        }
        newest
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for (link, dialer) in self.links.read().values() {
            dialer.abort();
            link.part();
        }
    }
}

impl Link {
    fn part(&self) {
        if let Some(connection) = self.current.send_replace(None) {
            connection.close();
        }
    }
}

async fn keep_connected(link: Arc<Link>, dial: Arc<dyn Dial>, all: std::sync::Weak<Links>) {
    let mut wait = FIRST_WAIT;
    loop {
        let Some((gate, fatal)) = all.upgrade().map(|all| (Arc::clone(&all.gate), all.fatal.clone())) else { return };
        let outcome = tokio::time::timeout(handshake::TIMEOUT, connect(&gate, dial.as_ref(), link.node_id)).await;
        match outcome.unwrap_or_else(|_| Err(Refusal::broken(&"no answer in time"))) {
            Ok(connection) => {
                wait = FIRST_WAIT;
                *link.seen.lock() = (PeerState::Connected, connection.peer.service_address.clone());
                let protocol = gate.own.versions.agree(&connection.peer.versions).unwrap_or_default();
                tracing::info!(node = link.node_id, protocol, "connected to a peer");
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
            Err(refusal) => {
                if refusal.code == RefusalCode::Removed {
                    fatal.report(FatalError::Removed { detail: refusal.text.clone() });
                }
                wait = refused(&link, refusal, wait);
            }
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
    } else if news && refusal.code == RefusalCode::Tls {
        tracing::warn!(node = link.node_id, code = refusal.code.code(), %refusal, "a peer and this node do not agree on TLS");
    } else if news {
        tracing::debug!(node = link.node_id, %refusal, "a peer cannot be reached");
    }
    // A member that is a little behind does not know a new one yet.
    let stays = definite && refusal.code != RefusalCode::NotAMember;
    seen.0 = PeerState::Down(refusal);
    if stays { REFUSED_WAIT } else { wait.min(LONGEST_WAIT) }
}

async fn connect(gate: &Gate, dial: &dyn Dial, node_id: u64) -> Result<Arc<Connection>, Refusal> {
    let address = gate.roster.address(node_id).unwrap_or_default();
    let wire = dial.dial(node_id, &address).await.map_err(|error| Refusal::undialed(&error))?;
    let (read, mut write) = tokio::io::split(wire);
    let mut from = FrameReader::new(read, 0);
    let peer = handshake::dial(gate, node_id, &mut from, &mut write).await?;
    Ok(Connection::start(peer, from, write))
}
