//! Snapshots are checkpoints of the state engine, taken while commands go on.

use std::{io, path::PathBuf, sync::Arc};

use openraft::RaftSnapshotBuilder;
use tandem_storage::Engine;

use crate::{
    apply::POSITION_SPACE,
    encoding::decode_position,
    error::FatalError,
    state_home::StateHome,
    type_config::{LogId, SnapshotMeta, StoredMembership, TypeConfig},
};

pub(crate) type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotDir>;

/// Under this key a state engine keeps its position.
pub(crate) const POSITION_KEY: &[u8] = b"position";

/// A snapshot on this node's disk.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotDir {
    pub(crate) path: PathBuf,
}

/// Reads up to where the commands are applied in an engine.
pub(crate) fn position(engine: &dyn Engine) -> Result<(Option<LogId>, StoredMembership), FatalError> {
    match engine.get(POSITION_SPACE, POSITION_KEY)? {
        Some(record) => decode_position(&record).map_err(|error| FatalError::record("position of the state", &error)),
        None => Ok((None, StoredMembership::default())),
    }
}

/// Takes one snapshot.
pub(crate) struct SnapshotBuilder {
    pub(crate) home: StateHome,
    pub(crate) engine: Arc<dyn Engine>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = SnapshotDir;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let (home, engine) = (self.home.clone(), Arc::clone(&self.engine));
        let built = tokio::task::spawn_blocking(move || {
            home.take_snapshot(engine.as_ref(), |copy| {
                let found = position(copy);
                let index = found.as_ref().ok().and_then(|(applied, _)| applied.map(|id| id.index));
                Ok((index.unwrap_or(0), found))
            })
        });
        let (path, found) = built.await.map_err(io::Error::other)?.map_err(FatalError::from)?;
        let (last_log_id, last_membership) = found?;
        tracing::debug!(?last_log_id, path = %path.display(), "snapshot taken");
        Ok(Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: SnapshotDir { path } })
    }
}
