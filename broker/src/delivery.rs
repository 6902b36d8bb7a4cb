//! Hands messages to subscribers. Leader only, in memory only: leases and queues here can all be found again in the state.
//!
//! First deliveries cost no write. A lease lasts as long as the stream that holds it; an ack is a command like any other.
//! Locks: the table of inboxes before an inbox, never the other way round.

pub(crate) mod inbox;
mod keyed;
pub(crate) mod lane;
pub(crate) mod leases;
pub(crate) mod loader;
mod ready;
pub(crate) mod signals;
pub(crate) mod subscription;

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::{
    inbox::{Ended, InboxQueue},
    loader::{BatchCache, Loader},
    ready::EndedLease,
    signals::Signals,
};
use crate::{
    command::tick::Leased,
    machine::{Appended, Effect, park::Place},
    metrics::EventMetrics,
    query::{QueryError, StateReader},
    rejection::{Reason, Rejection},
    sealing::Sealer,
};

/// An inbox that somebody is subscribed to.
pub(crate) type SharedInbox = Arc<Mutex<InboxQueue>>;

/// By numbers that the broker gives out itself, so that nobody can choose what collides. What happens in the order of such a
/// map happens in the same order in every run of a simulation.
pub(crate) type ByNumber<V> = HashMap<u32, V, foldhash::fast::FixedState>;

/// Inboxes with subscribers, by workspace and sandbox. Others cost no memory.
type Table = ByNumber<ByNumber<SharedInbox>>;

/// Whether the lease of a leader holds in a term.
pub(crate) type Holds = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// The deliveries of one shard.
pub(crate) struct Delivery {
    reader: StateReader,
    /// Opens what is handed out.
    sealer: Arc<Sealer>,
    cache: Arc<BatchCache>,
    table: RwLock<Table>,
    stopping: AtomicBool,
    /// Another node leads the shard.
    following: AtomicBool,
    /// Whether nobody else can lead; without it, nobody can.
    holds: OnceLock<Holds>,
    /// The term in which this node leads.
    term: AtomicU64,
    /// A stream has found that it does not hold.
    held_back: Notify,
    pub(crate) signals: Arc<Signals>,
    events: EventMetrics,
}

impl Delivery {
    /// Counts what happens with `events`.
    pub(crate) fn new(reader: StateReader, events: EventMetrics) -> Self {
        Self {
            reader,
            sealer: Arc::new(Sealer::none()),
            cache: Arc::default(),
            table: RwLock::default(),
            stopping: AtomicBool::new(false),
            following: AtomicBool::new(false),
            holds: OnceLock::new(),
            term: AtomicU64::new(0),
            held_back: Notify::new(),
            signals: Arc::default(),
            events,
        }
    }

    /// The same, where messages are encrypted.
    pub(crate) fn with_sealer(self, sealer: Arc<Sealer>) -> Self {
        Self { sealer, ..self }
    }

    /// Opens what is handed out, and seals what comes in.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Passes on what applied commands have caused. Called when their changes can be read.
    pub(crate) fn effects(&self, effects: impl Iterator<Item = Effect>) {
        for effect in effects {
            match effect {
                Effect::Appended(appended) => {
                    self.appended(&appended);
                    self.signals.append();
                }
                Effect::Ready(Place { workspace, sandbox, priority, sequence }) => {
                    if let Some(inbox) = self.find(workspace, sandbox) {
                        inbox.lock().push_ready(priority, sequence);
                    }
                }
                Effect::Left { place: Place { workspace, sandbox, priority, sequence }, ordering } => {
                    if let Some(inbox) = self.find(workspace, sandbox) {
                        inbox.lock().left(priority, sequence, ordering);
                    }
                }
                Effect::LeftBefore { place: Place { workspace, sandbox, sequence, .. }, ordering } => {
                    if let Some(inbox) = self.find(workspace, sandbox) {
                        inbox.lock().left_before(sequence, ordering);
                    }
                }
                Effect::Expired { workspace, sandbox, ranges } => {
                    if let Some(inbox) = self.find(workspace, sandbox) {
                        inbox.lock().expired(&ranges);
                    }
                }
                Effect::Scheduled { time_ms } => self.signals.schedule(time_ms),
                Effect::Event { kind, count } => {
                    self.events.count(kind, count);
                    self.signals.event();
                }
                Effect::Answered { workspace, sandbox, correlation } => {
                    self.signals.answered((workspace, sandbox, correlation));
                }
                Effect::FollowsChanged { workspace, sandbox } => {
                    if let Some(inbox) = self.find(workspace, sandbox) {
                        inbox.lock().end(Ended::FollowsChanged);
                    }
                }
                Effect::TopicGone { workspace } => {
                    let table = self.table.read();
                    for inbox in table.get(&workspace).into_iter().flat_map(ByNumber::values) {
                        inbox.lock().end(Ended::FollowsChanged);
                    }
                }
                Effect::SandboxGone { workspace, sandbox } => {
                    if let Some(inbox) = self.find(workspace, sandbox) {
                        inbox.lock().end(Ended::Gone);
                    }
                }
                Effect::WorkspaceGone { workspace } => {
                    let inboxes = self.table.write().remove(&workspace).unwrap_or_default();
                    inboxes.values().for_each(|inbox| inbox.lock().end(Ended::Gone));
                }
            }
        }
    }

    /// Joins the inbox of a sandbox, as one more stream.
    pub(crate) fn open(&self, workspace_name: &str, sandbox_name: &str) -> Result<SharedInbox, QueryError> {
        let workspace = self.reader.workspace(workspace_name)?;
        let sandbox = self.reader.sandbox(workspace.number, sandbox_name)?;
        let inbox = {
            let mut table = self.table.write();
            let inboxes = table.entry(workspace.number).or_default();
            let known = inboxes.get(&sandbox.number).cloned();
            if known.as_ref().is_some_and(|inbox| inbox.lock().waits_for_acks()) {
                let text = format!("acks of sandbox {sandbox_name:?} are still being settled; subscribe again");
                return Err(Rejection::new(Reason::Overloaded, text).into());
            }
            let known = known.filter(|inbox| inbox.lock().ended.is_none());
            let inbox = known.unwrap_or_else(|| self.new_inbox(workspace.number, sandbox.number, sandbox_name));
            inboxes.insert(sandbox.number, Arc::clone(&inbox));
            inbox.lock().streams += 1;
            inbox
        };
        // In the table first, then read: what is appended in between is either in what is read or pushed afterwards.
        let loaded = self.load(&inbox, workspace_name, sandbox_name);
        if loaded.is_err() {
            self.close(&inbox);
        }
        loaded.map(|()| inbox)
    }

    fn load(&self, inbox: &SharedInbox, workspace_name: &str, sandbox_name: &str) -> Result<(), QueryError> {
        let mut queue = inbox.lock();
        let workspace = self.reader.workspace(workspace_name)?;
        let state = self.reader.inbox(queue.loader.workspace, queue.loader.sandbox)?;
        let state = state.ok_or_else(|| Rejection::unknown_sandbox(sandbox_name))?;
        queue.load(&state, &workspace)?;
        if self.stopping.load(Ordering::Acquire) {
            queue.end(Ended::ShuttingDown);
        }
        if self.following.load(Ordering::Acquire) {
            queue.end(Ended::LeaderChanged);
        }
        Ok(())
    }

    /// A stream of this inbox has ended, or an ack has come back.
    pub(crate) fn close(&self, inbox: &SharedInbox) {
        let key = {
            let mut queue = inbox.lock();
            queue.streams -= 1;
            queue.wake();
            (queue.loader.workspace, queue.loader.sandbox)
        };
        self.forget_if_idle(key, inbox);
    }

    /// An ack or a nack that was on its way has an outcome. `ended` is what [`InboxQueue::ending`] said of it.
    pub(crate) fn ack_settled(&self, inbox: &SharedInbox, ended: &[EndedLease], durable: bool) {
        let (key, idle) = {
            let mut queue = inbox.lock();
            queue.settled(ended);
            if !durable {
                queue.end(Ended::AckFailed);
            }
            ((queue.loader.workspace, queue.loader.sandbox), queue.is_idle())
        };
        if idle {
            self.forget_if_idle(key, inbox);
        }
    }

    /// Whether somebody is subscribed to this sandbox.
    pub(crate) fn is_subscribed(&self, workspace: u32, sandbox: u32) -> bool {
        self.find(workspace, sandbox).is_some_and(|inbox| inbox.lock().streams > 0)
    }

    /// Sandboxes that somebody is subscribed to, with the number of their workspace.
    pub(crate) fn subscribed(&self) -> Vec<(u32, u32)> {
        let table = self.table.read();
        let inboxes = table.iter().flat_map(|(workspace, inboxes)| inboxes.iter().map(|pair| (*workspace, pair)));
        let alive = inboxes.filter(|(_, (_, inbox))| inbox.lock().streams > 0);
        let mut alive: Vec<_> = alive.map(|(workspace, (sandbox, _))| (workspace, *sandbox)).collect();
        // What becomes a command does not depend on the order of a table in memory.
        alive.sort_unstable();
        alive
    }

    /// Messages that somebody works on although their ttl has ended.
    pub(crate) fn leased_beyond_ttl(&self, now_ms: u64) -> Vec<Leased> {
        let table = self.table.read();
        let mut leased = Vec::new();
        for (workspace, inboxes) in table.iter() {
            for (sandbox, inbox) in inboxes {
                let found = inbox.lock().leased_beyond_ttl(now_ms).collect::<Vec<_>>();
                let leases = found.into_iter().map(|(lane, sequence)| Leased {
                    workspace: *workspace,
                    sandbox: *sandbox,
                    lane,
                    sequence,
                });
                leased.extend(leases);
            }
        }
        leased.sort_unstable_by_key(|leased| (leased.workspace, leased.sandbox, leased.sequence));
        leased
    }

    /// Inboxes that somebody is subscribed to.
    pub(crate) fn open_inboxes(&self) -> usize {
        self.table.read().values().map(ByNumber::len).sum()
    }

    /// Nothing is lent from now on while the lease of this leader does not hold: another one may have seen it acknowledged.
    pub(crate) fn lend_only_while(&self, holds: Holds) {
        self.holds.set(holds).ok();
    }

    /// Whether messages may be lent now.
    fn may_lend(&self) -> bool {
        let may = self.holds.get().is_none_or(|holds| holds(self.term.load(Ordering::Acquire)));
        if !may {
            self.held_back.notify_one();
        }
        may
    }

    /// Resolves when a stream waits for the lease.
    pub(crate) async fn held_back(&self) {
        self.held_back.notified().await;
    }

    /// Lets streams go on that wait for the lease.
    pub(crate) fn go_on(&self) {
        for inbox in self.table.read().values().flat_map(ByNumber::values) {
            inbox.lock().wake();
        }
    }

    /// This node leads the shard in a term: streams may be opened.
    pub(crate) fn begin(&self, term: u64) {
        self.term.store(term, Ordering::Release);
        self.following.store(false, Ordering::Release);
    }

    /// Another node leads the shard. All leases end, and every stream; what is not acknowledged is delivered again by the
    /// new leader.
    pub(crate) fn step_down(&self) {
        self.following.store(true, Ordering::Release);
        for inbox in self.table.read().values().flat_map(ByNumber::values) {
            inbox.lock().end(Ended::LeaderChanged);
        }
    }

    /// Ends all streams, and every one that is opened later.
    pub(crate) fn shut_down(&self) {
        self.stopping.store(true, Ordering::Release);
        for inbox in self.table.read().values().flat_map(ByNumber::values) {
            inbox.lock().end(Ended::ShuttingDown);
        }
    }

    /// Hands a batch to those who are subscribed. Each inbox gets all of its lanes under one lock: what is taken from it
    /// must not see one part of a batch without the other.
    fn appended(&self, appended: &Appended) {
        let table = self.table.read();
        let Some(inboxes) = table.get(&appended.workspace) else { return };
        if appended.shared.is_empty() {
            for runs in appended.direct.chunk_by(|(one, ..), (other, ..)| one == other) {
                if let Some(inbox) = inboxes.get(&runs[0].0) {
                    inbox.lock().push(appended, runs);
                }
            }
            return;
        }
        for (recipient, inbox) in inboxes {
            let from = appended.direct.partition_point(|(sandbox, ..)| sandbox < recipient);
            let to = appended.direct.partition_point(|(sandbox, ..)| sandbox <= recipient);
            inbox.lock().push(appended, &appended.direct[from..to]);
        }
    }

    fn find(&self, workspace: u32, sandbox: u32) -> Option<SharedInbox> {
        self.table.read().get(&workspace)?.get(&sandbox).cloned()
    }

    fn new_inbox(&self, workspace: u32, sandbox: u32, name: &str) -> SharedInbox {
        let loader = Loader { reader: self.reader.clone(), cache: Arc::clone(&self.cache), workspace, sandbox };
        Arc::new(Mutex::new(InboxQueue::new(loader, name.to_owned())))
    }

    fn forget_if_idle(&self, (workspace, sandbox): (u32, u32), inbox: &SharedInbox) {
        let mut table = self.table.write();
        let Some(inboxes) = table.get_mut(&workspace) else { return };
        let same = inboxes.get(&sandbox).is_some_and(|known| Arc::ptr_eq(known, inbox));
        if same && inbox.lock().is_idle() {
            inboxes.remove(&sandbox);
            if inboxes.is_empty() {
                table.remove(&workspace);
            }
        }
    }
}
