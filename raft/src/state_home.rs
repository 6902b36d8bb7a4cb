//! Where a shard's state and its snapshots lie on disk.
//!
//! ```text
//! <shard>/CURRENT               the name of the state directory in use
//! <shard>/state-0000000001/     a state engine
//! <shard>/snapshots/00…042/     a checkpoint of it, complete up to log entry 42, and in CONTENTS what it consists of
//! <shard>/snapshots/building/   one that is not finished, removed at start; so is one being removed, in removing/
//! <shard>/incoming/             one that comes from another node, in CONTENTS what it will consist of: goes on after a start
//! <shard>/received/             one that came and is being installed, removed at start
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tandem_storage::{Engine, Error};

use crate::{
    apply::OpenState,
    contents::{Contents, KnownSums},
    error::FatalError,
    snapshot::{SnapshotDir, position_of},
    state_machine::EngineSlot,
    type_config::SnapshotMeta,
};

/// Between two looks at who still reads from a state that was replaced.
const UNUSED_POLL: Duration = Duration::from_millis(100);

/// Whether snapshots are made; one at a time, because they share a directory.
#[derive(Default)]
struct Making {
    has_ended: bool,
    /// Of the files of the newest snapshot.
    known: KnownSums,
}

/// The directory of one shard.
#[derive(Clone)]
pub(crate) struct StateHome {
    dir: PathBuf,
    opener: Arc<dyn OpenState>,
    making: Arc<Mutex<Making>>,
    /// Complete ones, the newest last. Others are there as long as they are being sent.
    complete: Arc<Mutex<Vec<SnapshotDir>>>,
}

impl StateHome {
    /// Prepares the directory and removes what an interrupted run left unfinished.
    pub(crate) fn prepare(dir: PathBuf, opener: Arc<dyn OpenState>) -> Result<Self, FatalError> {
        let home = Self { dir, opener, making: Arc::default(), complete: Arc::default() };
        fs::create_dir_all(home.snapshots()).map_err(failed("creating a shard directory"))?;
        home.remove_unfinished_snapshots()?;
        remove(&home.received())?;
        home.remove_stale_states()?;
        home.complete.lock().extend(home.find_snapshot()?);
        Ok(home)
    }

    fn remove_stale_states(&self) -> Result<(), Error> {
        let current = self.current()?;
        for entry in fs::read_dir(&self.dir).map_err(failed("listing a shard directory"))? {
            let entry = entry.map_err(failed("listing a shard directory"))?;
            let name = entry.file_name();
            let stale = name.to_string_lossy().starts_with("state-")
                && current.as_deref().is_some_and(|current| current.file_name() != Some(&name));
            if stale {
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Opens the state in use, or an empty one in a new shard.
    pub(crate) fn open_state(&self) -> Result<Arc<dyn Engine>, Error> {
        let path = match self.current()? {
            Some(path) => path,
            None => self.switch_to(1)?,
        };
        self.opener.open(&path)
    }

    /// Replaces the state by a copy of a snapshot, which becomes the newest one of this shard. Returns what it replaced: its
    /// engine, which readers may still hold, and its directory.
    pub(crate) fn install(
        &self,
        received: &SnapshotDir,
        meta: &SnapshotMeta,
        slot: &EngineSlot,
    ) -> Result<(Arc<dyn Engine>, Option<PathBuf>), FatalError> {
        // No snapshot is taken of a state that is being replaced.
        let mut making = self.making.lock();
        let old = self.current()?;
        let number = old.as_deref().and_then(number_of).unwrap_or(0) + 1;
        let new = self.state(number);
        remove(&new)?;
        // Before an engine opens the directory, and writes files of its own into it.
        making.known.learn(&received.path, &received.contents);
        self.opener.open(&received.path)?.checkpoint(&new)?;
        let engine = self.opener.open(&new)?;
        let found = position_of(engine.as_ref())?;
        if found.last_log_id != meta.last_log_id {
            let detail = format!("reaches {:?}, not {:?} as announced", found.last_log_id, meta.last_log_id);
            return Err(FatalError::Record { place: "snapshot".into(), detail });
        }
        // The snapshot before the state: a log that begins behind it may be on disk by then, and a follower needs one that
        // reaches that far.
        let kept = self.keep(&received.path, found, &mut making.known)?;
        self.complete.lock().push(kept);
        self.switch_to(number)?;
        let old_engine = std::mem::replace(&mut *slot.lock(), engine);
        self.remove_old()?;
        Ok((old_engine, old))
    }

    /// Gives a received snapshot its name among those of this shard.
    fn keep(&self, received: &Path, meta: SnapshotMeta, known: &mut KnownSums) -> Result<SnapshotDir, Error> {
        let path = self.snapshot_path(&meta);
        if received == path || path.exists() {
            return with_contents(path, meta, known);
        }
        let building = self.building();
        let from = if received == self.received() {
            received
        } else {
            // Somebody else's: it stays where it is.
            remove(&building)?;
            self.opener.open(received)?.checkpoint(&building)?;
            &building
        };
        let built = with_contents(from.to_owned(), meta, known)?;
        fs::rename(from, &path).map_err(failed("naming a snapshot"))?;
        sync_dir(&self.snapshots())?;
        Ok(SnapshotDir { path, contents: built.contents })
    }

    fn snapshot_path(&self, meta: &SnapshotMeta) -> PathBuf {
        self.snapshots().join(format!("{:020}", meta.last_log_id.map_or(0, |id| id.index)))
    }

    /// Removes a state directory once nobody reads from it any more. What is left at the end of the process goes with the
    /// next start.
    pub(crate) async fn remove_unused(engine: Arc<dyn Engine>, dir: PathBuf) {
        while Arc::strong_count(&engine) > 1 {
            tokio::time::sleep(UNUSED_POLL).await;
        }
        drop(engine);
        let removed = tokio::task::spawn_blocking(move || remove(&dir)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, "an old state was not removed; the next start does it");
        }
    }

    /// Where a snapshot that comes from another node is put together.
    pub(crate) fn incoming(&self) -> PathBuf {
        self.dir.join("incoming")
    }

    /// Where it lies once it is complete.
    pub(crate) fn received(&self) -> PathBuf {
        self.dir.join("received")
    }

    /// Removes what came of a snapshot that is no news for a state that reaches so far.
    pub(crate) fn remove_stale_incoming(&self, applied: u64) -> Result<(), Error> {
        let incoming = self.incoming();
        match Contents::announced(&incoming) {
            Some(contents) if contents.index() > applied => Ok(()),
            _ => remove(&incoming),
        }
    }

    /// Takes a snapshot of the state; it replaces the one before.
    pub(crate) fn take_snapshot(&self, slot: &EngineSlot) -> Result<SnapshotDir, FatalError> {
        let mut making = self.making.lock();
        if making.has_ended {
            return Err(
                Error::Io { doing: "taking a snapshot", source: io::Error::other("the shard has ended") }.into()
            );
        }
        let engine = Arc::clone(&slot.lock());
        let building = self.building();
        remove(&building)?;
        engine.checkpoint(&building)?;
        // The copy may be newer than anything known before it was taken, so it is asked itself.
        let meta = position_of(self.opener.open(&building)?.as_ref())?;
        let path = self.snapshot_path(&meta);
        if let Some(there) = self.newest_snapshot().filter(|newest| newest.path == path) {
            remove(&building)?;
            return Ok(there);
        }
        let built = with_contents(building.clone(), meta, &mut making.known)?;
        remove(&path)?;
        fs::rename(&building, &path).map_err(failed("naming a snapshot"))?;
        sync_dir(&self.snapshots())?;
        let taken = SnapshotDir { path, contents: built.contents };
        self.complete.lock().push(taken.clone());
        self.remove_old()?;
        self.remove_stale_incoming(taken.contents.index())?;
        Ok(taken)
    }

    /// Waits until nothing works on the directory, and lets nothing begin: another node may open it.
    pub(crate) fn end(&self) {
        self.making.lock().has_ended = true;
    }

    /// The newest complete snapshot. From memory: it may be replaced at any time, so nobody opens it to ask.
    pub(crate) fn newest_snapshot(&self) -> Option<SnapshotDir> {
        self.complete.lock().last().cloned()
    }

    fn find_snapshot(&self) -> Result<Option<SnapshotDir>, FatalError> {
        let mut newest: Option<PathBuf> = None;
        for entry in fs::read_dir(self.snapshots()).map_err(failed("listing snapshots"))? {
            let path = entry.map_err(failed("listing snapshots"))?.path();
            if is_snapshot(&path) {
                newest = newest.max(Some(path));
            }
        }
        let Some(path) = newest else { return Ok(None) };
        let known = &mut self.making.lock().known;
        if let Some(contents) = Contents::recorded(&path, known) {
            return Ok(Some(SnapshotDir { path, contents: Arc::new(contents) }));
        }
        let meta = position_of(self.opener.open(&path)?.as_ref())?;
        Ok(Some(with_contents(path, meta, known)?))
    }

    /// Everything that is not named after a log index: what a kill left of a snapshot in the making, also under the names
    /// that an engine uses meanwhile.
    fn remove_unfinished_snapshots(&self) -> Result<(), Error> {
        for entry in fs::read_dir(self.snapshots()).map_err(failed("listing snapshots"))? {
            let path = entry.map_err(failed("listing snapshots"))?.path();
            if !is_snapshot(&path) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Removes all but the newest snapshot, and those that somebody still reads.
    fn remove_old(&self) -> Result<(), Error> {
        let kept: Vec<PathBuf> = {
            let mut complete = self.complete.lock();
            let newest = complete.len() - 1;
            let mut place = 0;
            complete.retain(|one| {
                place += 1;
                place > newest || Arc::strong_count(&one.contents) > 1
            });
            complete.iter().map(|one| one.path.clone()).collect()
        };
        for entry in fs::read_dir(self.snapshots()).map_err(failed("listing snapshots"))? {
            let path = entry.map_err(failed("listing snapshots"))?.path();
            if !kept.contains(&path) {
                self.remove_whole(&path)?;
            }
        }
        Ok(())
    }

    /// Takes the name away first: a start finds all of a snapshot or nothing.
    fn remove_whole(&self, path: &Path) -> Result<(), Error> {
        let removing = self.snapshots().join("removing");
        remove(&removing)?;
        fs::rename(path, &removing).map_err(failed("removing an old snapshot"))?;
        remove(&removing)
    }

    fn current(&self) -> Result<Option<PathBuf>, Error> {
        match fs::read_to_string(self.dir.join("CURRENT")) {
            Ok(name) => Ok(Some(self.dir.join(name.trim()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading CURRENT of a shard")(error)),
        }
    }

    fn switch_to(&self, number: u64) -> Result<PathBuf, Error> {
        let path = self.state(number);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = self.dir.join("CURRENT.new");
        fs::write(&temporary, name).map_err(failed("writing CURRENT of a shard"))?;
        fs::File::open(&temporary).and_then(|file| file.sync_all()).map_err(failed("syncing CURRENT of a shard"))?;
        fs::rename(&temporary, self.dir.join("CURRENT")).map_err(failed("renaming CURRENT of a shard"))?;
        sync_dir(&self.dir)?;
        Ok(path)
    }

    fn state(&self, number: u64) -> PathBuf {
        self.dir.join(format!("state-{number:010}"))
    }

    fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    fn building(&self) -> PathBuf {
        self.snapshots().join("building")
    }
}

/// Writes down what a snapshot consists of.
fn with_contents(path: PathBuf, meta: SnapshotMeta, known: &mut KnownSums) -> Result<SnapshotDir, Error> {
    let contents = Contents::of(&path, meta, known).map_err(failed("reading a snapshot"))?;
    contents.record(&path).map_err(failed("writing what a snapshot consists of"))?;
    Ok(SnapshotDir { path, contents: Arc::new(contents) })
}

fn is_snapshot(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
}

fn number_of(state: &Path) -> Option<u64> {
    state.file_name()?.to_str()?.strip_prefix("state-")?.parse().ok()
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    fs::File::open(dir).and_then(|file| file.sync_all()).map_err(failed("syncing a directory"))
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("removing an old directory")(error)),
        _ => Ok(()),
    }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| match source.kind() {
        io::ErrorKind::StorageFull => Error::Full { doing },
        _ => Error::Io { doing, source },
    }
}
