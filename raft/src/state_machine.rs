//! Brings committed commands to the implementor of `Apply` and keeps the position beside what it writes.

use std::{io, sync::Arc};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend,
    entry::RaftEntry,
    storage::{ApplyResponder, EntryResponder, RaftStateMachine},
};
use parking_lot::Mutex;
use tandem_storage::{Durability, Engine, WriteBatch};
use tokio::sync::{Notify, watch};

use crate::{
    apply::{Apply, POSITION_SPACE},
    digest::Digests,
    encoding::{encode_position, entry_bytes},
    error::{FatalError, FatalSink},
    roll::{ROLL_KEY, Roll},
    snapshot::{POSITION_KEY, Snapshot, SnapshotBuilder, SnapshotDir, position, roll},
    state_home::StateHome,
    transfers::Transfers,
    type_config::{Command, Entry, LogId, Outcome, SnapshotMeta, StoredMembership, TypeConfig},
};

/// Commands applied before their changes are written, at the most, in bytes: bounds memory while a restart catches up.
const MAX_APPLY_BYTES: usize = 8 << 20;

/// The state engine in use; replaced when a snapshot is installed.
pub(crate) type EngineSlot = Arc<Mutex<Arc<dyn Engine>>>;

/// When to take snapshots.
#[derive(Clone)]
pub(crate) struct SnapshotTrigger {
    pub(crate) every_bytes: u64,
    pub(crate) wanted: Arc<Notify>,
    /// What is being sent.
    pub(crate) transfers: Transfers,
}

/// openraft's view of a shard's state.
pub(crate) struct StateMachine<A> {
    shard: u32,
    home: StateHome,
    slot: EngineSlot,
    apply: A,
    applied: Option<LogId>,
    membership: StoredMembership,
    trigger: SnapshotTrigger,
    bytes_since_snapshot: u64,
    /// As of the newest applied entry.
    roll: Roll,
    /// The newest level that this node can apply.
    newest_level: u32,
    /// Where the rest of the node learns of it; the newest that was seen anywhere.
    rolls: watch::Sender<Roll>,
    digests: Digests,
    fatal: FatalSink,
}

impl<A: Apply> StateMachine<A> {
    pub(crate) fn open(
        shard: u32,
        home: StateHome,
        mut apply: A,
        trigger: SnapshotTrigger,
        rolls: watch::Sender<Roll>,
        newest_level: u32,
        fatal: FatalSink,
    ) -> Result<Self, FatalError> {
        let engine = home.open_state()?;
        let (applied, membership) = position(engine.as_ref())?;
        let index = applied.map_or(0, |id| id.index);
        home.remove_stale_incoming(index)?;
        apply.open(Arc::clone(&engine)).map_err(|error| FatalError::Apply {
            shard,
            index,
            detail: error.to_string(),
        })?;
        let roll = roll(engine.as_ref())?;
        check_level(&roll, newest_level)?;
        let slot = Arc::new(Mutex::new(engine));
        let bytes_since_snapshot = 0;
        let digests = Digests::default();
        let state = Self {
            shard,
            home,
            slot,
            apply,
            applied,
            membership,
            trigger,
            bytes_since_snapshot,
            roll,
            newest_level,
            rolls,
            digests,
            fatal,
        };
        state.publish_roll();
        Ok(state)
    }

    /// How far this node can be brought without the log: its state, or a snapshot of it.
    pub(crate) fn reach(&self) -> u64 {
        let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
        let snapshot = self.home.newest_snapshot().map_or(0, |taken| taken.contents.index());
        snapshot.max(index(self.applied))
    }

    pub(crate) fn engine(&self) -> EngineSlot {
        Arc::clone(&self.slot)
    }

    pub(crate) fn digests(&self) -> Digests {
        self.digests.clone()
    }

    fn apply_entry(&mut self, entry: Entry, writes: &mut WriteBatch) -> Result<Bytes, FatalError> {
        let log_id = entry.log_id();
        let bytes = entry_bytes(&entry) as u64;
        self.bytes_since_snapshot += bytes;
        self.trigger.transfers.log_grew(bytes);
        self.applied = Some(log_id);
        match entry.payload {
            EntryPayload::Blank => Ok(Bytes::new()),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(log_id), membership);
                Ok(Bytes::new())
            }
            EntryPayload::Normal(Command::Roll(record)) => self.apply_roll(record, writes),
            // Computed once all before it is written; see `apply`.
            EntryPayload::Normal(Command::Digest(_)) => Ok(Bytes::copy_from_slice(&log_id.index.to_be_bytes())),
            EntryPayload::Normal(Command::Apply(command)) => {
                self.apply.apply(log_id.index, &command, writes).map_err(|error| FatalError::Apply {
                    shard: self.shard,
                    index: log_id.index,
                    detail: error.to_string(),
                })
            }
        }
    }

    /// A roll counts only where it was made from the one before. The outcome is one byte: whether it did.
    fn apply_roll(&mut self, record: Bytes, writes: &mut WriteBatch) -> Result<Bytes, FatalError> {
        let next = Roll::decode(&record).map_err(|error| FatalError::record("roll in the log", &error))?;
        if next.revision != self.roll.revision + 1 {
            return Ok(Bytes::from_static(&[0]));
        }
        check_level(&next, self.newest_level)?;
        self.roll = next;
        writes.put(POSITION_SPACE, ROLL_KEY, record);
        Ok(Bytes::from_static(&[1]))
    }

    fn publish_roll(&self) {
        self.rolls.send_if_modified(|seen| {
            let news = self.roll.revision > seen.revision;
            if news {
                seen.clone_from(&self.roll);
            }
            news
        });
    }

    /// Applies what is there now, writes it as one batch, and answers.
    fn apply_chunk(&mut self, chunk: Vec<EntryResponder<TypeConfig>>) -> Result<(), FatalError> {
        let mut writes = WriteBatch::new();
        let mut answers: Vec<(ApplyResponder<TypeConfig>, Bytes)> = Vec::with_capacity(chunk.len());
        for (entry, responder) in chunk {
            let outcome = self.apply_entry(entry, &mut writes)?;
            if let Some(responder) = responder {
                answers.push((responder, outcome));
            }
        }
        writes.put(POSITION_SPACE, POSITION_KEY, encode_position(self.applied.as_ref(), &self.membership));
        let engine = Arc::clone(&self.slot.lock());
        engine.write(writes, Durability::Deferred)?;
        self.publish_roll();
        self.apply.visible(self.applied.map_or(0, |id| id.index));
        for (responder, outcome) in answers {
            responder.send(Outcome(outcome));
        }
        if self.bytes_since_snapshot >= self.trigger.every_bytes {
            self.bytes_since_snapshot = 0;
            self.trigger.wanted.notify_one();
        }
        Ok(())
    }

    fn fail(&self, error: FatalError) -> io::Error {
        self.fatal.report(error.clone());
        error.into()
    }
}

fn is_digest(entry: &Entry) -> bool {
    matches!(entry.payload, EntryPayload::Normal(Command::Digest(_)))
}

impl<A: Apply> RaftStateMachine<TypeConfig> for StateMachine<A> {
    type SnapshotData = SnapshotDir;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut entries = entries.fuse();
        while let Some(first) = entries.next().await {
            let first = first?;
            let mut bytes = entry_bytes(&first.0);
            let mut wants_digest = is_digest(&first.0);
            let mut chunk = vec![first];
            while !wants_digest
                && bytes < MAX_APPLY_BYTES
                && let Some(Some(next)) = entries.next().now_or_never()
            {
                let next = next?;
                bytes += entry_bytes(&next.0);
                wants_digest = is_digest(&next.0);
                chunk.push(next);
            }
            self.apply_chunk(chunk).map_err(|error| self.fail(error))?;
            if wants_digest {
                let (index, engine) = (self.applied.map_or(0, |id| id.index), Arc::clone(&self.slot.lock()));
                self.digests.begin(index, engine, self.fatal.clone()).await;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { home: self.home.clone(), slot: Arc::clone(&self.slot) }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotDir) -> Result<(), io::Error> {
        let (home, slot, meta) = (self.home.clone(), Arc::clone(&self.slot), meta.clone());
        let installing = crate::blocking::run(move || home.install(&snapshot, &meta, &slot));
        let (old, dir) = installing.await.map_err(io::Error::other)?.map_err(|error| self.fail(error))?;
        let engine = Arc::clone(&self.slot.lock());
        (self.applied, self.membership) = position(engine.as_ref())?;
        self.roll = roll(engine.as_ref())?;
        check_level(&self.roll, self.newest_level).map_err(|error| self.fail(error))?;
        self.publish_roll();
        let index = self.applied.map_or(0, |id| id.index);
        self.apply
            .open(engine)
            .map_err(|error| self.fail(FatalError::Apply { shard: self.shard, index, detail: error.to_string() }))?;
        if let Some(dir) = dir {
            tokio::spawn(StateHome::remove_unused(old, dir));
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        // Whoever has a part of an older one goes on with that.
        let unfinished = self.trigger.transfers.unfinished();
        Ok(unfinished.or_else(|| self.home.newest_snapshot().map(Snapshot::from)))
    }
}

/// A node that cannot apply what the cluster may propose stops before it meets it.
pub(crate) fn check_level(roll: &Roll, newest: u32) -> Result<(), FatalError> {
    let level = roll.level();
    if level <= newest {
        return Ok(());
    }
    let detail = format!("the cluster is at level {level}, and this version can apply commands up to level {newest}");
    Err(FatalError::TooOld { detail })
}
