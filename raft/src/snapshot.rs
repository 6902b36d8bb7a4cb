//! Snapshots are checkpoints of the state engine, taken while commands go on.

use std::{io, path::PathBuf, sync::Arc};

use openraft::RaftSnapshotBuilder;
use tandem_storage::Engine;

use crate::{
    apply::POSITION_SPACE,
    contents::Contents,
    encoding::decode_position,
    error::FatalError,
    roll::{ROLL_KEY, Roll},
    state_home::StateHome,
    state_machine::EngineSlot,
    type_config::{LogId, SnapshotMeta, StoredMembership, TypeConfig},
};

pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotDir>;

/// Under this key a state engine keeps its position.
pub(crate) const POSITION_KEY: &[u8] = b"position";

/// A snapshot on this node's disk. It is not removed as long as somebody holds its contents.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotDir {
    pub(crate) path: PathBuf,
    pub(crate) contents: Arc<Contents>,
}

/// Reads up to where the commands are applied in an engine.
pub(crate) fn position(engine: &dyn Engine) -> Result<(Option<LogId>, StoredMembership), FatalError> {
    match engine.get(POSITION_SPACE, POSITION_KEY)? {
        Some(record) => decode_position(&record).map_err(|error| FatalError::record("position of the state", &error)),
        None => Ok((None, StoredMembership::default())),
    }
}

/// Reads the roll that an engine holds; the empty one where nobody has changed it.
pub(crate) fn roll(engine: &dyn Engine) -> Result<Roll, FatalError> {
    match engine.get(POSITION_SPACE, ROLL_KEY)? {
        Some(record) => Roll::decode(&record).map_err(|error| FatalError::record("roll of the state", &error)),
        None => Ok(Roll::default()),
    }
}

/// Up to where a state engine reaches, as openraft wants to know it of a snapshot.
pub(crate) fn position_of(engine: &dyn Engine) -> Result<SnapshotMeta, FatalError> {
    let (last_log_id, last_membership) = position(engine)?;
    Ok(SnapshotMeta { last_log_id, last_membership })
}

impl From<SnapshotDir> for Snapshot {
    fn from(dir: SnapshotDir) -> Self {
        Self { meta: dir.contents.meta.clone(), snapshot: dir }
    }
}

/// Takes one snapshot.
pub(crate) struct SnapshotBuilder {
    pub(crate) home: StateHome,
    pub(crate) slot: EngineSlot,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (home, slot) = (self.home.clone(), Arc::clone(&self.slot));
        let built = crate::blocking::run(move || home.take_snapshot(&slot));
        let taken = built.await.map_err(io::Error::other)??;
        let (reaches, bytes) = (taken.contents.index(), taken.contents.bytes());
        tracing::debug!(reaches, bytes, path = %taken.path.display(), "snapshot taken");
        Ok(taken.into())
    }
}
