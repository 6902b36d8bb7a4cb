//! What a shard that has not started yet has for another node.

use std::sync::Arc;

use parking_lot::Mutex;

use super::StateHome;
use crate::{
    error::FatalError,
    snapshot::{SnapshotDir, position_of},
};

impl StateHome {
    /// A snapshot that reaches at least so far: the newest one, or one of the state that was opened at this start. None where
    /// there is no such thing.
    pub(crate) fn lendable(&self, at_least: u64) -> Result<Option<SnapshotDir>, FatalError> {
        let newest = || self.newest_snapshot().filter(|taken| taken.contents.index() >= at_least);
        if let Some(taken) = newest() {
            return Ok(Some(taken));
        }
        let Some(engine) = self.opened.lock().clone() else { return Ok(None) };
        if position_of(engine.as_ref())?.last_log_id.is_none_or(|id| id.index < at_least) {
            return Ok(None);
        }
        self.take_snapshot(&Arc::new(Mutex::new(engine)))?;
        Ok(newest())
    }
}
