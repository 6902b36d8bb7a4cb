//! An `Apply` that writes down what it is given.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use bytes::Bytes;
use tandem_storage::{
    Direction, Engine, Error, MemoryEngine, RocksEngine, RocksOptions, Space, SpaceOptions, WriteBatch,
};

use crate::{Apply, ApplyError, OpenState};

pub(crate) const SPACES: [SpaceOptions; 2] = [SpaceOptions::named("position"), SpaceOptions::named("journal")];
const JOURNAL: Space = Space(1);

/// Keeps every command under its index; the outcome is the command.
#[derive(Default)]
pub(crate) struct Journal {
    /// A command with these bytes cannot be applied.
    pub(crate) poison: Option<Bytes>,
}

impl Apply for Journal {
    fn open(&mut self, _engine: Arc<dyn Engine>) -> Result<(), ApplyError> {
        Ok(())
    }

    fn apply(&mut self, index: u64, command: &Bytes, writes: &mut WriteBatch) -> Result<Bytes, ApplyError> {
        if self.poison.as_ref() == Some(command) {
            return Err(ApplyError("this command is poison".into()));
        }
        writes.put(JOURNAL, index.to_be_bytes().to_vec(), command.clone());
        Ok(command.clone())
    }

    fn visible(&mut self, _index: u64) {}
}

/// The commands in a state, in order.
pub(crate) fn commands(engine: &dyn Engine) -> Vec<Bytes> {
    let mut found = Vec::new();
    engine
        .scan(JOURNAL, &[], &[], Direction::Forward, &mut |_, value| {
            found.push(Bytes::copy_from_slice(value));
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

/// States that are gone with the process, except for snapshots.
pub(crate) fn memory_states() -> Arc<dyn OpenState> {
    Arc::new(|dir: &Path| -> Result<Arc<dyn Engine>, Error> {
        Ok(Arc::new(if dir.exists() { MemoryEngine::open(dir, 2)? } else { MemoryEngine::new(2) }))
    })
}

/// States as in production.
pub(crate) fn rocks_states() -> Arc<dyn OpenState> {
    Arc::new(|dir: &Path| -> Result<Arc<dyn Engine>, Error> {
        Ok(Arc::new(RocksEngine::open(dir, &RocksOptions::state(), &SPACES)?))
    })
}

/// A log as in production.
pub(crate) fn rocks_log(dir: &Path) -> Arc<dyn Engine> {
    let spaces = [SpaceOptions::named("entries"), SpaceOptions::named("votes")];
    Arc::new(RocksEngine::open(dir, &RocksOptions::log(), &spaces).unwrap())
}
