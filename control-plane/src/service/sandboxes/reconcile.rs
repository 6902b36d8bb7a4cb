//! Looking at all sandboxes, and doing what has to be done: by one control plane of a database at a time.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::Ordering,
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _, future::join_all, stream};
use tandem_client::{EventType, Liveness, ReportedEvent, Sandbox};

use super::{
    super::{
        alert::AlertEvent,
        sandbox::{Document, Wanted},
    },
    KIND, OVERDUE_MS, Sandboxes,
    decide::{self, CREATING, Facts, RUNNING, STARTING, STOPPING, Step, Why},
    drive::is_fresh,
    warm,
};
use crate::{
    clock,
    error::{Failure, Reason},
    sandbox::{Doing, What},
    store::{Resource, StoreError},
};

/// Looks between two counts of what is in volumes, and of what sandboxes do that may be idle.
const LOOKS_UNTIL_COUNTED: u64 = 5;
/// One that has all but a part of the processes that it may have is told of: this part.
const CROWDED: u64 = 16;
/// Questions to the runtime at once, about what sandboxes take.
const QUESTIONS: usize = 4;
/// Workspaces that the broker is asked about at once, and how long it has to tell of all of them: a look ends within a turn, also
/// while the broker is down.
const WORKSPACES: usize = 32;
const BROKER_TELLS: Duration = Duration::from_secs(2);
/// Looks between two searches for containers of nobody, while there are no sandboxes.
const LOOKS_UNTIL_SEARCHED: u64 = 30;
/// How long a way to the broker is not looked after again, in milliseconds.
const WAYS_HOLD_MS: i64 = 30_000;
/// Bytes of a text that the broker takes.
const EVENT_TEXT_BYTES: usize = 1 << 10;
/// How much of a processor a sandbox may take that is idle.
const IDLE_CPU: f64 = 0.02;

/// What is remembered from look to look. Who begins to look begins without.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Since when the broker has not heard of a sandbox.
    silent: HashMap<String, i64>,
    /// What a sandbox had done when it was last counted: when, and nanoseconds of a processor.
    done: HashMap<String, (i64, u64)>,
    /// Since when it has done next to nothing.
    idle: HashMap<String, i64>,
    disk: HashMap<String, u64>,
    /// Those that had as many processes as they may when they were last counted.
    crowded: HashSet<String>,
    /// Control planes that do not say any more that they are there: since when, and when that was last seen.
    gone: HashMap<String, (i64, i64)>,
    /// By workspace: when the way to the broker was last seen to.
    ways: HashMap<String, i64>,
}

impl Memory {
    fn keep(&mut self, known: &HashSet<&str>) {
        self.silent.retain(|id, _| known.contains(id.as_str()));
        self.done.retain(|id, _| known.contains(id.as_str()));
        self.idle.retain(|id, _| known.contains(id.as_str()));
        self.disk.retain(|id, _| known.contains(id.as_str()));
        self.crowded.retain(|id| known.contains(id.as_str()));
    }
}

#[cfg(test)]
impl Memory {
    /// As if a sandbox had been counted so much earlier.
    pub(super) fn age(&mut self, id: &str, ms: i64) {
        if let Some((then_ms, _)) = self.done.get_mut(id) {
            *then_ms -= ms;
        }
    }
}

impl Sandboxes {
    /// Something may have changed: returns when it has.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Listens to what happens to containers, until the runtime does not tell any more.
    pub(crate) async fn listen(&self) {
        let mut happenings = self.0.runtime.happenings();
        // Whatever happened before: look.
        self.0.changed.notify_one();
        loop {
            match happenings.try_next().await {
                Ok(Some(happening)) => {
                    if happening.what == What::OutOfMemory
                        && let Err(why) = self.out_of_memory(&happening.id).await
                    {
                        tracing::warn!(sandbox = happening.id, code = why.code(), %why, "an event is not remembered");
                    }
                    self.0.changed.notify_one();
                }
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(%error, "what happens to containers is not told");
                    return;
                }
            }
        }
    }

    /// Tells of it, and counts it when nobody is doing something with the sandbox: who has claimed it would lose his claim.
    async fn out_of_memory(&self, id: &str) -> Result<(), Failure> {
        if !self.0.has_turn.load(Ordering::Relaxed) {
            // Whoever has the turn hears of it as well.
            return Ok(());
        }
        let Some(row) = self.0.store.get(KIND, id).await? else { return Ok(()) };
        *self.0.kills.lock().entry(id.to_owned()).or_default() += 1;
        self.tell(&row, AlertEvent::OutOfMemory, "a process was killed: the sandbox has no more memory").await;
        Ok(())
    }

    /// A sandbox that nobody has claimed, with the kills that were not counted yet.
    async fn counted(&self, row: Resource) -> Result<Option<(Resource, Document)>, Failure> {
        let document = Document::of(&row)?;
        let Some(kills) = self.0.kills.lock().remove(&row.id) else { return Ok(Some((row, document))) };
        let document = Document { out_of_memory_kills: document.out_of_memory_kills + kills, ..document };
        let id = row.id.clone();
        let changed = Resource { document: document.encode()?, update_ms: clock::unix_ms(), ..row };
        match self.0.store.update(&changed).await {
            Ok(row) => Ok(Some((row, document))),
            Err(error) => {
                *self.0.kills.lock().entry(id).or_default() += kills;
                if matches!(error, StoreError::Changed) { Ok(None) } else { Err(error.into()) }
            }
        }
    }

    /// Sees to it that what runs can reach the broker, and nothing that it may not any more: also what another control plane has
    /// started, and this one before it was started again.
    fn keep_ways(&self, rows: &[Resource], memory: &mut Memory) {
        let now_ms = clock::unix_ms();
        for row in rows.iter().filter(|row| [RUNNING, STARTING].contains(&row.state.as_str())) {
            if memory.ways.get(&row.scope).is_some_and(|since_ms| now_ms - since_ms < WAYS_HOLD_MS) {
                continue;
            }
            memory.ways.insert(row.scope.clone(), now_ms);
            let (this, row) = (self.clone(), row.clone());
            tokio::spawn(async move {
                if let Err(why) = this.way(&row).await {
                    tracing::warn!(workspace = row.scope, code = why.code(), %why, "its sandboxes may be cut off");
                }
            });
        }
    }

    /// Tells those who want to hear of it. What cannot be told stays in the log.
    async fn tell(&self, row: &Resource, event: AlertEvent, text: &str) {
        tracing::warn!(sandbox = row.name, workspace = row.scope, ?event, "{text}");
        if let Some(kind) = reported(event) {
            let text = text[..text.floor_char_boundary(EVENT_TEXT_BYTES)].to_owned();
            let event = ReportedEvent { r#type: kind.into(), sandbox_id: row.name.clone(), text };
            if let Err(error) = self.0.broker.report_events(row.scope.as_str(), vec![event]).await {
                tracing::warn!(sandbox = row.name, %error, "it does not stand among the events of the workspace");
            }
        }
        if let Err(why) = self.0.kit.alerts.happened(&row.scope, &row.name, event, text).await {
            tracing::warn!(sandbox = row.name, code = why.code(), %why, "nobody is told of it");
        }
    }

    /// Looks at all of them. What takes long is done beside.
    pub(crate) async fn look(&self, memory: &mut Memory, looks: u64) -> Result<(), Failure> {
        self.0.has_turn.store(true, Ordering::Relaxed);
        let rows = self.0.store.all(KIND).await?;
        let waiting = self.0.store.all(warm::KIND).await?;
        let pool = &self.0.config.warm_pool;
        if rows.is_empty() && waiting.is_empty() && pool.is_empty() && !looks.is_multiple_of(LOOKS_UNTIL_SEARCHED) {
            return Ok(());
        }
        let seen = match self.0.runtime.look().await {
            Ok(seen) => seen,
            // Nobody misses it.
            Err(_) if rows.is_empty() => return Ok(()),
            Err(error) => {
                self.0.networks.doubt();
                return Err(error.into());
            }
        };
        let known: HashSet<_> = rows.iter().map(|row| row.id.as_str()).collect();
        memory.keep(&known);
        self.0.kills.lock().retain(|id, _| known.contains(id.as_str()));
        let kept: HashSet<_> = waiting.iter().map(|row| row.id.clone()).collect();
        for stray in seen.iter().filter(|seen| !known.contains(seen.id.as_str()) && !kept.contains(&seen.id)) {
            // It may have come since: one that waits is a sandbox's before it waits no more.
            let store = &self.0.store;
            if store.get(warm::KIND, &stray.id).await?.is_none() && store.get(KIND, &stray.id).await?.is_none() {
                tracing::warn!(sandbox = stray.id, "a container of no sandbox is removed");
                if let Err(error) = self.0.runtime.remove(&stray.id, true).await {
                    tracing::warn!(sandbox = stray.id, %error, "it is removed later");
                }
            }
        }
        let doing: HashMap<_, _> = seen.into_iter().map(|seen| (seen.id, seen.doing)).collect();
        if let Err(why) = self.keep_warm(waiting, &doing, &known).await {
            tracing::warn!(code = why.code(), %why, "containers that wait for sandboxes are looked after later");
        }
        self.keep_ways(&rows, memory);
        self.count(&rows, memory, looks).await;
        let heard = self.heard(&rows).await;
        let now_ms = clock::unix_ms();
        memory.gone.retain(|_, (_, seen_ms)| now_ms - *seen_ms < 2 * super::ALIVE_MS);
        for row in rows {
            if row.due_ms > now_ms && !self.is_abandoned(&row, memory).await? {
                continue;
            }
            let (row, document) = match self.counted(row).await {
                Ok(Some(counted)) => counted,
                Ok(None) => continue,
                // One that cannot be read is told, and the others are looked after.
                Err(why) if why.code() == Reason::Internal.code() => continue,
                Err(why) => return Err(why),
            };
            let heard = heard.get(&(row.scope.clone(), row.name.clone()));
            let facts = facts(&row, &document, (doing.get(&row.id).cloned(), heard), memory);
            let step = decide::decide(&row.state, &document, &facts);
            if step != Step::Nothing {
                self.take_up(row, document, step).await?;
            }
        }
        Ok(())
    }

    /// Whether the one who has claimed it is gone: killed, most often. One look does not tell: after a database stood still nobody
    /// has said that he is there.
    async fn is_abandoned(&self, row: &Resource, memory: &mut Memory) -> Result<bool, Failure> {
        let Ok(Document { claimant, .. }) = Document::of(row) else { return Ok(false) };
        if claimant.is_empty() || claimant == self.0.holder {
            return Ok(false);
        }
        let now_ms = clock::unix_ms();
        if self.0.store.is_leased(&super::alive(&claimant), now_ms).await? {
            memory.gone.remove(&claimant);
            return Ok(false);
        }
        let (since_ms, seen_ms) = memory.gone.entry(claimant).or_insert((now_ms, now_ms));
        *seen_ms = now_ms;
        Ok(now_ms - *since_ms >= super::GONE_MS)
    }

    /// What volumes hold, how many processes there are, and what sandboxes have done that may be idle.
    async fn count(&self, rows: &[Resource], memory: &mut Memory, looks: u64) {
        if !looks.is_multiple_of(LOOKS_UNTIL_COUNTED) {
            return;
        }
        let running: Vec<_> = rows.iter().filter(|row| row.state == RUNNING).collect();
        let ids: Vec<_> = running.iter().map(|row| row.id.clone()).collect();
        if let Ok(counted) = self.0.runtime.disk(&ids).await {
            memory.disk = counted;
        }
        let mut usages = Vec::with_capacity(running.len());
        for few in running.chunks(QUESTIONS) {
            usages.extend(join_all(few.iter().map(|row| self.0.runtime.usage(&row.id))).await);
        }
        for (row, usage) in running.into_iter().zip(usages) {
            let (Ok(usage), Ok(document)) = (usage, Document::of(row)) else { continue };
            let most = u64::from(document.spec.resources.pids);
            // Whoever could not start one more has often ended by the time somebody looks.
            if usage.pids < most - most / CROWDED {
                memory.crowded.remove(&row.id);
            } else if memory.crowded.insert(row.id.clone()) {
                let text = format!("the sandbox has {} processes, and may have {most}", usage.pids);
                let (this, row) = (self.clone(), row.clone());
                tokio::spawn(async move { this.tell(&row, AlertEvent::ProcessLimit, &text).await });
            }
            if document.spec.idle_timeout_seconds.is_none() {
                continue;
            }
            let now_ms = clock::unix_ms();
            if let Some((then_ms, then_ns)) = memory.done.insert(row.id.clone(), (now_ms, usage.cpu_ns)) {
                #[expect(clippy::cast_precision_loss, reason = "a share of a processor")]
                let share =
                    usage.cpu_ns.saturating_sub(then_ns) as f64 / ((now_ms - then_ms).max(1) as f64 * 1_000_000.0);
                if share < IDLE_CPU {
                    memory.idle.entry(row.id.clone()).or_insert(then_ms);
                } else {
                    memory.idle.remove(&row.id);
                }
            }
        }
    }

    /// What the broker knows of sandboxes, by workspace and name. Of a workspace that it does not tell of in time nothing is known.
    async fn heard(&self, rows: &[Resource]) -> HashMap<(String, String), Sandbox> {
        let workspaces: HashSet<_> = rows.iter().map(|row| row.scope.clone()).collect();
        let mut answers = stream::iter(workspaces)
            .map(|workspace| async move {
                let told = self.0.broker.registry(workspace.as_str()).list().try_collect::<Vec<_>>().await;
                (workspace, told)
            })
            .buffer_unordered(WORKSPACES);
        let mut heard = HashMap::new();
        let until = clock::now() + BROKER_TELLS;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until.into(), answers.next()).await {
            match answer {
                (workspace, Ok(sandboxes)) => {
                    let all = sandboxes.into_iter().map(|one| ((workspace.clone(), one.sandbox_id.clone()), one));
                    heard.extend(all);
                }
                (workspace, Err(error)) => {
                    tracing::debug!(workspace, %error, "the broker does not tell of its sandboxes");
                }
            }
        }
        heard
    }

    /// Claims a sandbox, and does with it what was decided.
    async fn take_up(&self, row: Resource, document: Document, step: Step) -> Result<(), Failure> {
        let now_ms = clock::unix_ms();
        let state = match step {
            Step::Start | Step::Wake => CREATING,
            Step::Stop | Step::StopFor(_) | Step::Unhealthy => STOPPING,
            _ => row.state.as_str(),
        };
        let wanted = if step == Step::Wake { Wanted::Running } else { document.wanted };
        let document = Document { wanted, claimant: self.0.holder.clone(), ..document };
        let claimed = Resource {
            state: state.to_owned(),
            document: document.encode()?,
            due_ms: now_ms + OVERDUE_MS,
            ..row.clone()
        };
        let claimed = match self.0.store.update(&claimed).await {
            Ok(row) => row,
            Err(StoreError::Changed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let this = self.clone();
        tokio::spawn(async move {
            let id = claimed.id.clone();
            if let Err(why) = this.carry_out(claimed, document, &step).await
                && let Err(why) = this.put_off(&id, &step, why).await
            {
                tracing::warn!(sandbox = id, code = why.code(), %why, "a sandbox is left as it is until it is overdue");
            }
            this.0.changed.notify_one();
        });
        Ok(())
    }

    async fn carry_out(&self, row: Resource, document: Document, step: &Step) -> Result<(), Failure> {
        tracing::info!(sandbox = row.name, workspace = row.scope, ?step, "a sandbox is not as it should be");
        match step {
            Step::Nothing => Ok(()),
            Step::Start | Step::Wake => self.bring_up(row, false).await.map(drop),
            Step::Registered => {
                let document = Document { register_ms: clock::unix_ms(), error: String::new(), ..document };
                self.settle(row, RUNNING, &document).await.map(drop)
            }
            Step::Ended { exit_code, out_of_memory } => {
                let (state, mut document) = decide::ended(&document, *exit_code, clock::unix_ms());
                let memory = if *out_of_memory { ", killed because it had no more memory" } else { "" };
                document.error = format!("it ended by itself with exit code {exit_code}{memory}");
                match state {
                    decide::RESTARTING => self.tell(&row, AlertEvent::Restarting, &document.error).await,
                    decide::FAILED => self.tell(&row, AlertEvent::Failed, &document.error).await,
                    _ => {}
                }
                self.settle(row, state, &document).await.map(drop)
            }
            Step::Unhealthy => {
                self.0.runtime.stop(&row.id, super::drive::GRACE).await?;
                let (state, mut document) = decide::ended(&document, -1, clock::unix_ms());
                document.error = "the broker did not hear of it any more".to_owned();
                self.settle(row, state, &document).await.map(drop)
            }
            Step::Stop => self.bring_down(row, "asked").await.map(drop),
            Step::StopFor(why) => {
                let event = match why {
                    Why::TimedOut => AlertEvent::TimedOut,
                    Why::Idle => AlertEvent::IdleStopped,
                    Why::DiskLimit => AlertEvent::DiskLimit,
                };
                let row = self.bring_down(row, why.word()).await?;
                self.tell(&row, event, &format!("the sandbox was stopped: {}", why.word())).await;
                Ok(())
            }
            Step::Stopped => {
                let because = if document.stopped_because.is_empty() { "asked" } else { &document.stopped_because };
                let document = Document { stopped_because: because.to_owned(), ..document.clone() };
                self.settle(row, decide::STOPPED, &document).await.map(drop)
            }
            Step::Remove => self.end(row).await,
        }
    }

    /// What could not be done is tried again: a start at longer and longer intervals, the rest in a while.
    async fn put_off(&self, id: &str, step: &Step, why: Failure) -> Result<(), Failure> {
        let Some(row) = self.0.store.get(KIND, id).await? else { return Ok(()) };
        let document = Document::of(&row)?;
        if document.claimant != self.0.holder {
            // Somebody else goes on with it.
            return Ok(());
        }
        tracing::warn!(sandbox = row.name, workspace = row.scope, code = why.code(), %why, "it is tried again");
        let error = format!("{}: {why}", why.code());
        if !matches!(step, Step::Start | Step::Wake) || document.wanted != Wanted::Running {
            let document = Document { error, ..document }.encode()?;
            let due_ms = clock::unix_ms() + 2_000;
            return match self.0.store.update(&Resource { document, due_ms, ..row }).await {
                Ok(_) | Err(StoreError::Changed) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
        // What is wrong with the sandbox itself counts as its failure, and what others do not answer does not.
        let others = [Reason::DockerUnavailable, Reason::BrokerUnavailable, Reason::DatabaseUnavailable];
        let is_others = others.iter().any(|reason| reason.code() == why.code()) || why.retry().is_some();
        let (state, next) = decide::ended(&document, -1, clock::unix_ms());
        let next = if is_others {
            let retry_ms = clock::unix_ms() + 1_000;
            Document {
                wanted: Wanted::Running,
                retries: document.retries,
                restarts: document.restarts,
                retry_ms,
                ..next
            }
        } else {
            next
        };
        let state = if is_others { decide::RESTARTING } else { state };
        self.settle(row, state, &Document { error, ..next }).await.map(drop)
    }
}

/// As it stands among the events of a workspace.
fn reported(event: AlertEvent) -> Option<EventType> {
    Some(match event {
        AlertEvent::OutOfMemory => EventType::SandboxOutOfMemory,
        AlertEvent::DiskLimit => EventType::SandboxDiskLimit,
        AlertEvent::ProcessLimit => EventType::SandboxProcessLimit,
        AlertEvent::Restarting => EventType::SandboxRestarting,
        AlertEvent::Failed => EventType::SandboxFailed,
        AlertEvent::TimedOut => EventType::SandboxTimedOut,
        AlertEvent::IdleStopped => EventType::SandboxIdleStopped,
        // What the broker sees itself, and what is no sandbox's.
        _ => return None,
    })
}

/// What is known about a sandbox now.
fn facts(
    row: &Resource,
    document: &Document,
    (doing, heard): (Option<Doing>, Option<&Sandbox>),
    memory: &mut Memory,
) -> Facts {
    let now_ms = clock::unix_ms();
    let is_online = heard.is_some_and(|sandbox| match row.state.as_str() {
        STARTING | CREATING => is_fresh(sandbox, document),
        _ => sandbox.liveness() == Liveness::Online,
    });
    let silent_since_ms = match heard {
        Some(sandbox) if sandbox.liveness() == Liveness::Offline => {
            Some(*memory.silent.entry(row.id.clone()).or_insert(now_ms))
        }
        _ => {
            memory.silent.remove(&row.id);
            None
        }
    };
    Facts {
        now_ms,
        doing,
        silent_since_ms,
        is_online,
        waiting: heard.map_or(0, |sandbox| sandbox.pending_messages),
        disk_bytes: memory.disk.get(&row.id).copied(),
        idle_since_ms: memory.idle.get(&row.id).copied(),
    }
}
