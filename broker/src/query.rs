//! Reads the state of a shard, beside the machine: for delivery and for requests that change nothing.

mod api_keys;
pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod dead_letters;
pub(crate) mod events;
pub(crate) mod history;
mod lanes;
mod policy;
mod quotas;
pub(crate) mod registry;
pub(crate) mod retention;
mod tokens;
mod topics;

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;
use tandem_storage::{Direction, Engine};

use crate::{
    batch::Batch,
    encoding::{Field as _, Reader},
    machine::{
        StateError,
        follow::TopicCursors,
        inbox::Inbox,
        keys::{self, CURSORS, DUE, INBOXES, MESSAGES, RECORDS, REMEMBERED, Remembered},
        policy::Policies,
        recent_ids::RecentIds,
        request::WaitingRequest,
        state::{KnownId, Sandbox, Shard},
        topic::Topic,
        workspace::Workspace,
    },
    rejection::Rejection,
};

/// The engine of a shard's state, as it is now: a snapshot may replace it. Cheap to clone. What must stop the node when a
/// reader meets it, the engine itself reports: bad data must not be met twice.
#[derive(Clone, Default)]
pub(crate) struct StateReader {
    slot: Arc<RwLock<Option<Opened>>>,
}

/// A state, and what the machine keeps in front of it.
#[derive(Clone)]
struct Opened {
    engine: Arc<dyn Engine>,
    ids: Arc<RwLock<RecentIds>>,
    policies: Policies,
}

/// Why a read has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QueryError {
    /// The request asks for what is not there, or wrongly.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

impl From<tandem_storage::Error> for QueryError {
    fn from(error: tandem_storage::Error) -> Self {
        Self::State(error.into())
    }
}

impl From<crate::encoding::DecodeError> for QueryError {
    fn from(error: crate::encoding::DecodeError) -> Self {
        Self::State(error.into())
    }
}

impl StateReader {
    /// Reads from this engine from now on.
    pub(crate) fn replace(&self, engine: Arc<dyn Engine>, ids: Arc<RwLock<RecentIds>>, policies: Policies) {
        *self.slot.write() = Some(Opened { engine, ids, policies });
    }

    /// The policies that the machine has ready.
    pub(crate) fn policies(&self) -> Policies {
        self.opened().policies
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        self.opened().engine
    }

    fn opened(&self) -> Opened {
        self.slot.read().clone().expect("the shard opens its state before it serves anybody")
    }

    /// The newest time in the log of the shard.
    pub(crate) fn time_ms(&self) -> Result<u64, StateError> {
        match self.engine().get(RECORDS, &keys::shard())? {
            Some(record) => Ok(Reader::new(record, "shard").u64()?),
            None => Ok(0),
        }
    }

    /// A workspace by name, or the refusal that says it is not there.
    pub(crate) fn workspace(&self, name: &str) -> Result<Workspace, QueryError> {
        match self.engine().get(RECORDS, &keys::workspace(name))? {
            Some(record) => Ok(Workspace::decode(record)?),
            None => Err(Rejection::unknown_workspace(name).into()),
        }
    }

    /// A sandbox by name, or the refusal that says it is not there.
    pub(crate) fn sandbox(&self, workspace: u32, name: &str) -> Result<Sandbox, QueryError> {
        match self.engine().get(RECORDS, &keys::sandbox(workspace, name))? {
            Some(record) => Ok(Sandbox::decode(record)?),
            None => Err(Rejection::unknown_sandbox(name).into()),
        }
    }

    pub(crate) fn inbox(&self, workspace: u32, sandbox: u32) -> Result<Option<Inbox>, StateError> {
        let record = self.engine().get(INBOXES, &keys::inbox(workspace, sandbox))?;
        Ok(record.map(Inbox::decode).transpose()?)
    }

    pub(crate) fn known_id(&self, workspace: &Workspace, id: &str) -> Result<Option<KnownId>, StateError> {
        let now = workspace.window(self.time_ms()?);
        let (Opened { engine, ids, .. }, hash) = (self.opened(), keys::text_hash(id));
        // Before the engine: what leaves the lots is there by then.
        if let Some(known) = ids.read().find(workspace.number, hash, now) {
            return Ok(Some(known));
        }
        for window in [Some(now), now.checked_sub(1)].into_iter().flatten() {
            let key = keys::remembered(workspace.number, window, Remembered::Id, hash);
            if let Some(record) = engine.get(REMEMBERED, &key)? {
                return Ok(Some(KnownId::from_bytes(record, "message id")?));
            }
        }
        Ok(None)
    }

    /// A request whose caller waits: by workspace, sender, and hash of the correlation id.
    pub(crate) fn waiting_request(
        &self,
        (workspace, sandbox, correlation): (u32, u32, u128),
    ) -> Result<Option<WaitingRequest>, StateError> {
        let record = self.engine().get(RECORDS, &keys::request(workspace, sandbox, correlation))?;
        Ok(record.map(|record| WaitingRequest::from_bytes(record, "request")).transpose()?)
    }

    /// When the next thing is due, in milliseconds since 1970.
    pub(crate) fn next_due_ms(&self) -> Result<Option<u64>, StateError> {
        let floor_ms = match self.engine().get(RECORDS, &keys::shard())? {
            Some(record) => Shard::from_bytes(record, "shard")?.due_floor_ms,
            None => 0,
        };
        // From where everything is done: what is done before leaves traces that a scan would have to pass.
        let (from, to) = keys::due_between(floor_ms, u64::MAX);
        let mut found = None;
        self.engine().scan(DUE, &from, &to, Direction::Forward, &mut |key, _| {
            found = key.first_chunk::<8>().map(|time| u64::from_be_bytes(*time));
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Retries that others of their ordering key wait for: the hash of the key, and the sequence.
    pub(crate) fn keyed(&self, workspace: u32, sandbox: u32) -> Result<Vec<(u64, u64)>, StateError> {
        let (from, to) = keys::keyed_of(workspace, sandbox);
        self.collect(&from, &to, |key, _| Ok(keys::keyed_parts(key)))
    }

    /// What a sandbox follows.
    pub(crate) fn follow_patterns(&self, workspace: u32, sandbox: u32) -> Result<Vec<String>, StateError> {
        let (from, to) = keys::follows(workspace, sandbox);
        self.collect(&from, &to, |key, _| Ok(keys::follow_pattern(key)))
    }

    /// All topics of a workspace, by name.
    pub(crate) fn all_topics(&self, workspace: u32) -> Result<Vec<(String, Topic)>, StateError> {
        let (from, to) = keys::topics(workspace);
        self.collect(&from, &to, |key, value| {
            Ok((keys::sandbox_name(key), Topic::from_bytes(Bytes::copy_from_slice(value), "topic")?))
        })
    }

    /// How far a follower is in a topic.
    pub(crate) fn topic_cursors(&self, workspace: u32, topic: u32, sandbox: u32) -> Result<TopicCursors, StateError> {
        let record = self.engine().get(CURSORS, &keys::cursors(workspace, topic, sandbox))?;
        Ok(record.map(|record| TopicCursors::from_bytes(record, "topic cursors")).transpose()?.unwrap_or_default())
    }

    /// Everything in a range of RECORDS. Only for ranges that a limit bounds.
    fn collect<T>(
        &self,
        from: &Bytes,
        to: &Bytes,
        read: impl Fn(&[u8], &[u8]) -> Result<T, StateError>,
    ) -> Result<Vec<T>, StateError> {
        let mut found = Vec::new();
        let mut failure = None;
        self.engine().scan(RECORDS, from, to, Direction::Forward, &mut |key, value| match read(key, value) {
            Ok(entry) => {
                found.push(entry);
                ControlFlow::Continue(())
            }
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failure.map_or(Ok(found), Err)
    }

    /// The batch that begins with this sequence.
    pub(crate) fn batch(&self, workspace: u32, first_sequence: u64) -> Result<Option<Batch>, StateError> {
        let record = self.engine().get(MESSAGES, &keys::message(workspace, first_sequence))?;
        Ok(record.map(|bytes| Batch::decode(first_sequence, bytes)).transpose()?)
    }

    /// The batch that holds this sequence, if any does.
    pub(crate) fn batch_holding(&self, workspace: u32, sequence: u64) -> Result<Option<Batch>, StateError> {
        let mut found: Option<(u64, Bytes)> = None;
        let (from, to) = (keys::message(workspace, 0), keys::message(workspace, sequence.saturating_add(1)));
        self.engine().scan(MESSAGES, &from, &to, Direction::Backward, &mut |key, value| {
            found = Some((keys::sequence_of(key), Bytes::copy_from_slice(value)));
            ControlFlow::Break(())
        })?;
        let Some((first, bytes)) = found else { return Ok(None) };
        let batch = Batch::decode(first, bytes)?;
        Ok((sequence < first + batch.len() as u64).then_some(batch))
    }
}
