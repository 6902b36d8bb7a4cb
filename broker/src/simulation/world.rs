//! Lets everything happen, one thing after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tandem_raft::{Change, FatalError};
use tokio::runtime::Runtime;

use super::{
    clients::{Clients, SANDBOXES, WORKSPACES, Wishes, log_after},
    draw::Draw,
    history::{Ended, Final},
    host::{self, Host, Shape, address},
    invariants,
    nemesis::{Fault, Nemesis},
    net::{Net, NodeId},
    observer::{self, Applied},
    publisher::Publisher,
    subscriber::Subscriber,
};
use crate::{clock, delivery::subscription, machine::keys, query::dead_letters::DeadFilter};

/// How long one round is, in microseconds.
const ROUND_US: u64 = 1_000;
const PUBLISHERS: usize = 6;

/// What is to be simulated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) shape: Shape,
    /// For how long faults happen, in milliseconds.
    pub(super) faults_ms: u64,
    pub(super) membership: bool,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) broken: Vec<String>,
    pub(super) trace: Vec<String>,
    pub(super) accepted: usize,
    pub(super) acknowledged: usize,
    pub(super) repeated: usize,
}

pub(super) struct World {
    plan: Plan,
    draw: Draw,
    now_us: u64,
    hosts: BTreeMap<NodeId, Host>,
    net: Net,
    clients: Arc<Clients>,
    runtime: Runtime,
    base: Instant,
    /// Nodes whose process is ending in order.
    stopping: BTreeSet<NodeId>,
    /// Nodes that were told to go.
    leaving: BTreeSet<NodeId>,
}

impl World {
    /// Simulates a cluster from its first start to its rest.
    pub(super) fn run(plan: Plan) -> Report {
        tandem_raft::simulation::seed(plan.seed);
        subscription::STALE_LEASES_COUNT.set(plan.shape.stale_leases_count);
        let mut world = Self::new(plan);
        let finished = world.live();
        let end = world.collect(finished.is_ok());
        let mut history = std::mem::take(&mut *world.clients.history.lock());
        let mut broken = invariants::broken(&history, &end);
        if let Err(what) = finished {
            broken.insert(0, format!("the cluster comes to rest: {what}"));
        }
        Report {
            broken,
            trace: std::mem::take(&mut history.trace),
            accepted: history.published.iter().filter(|one| matches!(one.ended, Ended::Accepted(_))).count(),
            repeated: history.repeated,
            acknowledged: history.acked.iter().filter(|acked| acked.confirmed.is_some()).count(),
        }
    }

    fn new(plan: Plan) -> Self {
        let mut draw = Draw::new(plan.seed);
        let base = clock::now();
        let net = Net::new(draw.split());
        let hosts = (1..=plan.shape.nodes).map(|id| (id, Host::new(id, plan.shape, base))).collect();
        let clients = Arc::new(Clients {
            doors: Default::default(),
            history: Default::default(),
            wishes: parking_lot::Mutex::new(Wishes { publishing: PUBLISHERS, ..Wishes::default() }),
        });
        let runtime = host::runtime(draw.next());
        let (stopping, leaving) = (BTreeSet::new(), BTreeSet::new());
        observer::take();
        Self { plan, draw, now_us: 0, hosts, net, clients, runtime, base, stopping, leaving }
    }

    fn live(&mut self) -> Result<(), String> {
        for host in self.hosts.values_mut() {
            host.start(&self.net, 0, self.draw.next());
        }
        let mut draw = self.draw.split();
        let clients = Arc::clone(&self.clients);
        let prepared = self.runtime.spawn(async move { clients.prepare(&mut draw).await });
        self.until("a cluster without faults can be used", 20_000, |_| prepared.is_finished())?;
        self.begin_work();
        let (mut draw, shape) = (self.draw.split(), self.plan.shape);
        let mut nemesis = Nemesis::new(draw.split(), shape.nodes, shape.shards, self.plan.membership);
        let until_us = self.now_us + self.plan.faults_ms * 1_000;
        while self.now_us < until_us {
            for fault in nemesis.step(self.now_us / 1_000) {
                self.cause(fault);
            }
            self.round();
        }
        self.rest()
    }

    fn begin_work(&mut self) {
        for number in 0..PUBLISHERS {
            let (clients, draw) = (Arc::clone(&self.clients), self.draw.split());
            let longest_pause_ms = self.draw.between(5, 80);
            self.runtime.spawn(Publisher { clients, number, draw, longest_pause_ms }.run());
        }
        for workspace in WORKSPACES {
            self.runtime.spawn(Arc::clone(&self.clients).read_on(workspace, self.draw.split()));
            for sandbox in SANDBOXES {
                let (clients, draw) = (Arc::clone(&self.clients), self.draw.split());
                let fails_percent = self.draw.between(0, 20);
                self.runtime.spawn(Subscriber { clients, workspace, sandbox, draw, fails_percent }.run());
            }
        }
    }

    /// No more faults: everything that was begun comes to its end.
    fn rest(&mut self) -> Result<(), String> {
        self.say("rest");
        self.cause(Fault::Heal);
        self.until("processes that end in order end", 20_000, |world| world.stopping.is_empty())?;
        self.cause(Fault::Restart);
        self.clients.wishes.lock().finish = true;
        self.rounds(3_000);
        self.leave_out_strangers();
        self.until("publishers learn what came of their messages", 30_000, |world| {
            world.clients.wishes().publishing == 0
        })?;
        self.rounds(2_000);
        {
            let mut history = self.clients.history.lock();
            history.settled = Some(history.now());
        }
        self.clients.wishes.lock().drain = true;
        self.until("inboxes become empty and replicas equal", 60_000, |world| {
            world.now_us.is_multiple_of(200_000) && world.is_at_rest()
        })
    }

    /// Ends nodes that asked to join in vain, or were taken out while they were away.
    fn leave_out_strangers(&mut self) {
        let roll = |world: &Self| {
            world.clients.doors.lock().values().map(|door| door.cluster.roll()).max_by_key(|roll| roll.revision)
        };
        let Some(members) = roll(self).filter(|roll| roll.revision > 0).map(|roll| roll.members) else { return };
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            if !members.contains_key(&id) {
                self.end(id, false);
                self.hosts.remove(&id);
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        let pending = |(workspace, sandbox)| self.pending(workspace, sandbox) == Some(0);
        let inboxes = WORKSPACES.iter().flat_map(|workspace| SANDBOXES.map(|sandbox| (*workspace, sandbox)));
        let mut applied: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        {
            let doors = self.clients.doors.lock();
            if !self.hosts.values().all(|host| doors.contains_key(&host.id) || self.may_be_away(host)) {
                return false;
            }
            for shard in doors.values().flat_map(|door| door.shards.iter()) {
                let status = shard.group.status();
                applied.entry(shard.group.shard()).or_default().extend([status.applied_index, status.last_log_index]);
            }
        }
        applied.values().all(|indexes| indexes.len() == 1) && inboxes.into_iter().all(pending)
    }

    /// A node that was told to go, or asked to join and may have been refused, has ended; any other one has to be back.
    fn may_be_away(&self, host: &Host) -> bool {
        !host.runs() && self.may_end(host.id)
    }

    fn may_end(&self, id: NodeId) -> bool {
        self.leaving.contains(&id) || id > self.plan.shape.nodes
    }

    fn pending(&self, workspace: &str, sandbox: &str) -> Option<u64> {
        let doors = self.clients.doors.lock();
        let reader = &doors.values().next()?.shards.of(workspace).reader;
        let record = reader.workspace(workspace).ok()?;
        Some(reader.named_sandbox(&record, sandbox).ok()?.pending)
    }

    fn until(&mut self, what: &str, within_ms: u64, mut done: impl FnMut(&Self) -> bool) -> Result<(), String> {
        for _ in 0..within_ms * 1_000 / ROUND_US {
            self.round();
            if done(self) {
                return Ok(());
            }
        }
        Err(format!("not within {within_ms} ms: {what}; {}", self.standing()))
    }

    fn rounds(&mut self, millis: u64) {
        (0..millis * 1_000 / ROUND_US).for_each(|_| self.round());
    }

    /// How things stand, for people.
    fn standing(&self) -> String {
        let doors = self.clients.doors.lock();
        let nodes = self.hosts.values().map(|host| match doors.get(&host.id) {
            Some(door) => {
                let shards: Vec<_> = door.shards.iter().map(|shard| shard.group.status()).collect();
                format!("node {}: {shards:?}", host.id)
            }
            None => format!("node {} runs: {}", host.id, host.runs()),
        });
        let mut standing: Vec<_> = nodes.collect();
        drop(doors);
        for (workspace, sandbox) in
            WORKSPACES.iter().flat_map(|workspace| SANDBOXES.map(|sandbox| (workspace, sandbox)))
        {
            if let Some(pending @ 1..) = self.pending(workspace, sandbox) {
                standing.push(format!("{pending} messages wait for {workspace}/{sandbox}"));
            }
        }
        standing.join("; ")
    }

    /// One millisecond of everything.
    fn round(&mut self) {
        self.now_us += ROUND_US;
        self.net.deliver(self.now_us);
        let mut order: Vec<NodeId> = self.hosts.keys().copied().collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.draw.below(at as u64 + 1) as usize);
        }
        for id in order {
            let Some(host) = self.hosts.get_mut(&id) else { continue };
            host.run_until(self.now_us);
            self.look_after(id);
        }
        observer::enter(0);
        clock::simulate(host::EPOCH_MS + self.now_us / 1_000, self.base + Duration::from_micros(self.now_us));
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_micros(ROUND_US)).await });
        self.observe();
    }

    /// Sees whether a process has come up, has ended, or should not have.
    fn look_after(&mut self, id: NodeId) {
        let Some(host) = self.hosts.get_mut(&id) else { return };
        let mut doors = self.clients.doors.lock();
        if !doors.contains_key(&id)
            && let Some(door) = host.door()
        {
            doors.insert(id, door);
        }
        drop(doors);
        let fatal = host.fatal();
        let stopped = self.stopping.contains(&id) && host.has_stopped();
        if fatal.is_none() && !stopped {
            return;
        }
        let is_told_so = |error: &FatalError| matches!(error.code(), "NODE_REMOVED" | "NODE_RETIRED" | "NOT_A_MEMBER");
        if let Some(error) = fatal
            && !(self.may_end(id) && is_told_so(&error))
            && !self.stopping.contains(&id)
        {
            let what = format!("node {id} had to stop: {} {error}", error.code());
            self.say(&what);
            self.clients.history.lock().stopped.push(what);
        }
        self.end(id, false);
    }

    fn end(&mut self, id: NodeId, power_lost: bool) {
        self.clients.doors.lock().remove(&id);
        self.stopping.remove(&id);
        if let Some(host) = self.hosts.get_mut(&id) {
            host.kill(&self.net, power_lost, &mut self.draw);
        }
    }

    fn say(&self, what: &str) {
        let line = format!("{:>9.3} {what}", self.now_us as f64 / 1e6);
        tracing::info!("{line}");
        self.clients.history.lock().trace.push(line);
    }

    /// Compares what nodes have applied, and who leads.
    fn observe(&mut self) {
        let mut history = self.clients.history.lock();
        for Applied { node, shard, index, hash } in observer::take() {
            history
                .trace
                .push(format!("{:>9.3} node {node} applied {shard}/{index} {hash:016x}", self.now_us as f64 / 1e6));
            let (first, by) = *history.applied.entry((shard, index)).or_insert((hash, node));
            if first != hash {
                let what = format!("nodes {by} and {node} applied different commands as {index} of shard {shard}");
                history.broken.push(what);
            }
        }
        for (id, door) in self.clients.doors.lock().iter() {
            for shard in door.shards.iter() {
                let seen = *shard.group.leadership().borrow();
                if !seen.is_leader {
                    continue;
                }
                // Two may lead in one term, the one with the higher id after the other: what they commit is what counts.
                let known = history.leaders.insert((shard.group.shard(), seen.term), *id);
                if known != Some(*id) {
                    history.trace.push(format!(
                        "{:>9.3} node {id} leads shard {} in term {}",
                        self.now_us as f64 / 1e6,
                        shard.group.shard(),
                        seen.term
                    ));
                }
            }
        }
    }

    fn cause(&mut self, fault: Fault) {
        self.say(&format!("{fault:?}"));
        let now_us = self.now_us;
        match fault {
            Fault::Kill(id) => self.end(id, false),
            Fault::LosePower(id) => self.end(id, true),
            Fault::LosePowerEverywhere => {
                for id in self.hosts.keys().copied().collect::<Vec<_>>() {
                    self.end(id, true);
                }
            }
            Fault::Stop(id) => self.stop(id),
            Fault::Pause(id, millis) => {
                if let Some(host) = self.hosts.get_mut(&id).filter(|host| host.runs()) {
                    host.sleep_until(now_us + millis * 1_000);
                }
            }
            Fault::Isolate(id) => {
                for other in self.hosts.keys().filter(|other| **other != id) {
                    self.net.cut(id, *other);
                    self.net.cut(*other, id);
                }
            }
            Fault::CutOneWay(from, to) => self.net.cut(from, to),
            Fault::CutBetween(one, other) => {
                self.net.cut(one, other);
                self.net.cut(other, one);
            }
            Fault::BreakBetween(one, other) => self.net.break_between(one, other),
            Fault::SlowDown(millis) => self.net.slow_down(millis * 1_000),
            Fault::SetClock(id, off) => {
                if let Some(host) = self.hosts.get_mut(&id) {
                    host.clock_off_ms = off;
                }
            }
            Fault::Snapshot(id) => self.on(id, |door| async move {
                for shard in door.shards.iter() {
                    shard.group.trigger_snapshot().await.ok();
                }
            }),
            Fault::Transfer(shard, to) => self.change(Change::Transfer { shard, to }),
            Fault::Join(id) => self.join(id),
            Fault::Leave(id) => {
                self.leaving.insert(id);
                self.change(Change::Remove { node: id, force: false });
            }
            Fault::Heal => self.net.heal(),
            Fault::Restart => self.restart(),
        }
    }

    fn stop(&mut self, id: NodeId) {
        if let Some(host) = self.hosts.get_mut(&id).filter(|host| host.runs() && !host.is_asleep())
            && self.clients.doors.lock().remove(&id).is_some()
        {
            self.stopping.insert(id);
            host.begin_stop();
        }
    }

    fn restart(&mut self) {
        for host in self.hosts.values_mut() {
            if !host.runs() {
                host.start(&self.net, self.now_us, self.draw.next());
            }
        }
    }

    fn join(&mut self, id: NodeId) {
        self.hosts.insert(id, Host::new(id, self.plan.shape, self.base));
        self.change(Change::Add { node: id, address: address(id) });
    }

    /// Asks some node for a change, as an operator would; it may come to nothing.
    fn change(&mut self, change: Change) {
        let Some(asked) = self.clients.some_node(&mut self.draw) else { return };
        self.on(asked, |door| async move {
            door.cluster.change(&change).await.ok();
        });
    }

    fn on<F, Fut>(&self, id: NodeId, act: F)
    where
        F: FnOnce(super::host::Door) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        if let Some(door) = self.clients.doors.lock().get(&id).cloned() {
            let handle = door.handle.clone();
            handle.spawn(act(door));
        }
    }

    fn collect(&mut self, at_rest: bool) -> Final {
        let mut end = Final { at_rest, ..Final::default() };
        let doors = self.clients.doors.lock();
        for workspace in WORKSPACES {
            let shards = doors.iter().map(|(id, door)| (id, door.shards.of(workspace)));
            let furthest = shards.max_by_key(|(_, shard)| shard.group.status().applied_index);
            let Some((furthest, shard)) = furthest else { return end };
            let record = match shard.reader.workspace(workspace) {
                Ok(record) => record,
                Err(error) => {
                    let what = format!("node {furthest} has no workspace {workspace} at the end: {error}");
                    self.clients.history.lock().broken.push(what);
                    continue;
                }
            };
            end.log.insert(workspace, log_after(shard, workspace, 0));
            let filter = DeadFilter::default();
            let page = shard.reader.dead_letters(record.number, (0, 0), &filter, usize::MAX);
            let found = page.map(|page| page.found).unwrap_or_default();
            let dead = found.into_iter().map(|found| (found.letter.sandbox, found.position.1)).collect();
            end.dead.insert(workspace, dead);
        }
        for (id, door) in doors.iter() {
            for shard in door.shards.iter() {
                let digest = digest(&shard.reader);
                end.digests.entry(shard.group.shard()).or_default().insert(*id, digest);
            }
        }
        drop(doors);
        for workspace in WORKSPACES {
            let pending = SANDBOXES.map(|sandbox| (sandbox.to_owned(), self.pending(workspace, sandbox).unwrap_or(0)));
            end.pending.insert(workspace, pending.into());
        }
        end
    }
}

/// Of all that a state holds but its position.
fn digest(reader: &crate::query::StateReader) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    let engine = reader.engine();
    for space in 1..keys::SPACES {
        let scanned = engine.scan(
            tandem_storage::Space(space),
            &[],
            &[],
            tandem_storage::Direction::Forward,
            &mut |key, value| {
                hasher.update(&[space]);
                hasher.update(key);
                hasher.update(value);
                std::ops::ControlFlow::Continue(())
            },
        );
        scanned.expect("a state in memory can be read");
    }
    hasher.digest()
}

/// Nothing of the last simulation on this thread is left.
impl Drop for World {
    fn drop(&mut self) {
        for id in self.hosts.keys().copied().collect::<Vec<_>>() {
            self.end(id, false);
        }
    }
}
