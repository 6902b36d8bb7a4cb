//! Every engine as a subject of the conformance suite.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tandem_storage::{
    Engine, Error, FaultEngine, MemoryEngine, RocksEngine, RocksOptions, SpaceOptions, Tear,
    conformance::{SPACE_COUNT, Subject},
};
use tempfile::TempDir;

pub(crate) const SPACES: [SpaceOptions; SPACE_COUNT] = [
    SpaceOptions::named("plain"),
    SpaceOptions::named("points").with_point_reads(),
    SpaceOptions::named("appended").with_append_only(),
];

pub(crate) struct MemorySubject {
    engine: MemoryEngine,
    scratch: TempDir,
}

impl MemorySubject {
    pub(crate) fn new() -> Self {
        Self { engine: MemoryEngine::new(SPACE_COUNT), scratch: TempDir::new().unwrap() }
    }
}

impl Subject for MemorySubject {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn open_checkpoint(&self, dir: &Path) -> Result<Box<dyn Engine>, Error> {
        Ok(Box::new(MemoryEngine::open(dir, SPACE_COUNT)?))
    }

    fn reopen(&mut self) -> bool {
        false
    }

    fn crash(&mut self) -> bool {
        false
    }
}

/// Loses a different part of what was not synced at every crash.
pub(crate) struct FaultSubject {
    engine: FaultEngine,
    scratch: TempDir,
    crashes: usize,
}

impl FaultSubject {
    pub(crate) fn new() -> Self {
        Self { engine: FaultEngine::new(SPACE_COUNT), scratch: TempDir::new().unwrap(), crashes: 0 }
    }

    fn crash_with(&mut self, tear: Tear) -> bool {
        let disk = self.engine.handle().crash(tear);
        self.engine = FaultEngine::recover(disk).unwrap();
        true
    }
}

impl Subject for FaultSubject {
    fn engine(&self) -> &dyn Engine {
        &self.engine
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn open_checkpoint(&self, dir: &Path) -> Result<Box<dyn Engine>, Error> {
        Ok(Box::new(FaultEngine::open(dir, SPACE_COUNT)?))
    }

    fn reopen(&mut self) -> bool {
        self.crash_with(Tear::Keep(usize::MAX))
    }

    fn crash(&mut self) -> bool {
        self.crashes += 1;
        let tear = match self.crashes % 3 {
            0 => Tear::All,
            odd => Tear::Keep(self.crashes * 137 * odd),
        };
        self.crash_with(tear)
    }
}

/// A crash is the process's: the files are copied while the engine is open, and the copy is opened.
pub(crate) struct RocksSubject {
    engine: Option<RocksEngine>,
    options: RocksOptions,
    scratch: TempDir,
    dir: PathBuf,
    crashes: usize,
}

impl RocksSubject {
    pub(crate) fn new(options: RocksOptions) -> Self {
        let scratch = TempDir::new().unwrap();
        let dir = scratch.path().join("data");
        let engine = RocksEngine::open(&dir, &options, &SPACES).unwrap();
        Self { engine: Some(engine), options, scratch, dir, crashes: 0 }
    }

    fn open(&mut self, dir: PathBuf) {
        self.engine = Some(RocksEngine::open(&dir, &self.options, &SPACES).unwrap());
        self.dir = dir;
    }
}

impl Subject for RocksSubject {
    fn engine(&self) -> &dyn Engine {
        self.engine.as_ref().unwrap()
    }

    fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    fn open_checkpoint(&self, dir: &Path) -> Result<Box<dyn Engine>, Error> {
        Ok(Box::new(RocksEngine::open(dir, &self.options, &SPACES)?))
    }

    fn reopen(&mut self) -> bool {
        self.engine = None;
        self.open(self.dir.clone());
        true
    }

    fn crash(&mut self) -> bool {
        self.crashes += 1;
        let copy = self.scratch.path().join(format!("crashed-{}", self.crashes));
        copy_files(&self.dir, &copy);
        self.engine = None;
        self.open(copy);
        true
    }
}

/// Copies the files of a directory as they are at one moment. An engine that has it open may remove files in the
/// background, so a copy counts only when no file came, went or grew meanwhile.
pub(crate) fn copy_files(from: &Path, to: &Path) {
    let listing = || {
        let entries = fs::read_dir(from).unwrap().map(Result::unwrap);
        let mut files: Vec<_> =
            entries.filter_map(|entry| Some((entry.file_name(), entry.metadata().ok()?.len()))).collect();
        files.sort();
        files
    };
    loop {
        let before = listing();
        fs::create_dir(to).unwrap();
        let copied = before.iter().try_for_each(|(name, _)| fs::copy(from.join(name), to.join(name)).map(drop));
        if copied.is_ok() && listing() == before {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

/// Every pair of a space.
pub(crate) fn pairs(engine: &dyn Engine, space: tandem_storage::Space) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = Vec::new();
    engine
        .scan(space, b"", b"", tandem_storage::Direction::Forward, &mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    pairs
}
