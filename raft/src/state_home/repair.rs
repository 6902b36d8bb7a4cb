//! A shard whose state or snapshot is damaged makes them anew at a start: from a sound snapshot of its own and the log behind
//! it, from the log alone where all of it is there, or else with a snapshot of another node.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use tandem_storage::{Engine, Pacer};

use super::{StateHome, failed, remove, sync_dir, with_contents};
use crate::{
    damage::{Guarded, Note, Part},
    error::FatalError,
    snapshot::{SnapshotDir, position_of},
    type_config::SnapshotMeta,
};

/// What a shard can begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sound {
    /// A state, or a snapshot, or a log from its beginning.
    Enough,
    /// Only a log that begins behind an entry. A snapshot of another node is needed that reaches at least that far.
    LogOnly,
}

impl StateHome {
    pub(crate) fn note(&self, part: fn(u32) -> Part) -> Note {
        Note::in_dir(&self.dir, part(self.shard))
    }

    /// Opens the state in use, and sets aside what is damaged. `purged` is the entry behind which the log begins.
    pub(crate) fn repair(&self, purged: u64) -> Result<Sound, FatalError> {
        let (state_note, snapshot_note) = (self.note(Part::State), self.note(Part::Snapshot));
        let suspected = state_note.exists() || snapshot_note.exists();
        let had_state = self.dir.join("CURRENT").exists();
        let state = self.open_sound_state(&state_note)?;
        // A state that was lost may have shared its files with the snapshot.
        if suspected || (had_state && state.is_none()) {
            self.check_snapshot()?;
        }
        let snapshot = self.newest_snapshot().map(|taken| taken.contents.index());
        if state.max(snapshot).unwrap_or(0) < purged {
            return Ok(Sound::LogOnly);
        }
        state_note.clear()?;
        snapshot_note.clear()?;
        Ok(Sound::Enough)
    }

    /// Up to where the state reaches; None where there is none, or none any more.
    fn open_sound_state(&self, note: &Note) -> Result<Option<u64>, FatalError> {
        let path = match self.current() {
            Ok(Some(path)) => path,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.give_up_states(note, &error.to_string())?;
                return Ok(None);
            }
        };
        if note.exists() {
            self.give_up_states(note, "it was found damaged before")?;
            return Ok(None);
        }
        let opened = self.opener.open(&path).map_err(FatalError::from);
        let opened = opened.and_then(|engine| Ok((position_of(engine.as_ref())?, engine)));
        match opened {
            Ok((meta, engine)) => {
                let guarded = Guarded::new(engine, note.clone(), self.fatal.clone());
                *self.opened.lock() = Some(Arc::new(guarded));
                Ok(meta.last_log_id.map(|id| id.index))
            }
            Err(error) if error.is_damage() => {
                self.give_up_states(note, &error.to_string())?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sets the states of this shard aside; there is one as a rule.
    fn give_up_states(&self, note: &Note, why: &str) -> Result<(), FatalError> {
        let shard = self.shard;
        tracing::error!(code = Part::State(shard).code(), shard, why, "the state is damaged; it is made anew");
        // A start that ends before this is done must not trust the snapshot either.
        if !note.exists() {
            drop(note.take_down(why));
        }
        let mut states = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed("listing a shard directory"))? {
            let path = entry.map_err(failed("listing a shard directory"))?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("state-")) {
                states.push(path);
            }
        }
        // The newest stays.
        states.sort();
        for path in states {
            self.set_aside(&path, "damaged-state")?;
        }
        match fs::remove_file(self.dir.join("CURRENT")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removing CURRENT of a shard")(error).into())
            }
            _ => Ok(sync_dir(&self.dir)?),
        }
    }

    /// Keeps one damaged state and one damaged snapshot for whoever wants to look at them, or has nothing else left: one bad
    /// byte in a file that both have condemns both.
    fn set_aside(&self, path: &Path, name: &str) -> Result<(), FatalError> {
        let damaged = self.dir.join(name);
        remove(&damaged)?;
        fs::rename(path, &damaged).map_err(failed("setting a damaged directory aside"))?;
        Ok(sync_dir(&self.dir)?)
    }

    /// Reads the newest snapshot as a whole, and gives it up where it is not sound.
    fn check_snapshot(&self) -> Result<(), FatalError> {
        let Some(taken) = self.newest_snapshot() else { return Ok(()) };
        match self.verify_copy(&taken.path, &mut |_| true) {
            Ok(_) => Ok(()),
            Err(error) if error.is_damage() => self.give_up_snapshot(&taken.path, &error.to_string()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn give_up_snapshot(&self, path: &Path, why: &str) -> Result<(), FatalError> {
        let shard = self.shard;
        tracing::error!(code = Part::Snapshot(shard).code(), shard, why, "a snapshot is damaged; it is given up");
        self.complete.lock().retain(|one| one.path != path);
        self.set_aside(path, "damaged-snapshot")
    }

    /// Reads a snapshot as a whole, in a copy made of links: an engine that opens a directory writes to it. Returns how many
    /// bytes were read.
    pub(crate) fn verify_copy(&self, snapshot: &Path, pace: &mut Pacer<'_>) -> Result<u64, FatalError> {
        self.in_copy(snapshot, |engine| Ok(engine.verify(pace)?))
    }

    /// Up to where a snapshot reaches, found out in a copy as well: it can be opened, then.
    pub(super) fn open_copy(&self, snapshot: &Path) -> Result<SnapshotMeta, FatalError> {
        self.in_copy(snapshot, position_of)
    }

    /// Leaves nothing of the copy, whatever comes of it.
    fn in_copy<T>(
        &self,
        snapshot: &Path,
        read: impl FnOnce(&dyn Engine) -> Result<T, FatalError>,
    ) -> Result<T, FatalError> {
        let copy = self.checking().join(self.checks.fetch_add(1, Ordering::Relaxed).to_string());
        let linked = link_all(snapshot, &copy).map_err(|error| failed("linking a snapshot")(error).into());
        let found = linked.and_then(|()| read(self.opener.open(&copy)?.as_ref()));
        let removed = remove(&copy);
        let found = found?;
        removed?;
        Ok(found)
    }

    /// Reads a snapshot that came from another node as a whole.
    ///
    /// # Errors
    /// Damage, also where it is not the snapshot that was announced.
    pub(crate) fn check_received(&self, received: &SnapshotDir, pace: &mut Pacer<'_>) -> Result<(), FatalError> {
        let found = self.in_copy(&received.path, |engine| {
            engine.verify(pace)?;
            position_of(engine)
        })?;
        let announced = &received.contents.meta;
        if found.last_log_id == announced.last_log_id {
            return Ok(());
        }
        let detail = format!("reaches {:?}, not {:?} as announced", found.last_log_id, announced.last_log_id);
        Err(FatalError::Record { place: "snapshot of another node".into(), detail })
    }

    /// Takes over a snapshot that another node gave, and that was checked: the state is made of it.
    pub(crate) fn adopt(&self, received: &SnapshotDir) -> Result<(), FatalError> {
        let meta = received.contents.meta.clone();
        let path = self.snapshot_path(&meta);
        remove(&path)?;
        fs::rename(&received.path, &path).map_err(failed("naming a snapshot"))?;
        sync_dir(&self.snapshots())?;
        let adopted = {
            let mut making = self.making.lock();
            // They have been compared with what was announced, file by file.
            making.known.learn(&path, &received.contents);
            with_contents(path, meta, &mut making.known)?
        };
        self.complete.lock().push(adopted);
        self.remove_old()?;
        self.note(Part::State).clear()?;
        Ok(self.note(Part::Snapshot).clear()?)
    }
}

fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::hard_link(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
