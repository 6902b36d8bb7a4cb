//! Reads the state of a shard, beside the machine: for delivery and for requests that change nothing.

pub(crate) mod history;
pub(crate) mod registry;
mod watched;

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use parking_lot::RwLock;
use tandem_raft::FatalSink;
use tandem_storage::{Direction, Engine};

use self::watched::Watched;
use crate::{
    batch::Batch,
    encoding::Reader,
    machine::{
        StateError,
        inbox::Inbox,
        keys::{self, IDS, INBOXES, MESSAGES, RECORDS},
        state::{KnownId, Sandbox},
        workspace::Workspace,
    },
    rejection::Rejection,
};

/// The engine of a shard's state, as it is now: a snapshot may replace it. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct StateReader {
    slot: Arc<RwLock<Option<Arc<dyn Engine>>>>,
    fatal: FatalSink,
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
    /// A reader that reports what must stop the node.
    pub(crate) fn new(fatal: FatalSink) -> Self {
        Self { slot: Arc::default(), fatal }
    }

    /// Reads from this engine from now on.
    pub(crate) fn replace(&self, engine: Arc<dyn Engine>) {
        *self.slot.write() = Some(Arc::new(Watched::new(engine, self.fatal.clone())));
    }

    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
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

    pub(crate) fn known_id(&self, workspace: u32, id: &str) -> Result<Option<KnownId>, StateError> {
        let record = self.engine().get(IDS, &keys::id(workspace, keys::id_hash(id)))?;
        Ok(record.map(KnownId::decode).transpose()?)
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
