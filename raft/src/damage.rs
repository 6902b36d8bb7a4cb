//! What a node knows of its own damage, and keeps over a restart.
//!
//! A read that meets bytes that were never written ends the node. The next start must not come upon the same bytes later and
//! end again, so what was found is written down: a state or a snapshot is set aside then and made anew, a log is read as a
//! whole before anything else.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tandem_storage::{Direction, Durability, Engine, Error, Pacer, Space, SpaceVisitor, Visitor, WriteBatch};

use crate::error::{FatalError, FatalSink};

/// What can be damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The log of all shards.
    Log,
    /// The state of a shard.
    State(u32),
    /// The newest snapshot of a shard.
    Snapshot(u32),
    /// The file with the data directories of the other members.
    Peers,
}

impl Part {
    /// A stable code for logs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Log => "LOG_DAMAGED",
            Self::State(_) => "STATE_DAMAGED",
            Self::Snapshot(_) => "SNAPSHOT_DAMAGED",
            Self::Peers => "FILE_DAMAGED",
        }
    }

    /// What an operator does about it.
    fn advice(self) -> &'static str {
        match self {
            Self::Log => {
                "votes and acknowledged entries may be lost with it, so this node must not vote again: in a cluster replace \
                 it by a node with a new id and an empty data directory (tandem cluster replace), otherwise restore the data \
                 directory from a backup"
            }
            Self::Peers => {
                "it tells when another node comes with an empty disk under its old id. Make sure that none has, then remove \
                 the file: it is made anew as the others connect"
            }
            Self::State(_) | Self::Snapshot(_) => {
                "start the node again: it sets the damaged files aside and makes them anew from what is sound, or from the \
                 other nodes"
            }
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Log => write!(f, "the log"),
            Self::State(shard) => write!(f, "the state of shard {shard}"),
            Self::Snapshot(shard) => write!(f, "the newest snapshot of shard {shard}"),
            Self::Peers => write!(f, "the file PEERS"),
        }
    }
}

/// The end of a node that met damage.
pub(crate) fn fatal(part: Part, detail: impl Into<String>) -> FatalError {
    FatalError::Damaged { part, detail: detail.into(), advice: part.advice() }
}

/// The file that says so.
#[derive(Debug, Clone)]
pub(crate) struct Note {
    file: PathBuf,
    pub(crate) part: Part,
}

impl Note {
    /// The note about a part, among the files of the node or of its shard.
    pub(crate) fn in_dir(dir: &Path, part: Part) -> Self {
        let name = match part {
            Part::Log => "LOG-DAMAGED",
            Part::State(_) => "STATE-DAMAGED",
            Part::Snapshot(_) => "SNAPSHOT-DAMAGED",
            Part::Peers => "PEERS-DAMAGED",
        };
        Self { file: dir.join(name), part }
    }

    pub(crate) fn exists(&self) -> bool {
        self.file.exists()
    }

    /// Writes down what was found and returns the error that ends the node.
    pub(crate) fn take_down(&self, detail: &str) -> FatalError {
        let write = || {
            fs::write(&self.file, format!("{detail}\n"))?;
            fs::File::open(&self.file)?.sync_all()?;
            // Without its name the note is gone with the power.
            self.file.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
        };
        if let Err(error) = write() {
            tracing::error!(%error, file = %self.file.display(), "what was found is not written down; the next start may meet it again");
        }
        fatal(self.part, detail)
    }

    pub(crate) fn clear(&self) -> Result<(), Error> {
        match fs::remove_file(&self.file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { doing: "removing a note of damage", source })
            }
            _ => Ok(()),
        }
    }
}

/// An engine whose fatal errors end the node, whoever meets them; damage is written down as well.
pub(crate) struct Guarded {
    engine: Arc<dyn Engine>,
    note: Note,
    fatal: FatalSink,
}

impl Guarded {
    pub(crate) fn new(engine: Arc<dyn Engine>, note: Note, fatal: FatalSink) -> Self {
        Self { engine, note, fatal }
    }

    fn watch<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| {
            if matches!(error, Error::Corrupt { .. }) {
                self.fatal.report(self.note.take_down(&error.to_string()));
            } else if error.is_fatal() {
                self.fatal.report(FatalError::Engine { code: error.code(), detail: error.to_string() });
            }
        })
    }

    /// Whoever reads everything in the background decides what comes of anything else: it need not end the node.
    fn watch_damage<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if matches!(result, Err(Error::Corrupt { .. })) { self.watch(result) } else { result }
    }
}

impl Engine for Guarded {
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), Error> {
        self.watch(self.engine.write(batch, durability))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.watch(self.engine.get(space, key))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Error> {
        self.watch(self.engine.scan(space, from, to, direction, visit))
    }

    fn scan_all(&self, begun: &mut dyn FnMut(), visit: &mut SpaceVisitor<'_>) -> Result<(), Error> {
        self.watch_damage(self.engine.scan_all(begun, visit))
    }

    fn verify(&self, pace: &mut Pacer<'_>) -> Result<u64, Error> {
        self.watch_damage(self.engine.verify(pace))
    }

    fn flush(&self) -> Result<(), Error> {
        self.watch(self.engine.flush())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.watch(self.engine.checkpoint(dir))
    }

    fn size_bytes(&self) -> u64 {
        self.engine.size_bytes()
    }

    fn name(&self) -> &'static str {
        self.engine.name()
    }
}

#[cfg(test)]
mod tests {
    use tandem_storage::{FaultEngine, Tear};

    use super::*;

    #[test]
    fn what_a_reader_meets_stops_the_node() {
        let (dir, engine) = (tempfile::tempdir().unwrap(), FaultEngine::new(1));
        let (power, fatal) = (engine.handle(), FatalSink::default());
        let note = Note::in_dir(dir.path(), Part::State(0));
        let guarded = Guarded::new(Arc::new(engine), note.clone(), fatal.clone());
        assert_eq!(guarded.get(Space(0), b"k").unwrap(), None);
        assert!(fatal.get().is_none());
        power.crash(Tear::All);
        assert!(guarded.get(Space(0), b"k").is_err());
        assert_eq!(fatal.get().unwrap().code(), "STORAGE_FAILED");
        assert!(!note.exists(), "a disk that fails is not a disk that lies");
    }
}
