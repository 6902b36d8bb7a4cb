//! The seam to whoever gives the commands meaning.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use tandem_storage::{Engine, Space, WriteBatch};

/// The space of a state engine that this crate keeps its position in. The implementor of [`Apply`] uses the others.
pub const POSITION_SPACE: Space = Space(0);

/// Why a command cannot be applied: always fatal, because another node may have applied it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ApplyError(pub String);

impl From<tandem_storage::Error> for ApplyError {
    fn from(error: tandem_storage::Error) -> Self {
        Self(error.to_string())
    }
}

/// Applies committed commands to a state. The state is a pure function of the commands: an implementation reads no clock,
/// randomness, environment or configuration.
pub trait Apply: Send + Sync + 'static {
    /// Works on this engine from now on, with nothing remembered from an earlier one. Called before the first command
    /// and after a snapshot has replaced the state.
    fn open(&mut self, engine: Arc<dyn Engine>) -> Result<(), ApplyError>;

    /// Applies one command: adds its changes to `writes` and returns what it came to. Commands come in log order, each
    /// exactly once with regard to what `writes` has made of the engine. Several calls may share one batch, so the
    /// changes of the calls before may not be readable yet. A refusal of a command is an outcome, not an error.
    fn apply(&mut self, index: u64, command: &Bytes, writes: &mut WriteBatch) -> Result<Bytes, ApplyError>;

    /// The changes of all calls so far can be read from the engine now, up to the entry with this index. Outcomes are
    /// handed to the proposers after this returns.
    fn visible(&mut self, index: u64);
}

/// Opens state engines: at start, and when a snapshot replaces the state.
pub trait OpenState: Send + Sync + 'static {
    /// Opens the engine in `dir`, creating it when the directory is absent. Its first space is [`POSITION_SPACE`].
    fn open(&self, dir: &Path) -> Result<Arc<dyn Engine>, tandem_storage::Error>;
}

impl<F> OpenState for F
where
    F: Fn(&Path) -> Result<Arc<dyn Engine>, tandem_storage::Error> + Send + Sync + 'static,
{
    fn open(&self, dir: &Path) -> Result<Arc<dyn Engine>, tandem_storage::Error> {
        self(dir)
    }
}
