//! Reads everything on the disk again, slowly, all the time: what nobody asks for rots unseen until the day when it is the
//! last copy.
//!
//! One pass goes over the log, then over each shard's state and newest snapshot. What it finds ends the node, with a note for
//! the next start (`damage`).

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tandem_storage::{Engine, Pacer};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    clock,
    damage::{Note, Part, fatal as damaged},
    error::{FatalError, FatalSink},
    log_store::Whole,
    pace::Pace,
    state_home::StateHome,
    state_machine::EngineSlot,
};

/// The first pass of a process begins after this part of the time between two.
const FIRST_PART: u32 = 24;

/// How a node looks for damage.
#[derive(Debug, Clone)]
pub struct ScrubOptions {
    /// How fast it reads. 0: it does not look. Default 16 MiB.
    pub bytes_per_second: u64,
    /// From the end of a pass to the beginning of the next. Default a day.
    pub interval: Duration,
    /// Where it counts.
    pub metrics: ScrubMetrics,
}

impl Default for ScrubOptions {
    fn default() -> Self {
        let interval = Duration::from_secs(24 * 3_600);
        Self { bytes_per_second: 16 << 20, interval, metrics: ScrubMetrics::default() }
    }
}

/// What the scrub has done; clones share their values.
#[derive(Debug, Clone, Default)]
pub struct ScrubMetrics {
    bytes: Counter,
    passes: Counter,
    findings: Counter,
    finished: Gauge<u64, AtomicU64>,
}

impl ScrubMetrics {
    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("scrub_bytes", "Bytes that were read to look for damage", self.bytes.clone());
        registry.register(
            "scrub_passes",
            "Passes over everything on the disk that came to their end",
            self.passes.clone(),
        );
        registry.register(
            "scrub_findings",
            "Damage that was found; the node stops at the first",
            self.findings.clone(),
        );
        let help = "When the last pass came to its end, in seconds since 1970; 0 before";
        registry.register("scrub_finished_seconds", help, self.finished.clone());
    }
}

/// A shard, as the scrub sees it.
pub(crate) struct Scrubbed {
    pub(crate) shard: u32,
    pub(crate) state: EngineSlot,
    pub(crate) home: StateHome,
}

/// The scrub of a node. Ends with it.
pub(crate) struct Running {
    ended: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends it, and waits until it holds no engine any more.
    pub(crate) async fn end(self) {
        self.ended.send_replace(true);
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the scrub did not end in order");
        }
    }
}

/// Begins to look for damage.
pub(crate) fn start(
    options: ScrubOptions,
    log: Arc<dyn Engine>,
    log_note: Note,
    shards: Vec<Scrubbed>,
    fatal: FatalSink,
) -> Running {
    let (ended, ending) = watch::channel(false);
    let scrub = Scrub { options, log, log_note, shards: shards.into(), fatal, ending };
    Running { ended, task: tokio::spawn(scrub.run()) }
}

#[derive(Clone)]
struct Scrub {
    options: ScrubOptions,
    log: Arc<dyn Engine>,
    log_note: Note,
    shards: Arc<[Scrubbed]>,
    fatal: FatalSink,
    ending: watch::Receiver<bool>,
}

impl Scrub {
    async fn run(mut self) {
        if self.options.bytes_per_second == 0 {
            return;
        }
        let mut pause = self.options.interval / FIRST_PART;
        loop {
            tokio::select! {
                biased;
                _ = self.ending.changed() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = self.options.interval;
            let scrub = self.clone();
            match tokio::task::spawn_blocking(move || scrub.pass()).await {
                Ok(Err(error)) => {
                    self.options.metrics.findings.inc();
                    self.fatal.report(error);
                    return;
                }
                _ if self.has_ended() => return,
                Ok(Ok(true)) => {
                    self.options.metrics.passes.inc();
                    self.options.metrics.finished.set(clock::unix_seconds());
                }
                // Each part that was not read has said so.
                Ok(Ok(false)) => {}
                Err(error) => tracing::error!(%error, "the scrub broke off; it begins again after the next interval"),
            }
        }
    }

    /// Also when the node was dropped without a word.
    fn has_ended(&self) -> bool {
        *self.ending.borrow() || self.ending.has_changed().is_err()
    }

    /// Whether everything was read. Only damage is an error.
    fn pass(&self) -> Result<bool, FatalError> {
        let mut pace = Pace::new(self.options.bytes_per_second);
        let (begun, mut read) = (clock::now(), 0);
        let mut paced = |bytes: u64| {
            read += bytes;
            self.options.metrics.bytes.inc_by(bytes);
            pace.spend(bytes, || !self.has_ended())
        };
        let log = verify_log(self.log.as_ref(), &self.log_note, &mut paced);
        let mut whole = self.was_read(Part::Log, log)?;
        for shard in self.shards.iter() {
            let engine = Arc::clone(&shard.state.lock());
            let state = engine.verify(&mut paced).map(drop);
            drop(engine);
            let state = state.map_err(|error| found(&shard.home.note(Part::State), error.into()));
            whole &= self.was_read(Part::State(shard.shard), state)?;
            let snapshot = self.snapshot(shard, &mut paced);
            whole &= self.was_read(Part::Snapshot(shard.shard), snapshot)?;
        }
        if whole && !self.has_ended() {
            let took_ms = begun.elapsed().as_millis() as u64;
            tracing::info!(bytes = read, took_ms, "everything on the disk is as it was written");
        }
        Ok(whole)
    }

    /// What kept a part from being read, as too many open files or a file system that takes no links, is no damage: the node goes
    /// on, and reads it the next time.
    fn was_read(&self, part: Part, result: Result<(), FatalError>) -> Result<bool, FatalError> {
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.is_damage() => Err(error),
            Err(error) => {
                if !self.has_ended() {
                    tracing::warn!(code = error.code(), %part, %error, "not all of this was looked at for damage; it is tried again");
                }
                Ok(false)
            }
        }
    }

    fn snapshot(&self, shard: &Scrubbed, paced: &mut Pacer<'_>) -> Result<(), FatalError> {
        let Some(taken) = shard.home.newest_snapshot() else { return Ok(()) };
        let Err(error) = shard.home.verify_copy(&taken.path, paced) else { return Ok(()) };
        // A newer one may have taken its place while its files were linked; and who comes after an end tidies up.
        if self.has_ended() || !taken.path.exists() {
            return Ok(());
        }
        tracing::debug!(shard = shard.shard, %error, "a snapshot is not as it should be");
        Err(found(&shard.home.note(Part::Snapshot), error))
    }
}

/// Reads the log as a whole, and every record in it; none may be missing between two others.
pub(crate) fn verify_log(log: &dyn Engine, note: &Note, pace: &mut Pacer<'_>) -> Result<(), FatalError> {
    log.verify(pace).map_err(|error| found(note, error.into()))?;
    let (mut whole, mut judged, mut given_up) = (Whole::default(), Ok(()), false);
    let scanned = log.scan_all(&mut || (), &mut |space, key, value| {
        judged = whole.see(space, key, value);
        given_up = judged.is_err() || !pace(value.len() as u64);
        if given_up { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    scanned.map_err(|error| found(note, error.into()))?;
    let judged = if given_up { judged } else { whole.end() };
    judged.map_err(|detail| note.take_down(&detail))
}

/// Damage is written down; anything else is what it is.
fn found(note: &Note, error: FatalError) -> FatalError {
    match error {
        FatalError::Damaged { .. } => error,
        error if error.is_damage() => note.take_down(&error.to_string()),
        error => error,
    }
}

/// What a start does whose log was found damaged before: reads all of it. Damage that is not there any more, as of a memory
/// that has been changed since, is forgiven.
pub(crate) fn check_suspected_log(log: &dyn Engine, note: &Note) -> Result<(), FatalError> {
    if !note.exists() {
        return Ok(());
    }
    verify_log(log, note, &mut |_| true).map_err(|error| match error {
        FatalError::Damaged { part, detail, .. } => damaged(part, detail),
        error => error,
    })?;
    tracing::warn!("the log was found damaged before; now all of it is as it should be");
    Ok(note.clear()?)
}
