//! The disks of one node, which outlive its process.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tandem_raft::OpenState;
use tandem_storage::{
    Direction, Disk, Durability, Engine, Error, FaultEngine, FaultHandle, MemoryEngine, Space, SpaceVisitor, Tear,
    Visitor, WriteBatch,
};

use super::draw::Draw;
use crate::machine::keys;

/// In a state directory that was opened since it was made; what it holds is on the simulated disk.
const OPENED: &str = "opened";

/// One engine's disk.
enum Place {
    Running(FaultHandle),
    Off(Disk),
}

/// All that a node keeps. Shared with its process.
pub(super) struct Disks {
    /// Snapshots are real files: their names and bytes travel.
    pub(super) dir: tempfile::TempDir,
    log: Mutex<Option<Place>>,
    states: Mutex<BTreeMap<PathBuf, Place>>,
    /// Says that it has synced, and has not.
    lies: bool,
}

impl Disks {
    pub(super) fn new(lies: bool) -> Arc<Self> {
        // In memory where that is possible: snapshots are synced, and a simulation need not wait for a real disk.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let dir = dir.expect("a directory for snapshots");
        Arc::new(Self { dir, log: Mutex::default(), states: Mutex::default(), lies })
    }

    /// The engine of the log, as the last process left it.
    pub(super) fn open_log(&self) -> Arc<dyn Engine> {
        let mut place = self.log.lock();
        let engine = match place.take() {
            Some(Place::Off(disk)) => FaultEngine::recover(disk).expect("what was synced can be read"),
            Some(Place::Running(_)) => panic!("two processes on one disk"),
            None => FaultEngine::new(tandem_raft::LOG_SPACES),
        };
        *place = Some(Place::Running(engine.handle()));
        if self.lies { Arc::new(Lying(engine)) } else { Arc::new(engine) }
    }

    /// The process ends. What was not synced is lost in part: of the log only when the power fails, of states always,
    /// because their engines have no log of their own.
    pub(super) fn end(&self, power_lost: bool, draw: &mut Draw) {
        let mut log = self.log.lock();
        if let Some(Place::Running(handle)) = &*log {
            let tear = if power_lost { tear(handle, draw) } else { Tear::Keep(usize::MAX) };
            *log = Some(Place::Off(handle.crash(tear)));
        }
        for place in self.states.lock().values_mut() {
            if let Place::Running(handle) = place {
                *place = Place::Off(handle.crash(tear(handle, draw)));
            }
        }
    }

    fn open_state(&self, dir: &Path) -> Result<Arc<dyn Engine>, Error> {
        let spaces = usize::from(keys::SPACES);
        let is_state = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("state-"));
        if !is_state {
            return Ok(Arc::new(MemoryEngine::open(dir, spaces)?));
        }
        let mut states = self.states.lock();
        let mark = dir.join(OPENED);
        let engine = if dir.exists() && !mark.exists() {
            // Made from a snapshot just now; whatever lay here before is gone.
            fs::write(&mark, b"").expect("a file in memory");
            FaultEngine::open(dir, spaces)?
        } else {
            match states.remove(dir) {
                Some(Place::Off(disk)) => FaultEngine::recover(disk)?,
                Some(Place::Running(_)) => panic!("two engines on {}", dir.display()),
                None => FaultEngine::new(spaces),
            }
        };
        states.insert(dir.to_owned(), Place::Running(engine.handle()));
        Ok(Arc::new(engine))
    }
}

fn tear(handle: &FaultHandle, draw: &mut Draw) -> Tear {
    let unsynced = (handle.journal_bytes() - handle.synced_bytes()) as u64;
    if draw.percent(30) { Tear::All } else { Tear::Keep(draw.below(unsynced + 1) as usize) }
}

/// Opens the states of a node.
pub(super) struct States(pub(super) Arc<Disks>);

impl OpenState for States {
    fn open(&self, dir: &Path) -> Result<Arc<dyn Engine>, Error> {
        self.0.open_state(dir)
    }
}

/// Acknowledges before it has synced.
struct Lying(FaultEngine);

impl Engine for Lying {
    fn write(&self, batch: WriteBatch, _durability: Durability) -> Result<(), Error> {
        self.0.write(batch, Durability::Deferred)
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.0.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Error> {
        self.0.scan(space, from, to, direction, visit)
    }

    fn scan_all(&self, begun: &mut dyn FnMut(), visit: &mut SpaceVisitor<'_>) -> Result<(), Error> {
        self.0.scan_all(begun, visit)
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.0.checkpoint(dir)
    }

    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn name(&self) -> &'static str {
        "lying"
    }
}
