//! Where a shard's state and its snapshots lie on disk.
//!
//! ```text
//! <shard>/CURRENT               the name of the state directory in use
//! <shard>/state-0000000001/     a state engine
//! <shard>/snapshots/00…042/     a checkpoint of it, complete up to log entry 42, and in CONTENTS what it consists of
//! <shard>/snapshots/building/   one that is not finished, removed at start; so is one being removed, in removing/
//! <shard>/incoming/             one that comes from another node, in CONTENTS what it will consist of: goes on after a start
//! <shard>/received/             one that came and is being installed, incoming again after a start
//! <shard>/checking/             links to a snapshot that is being verified, removed at start
//! <shard>/damaged-state/        the state that was found damaged last, for whoever wants to look at it; so damaged-snapshot/
//! <shard>/STATE-DAMAGED         the state was found damaged, and the next start sets it aside; so SNAPSHOT-DAMAGED
//! ```

mod lend;
mod repair;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use parking_lot::Mutex;
use tandem_storage::{Engine, Error};

use crate::{
    apply::OpenState,
    contents::{Contents, KnownSums},
    damage::{Guarded, Part},
    error::{FatalError, FatalSink},
    snapshot::{SnapshotDir, position_of},
    state_machine::EngineSlot,
    type_config::SnapshotMeta,
};

pub(crate) use self::repair::Sound;

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
    shard: u32,
    dir: PathBuf,
    opener: Arc<dyn OpenState>,
    making: Arc<Mutex<Making>>,
    /// Complete ones, the newest last. Others are there as long as they are being sent.
    complete: Arc<Mutex<Vec<SnapshotDir>>>,
    /// The state as it was found at the start, until somebody takes it.
    opened: Arc<Mutex<Option<Arc<dyn Engine>>>>,
    /// Numbers the copies that are verified: the scrub takes its time, and others do not wait for it.
    checks: Arc<AtomicU64>,
    fatal: FatalSink,
}

impl StateHome {
    /// Prepares the directory and removes what an interrupted run left unfinished.
    pub(crate) fn prepare(
        shard: u32,
        dir: PathBuf,
        opener: Arc<dyn OpenState>,
        fatal: FatalSink,
    ) -> Result<Self, FatalError> {
        let (making, complete, opened, checks) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let home = Self { shard, dir, opener, making, complete, opened, checks, fatal };
        fs::create_dir_all(home.snapshots()).map_err(failed("creating a shard directory"))?;
        home.remove_unfinished_snapshots()?;
        remove(&home.checking())?;
        if Contents::announced(&home.incoming()).is_none() {
            remove(&home.incoming())?;
        }
        home.take_up_received().map_err(failed("looking at what came of a snapshot"))?;
        home.remove_stale_states()?;
        let found = home.find_snapshot()?;
        home.complete.lock().extend(found);
        Ok(home)
    }

    fn remove_stale_states(&self) -> Result<(), Error> {
        // What cannot be read is dealt with by the repair.
        let Ok(current) = self.current() else { return Ok(()) };
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
        if let Some(opened) = self.opened.lock().take() {
            return Ok(opened);
        }
        let path = match self.current()? {
            Some(path) => path,
            None => self.switch_to(1)?,
        };
        self.open_guarded(&path)
    }

    fn open_guarded(&self, path: &Path) -> Result<Arc<dyn Engine>, Error> {
        let engine = self.opener.open(path)?;
        Ok(Arc::new(Guarded::new(engine, self.note(Part::State), self.fatal.clone())))
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
        let engine = self.open_guarded(&new)?;
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
        let removed = crate::blocking::run(move || remove(&dir)).await;
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

    /// Removes what lies there; nothing where nothing does.
    pub(crate) fn remove_received(&self) -> io::Result<()> {
        remove(&self.received()).map_err(io::Error::other)
    }

    /// What came as a whole and was not installed is the beginning of the next transfer, which looks at every byte of it.
    pub(crate) fn take_up_received(&self) -> io::Result<()> {
        let (received, incoming) = (self.received(), self.incoming());
        if Contents::announced(&received).is_some() && !incoming.exists() {
            return fs::rename(received, incoming);
        }
        self.remove_received()
    }

    /// Removes what came of a snapshot that is no news for a state that reaches so far. Without a readable record it is the
    /// beginning of a transfer, or the next one clears it.
    pub(crate) fn remove_stale_incoming(&self, applied: u64) -> Result<(), Error> {
        let incoming = self.incoming();
        match Contents::announced(&incoming) {
            Some(contents) if contents.index() <= applied => remove(&incoming),
            _ => Ok(()),
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

    /// Looks for the newest snapshot. One that cannot be opened is given up: it is a copy.
    fn find_snapshot(&self) -> Result<Option<SnapshotDir>, FatalError> {
        let mut newest: Option<PathBuf> = None;
        for entry in fs::read_dir(self.snapshots()).map_err(failed("listing snapshots"))? {
            let path = entry.map_err(failed("listing snapshots"))?.path();
            if is_snapshot(&path) {
                newest = newest.max(Some(path));
            }
        }
        let Some(path) = newest else { return Ok(None) };
        match self.open_copy(&path) {
            Ok(meta) => {
                let known = &mut self.making.lock().known;
                let recorded = Contents::recorded(&path, known).filter(|contents| contents.meta == meta);
                match recorded {
                    Some(contents) => Ok(Some(SnapshotDir { path, contents: Arc::new(contents) })),
                    None => Ok(Some(with_contents(path, meta, known)?)),
                }
            }
            Err(error) if error.is_damage() => {
                self.give_up_snapshot(&path, &error.to_string())?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
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
        match fs::read(self.dir.join("CURRENT")) {
            Ok(record) => match name_in(&record) {
                Some(name) => Ok(Some(self.dir.join(name))),
                None => Err(Error::Corrupt {
                    doing: "reading CURRENT of a shard",
                    detail: format!("{:?} is not what was written", String::from_utf8_lossy(&record)),
                }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("reading CURRENT of a shard")(error)),
        }
    }

    fn switch_to(&self, number: u64) -> Result<PathBuf, Error> {
        let path = self.state(number);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let temporary = self.dir.join("CURRENT.new");
        fs::write(&temporary, with_checksum(&name)).map_err(failed("writing CURRENT of a shard"))?;
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

    fn checking(&self) -> PathBuf {
        self.dir.join("checking")
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

/// What `CURRENT` holds: a name, and its checksum.
fn with_checksum(name: &str) -> String {
    format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()))
}

/// The name in `CURRENT`, if it is what was written. From before there were checksums it is a name and nothing else; no flipped
/// bit makes that of one with a checksum.
fn name_in(record: &[u8]) -> Option<&str> {
    let record = std::str::from_utf8(record).ok()?;
    if record
        .strip_prefix("state-")
        .is_some_and(|number| number.len() == 10 && number.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Some(record);
    }
    let (name, _) = record.split_once(' ')?;
    (record == with_checksum(name)).then_some(name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_state_comes_back_and_every_flipped_bit_is_found() {
        let record = with_checksum("state-0000000012").into_bytes();
        assert_eq!(name_in(&record), Some("state-0000000012"));
        for bit in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(name_in(&damaged), None, "bit {bit}");
        }
        assert_eq!(name_in(b"state-0000000012"), Some("state-0000000012"), "from before there were checksums");
        assert_eq!(name_in(b""), None);
    }
}
