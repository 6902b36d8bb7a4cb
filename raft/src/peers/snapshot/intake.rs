//! What becomes of a snapshot that comes for a shard: it is put together, verified and installed.
//!
//! The last step takes as long as reading all of it. It goes on when the connection ends, and whoever comes back asks how
//! far it is. Nothing else is taken in meanwhile: what lies there has one owner.

use std::{
    cmp::Ordering,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering as Atomically},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinSet};

use super::{
    super::wire::{Installed, SnapshotPiece},
    receive::Receiver,
};
use crate::{apply::Apply, contents::Contents, group::Group, pace::Pace, snapshot::Snapshot, type_config::Vote};

/// How long a question waits for the end of an installation before it is told that it goes on.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of one shard.
#[derive(Default)]
pub(crate) struct Intake {
    receiver: Receiver,
    last_transfer: AtomicU64,
    /// The one under way, or the last one.
    install: Mutex<Option<Install>>,
}

struct Install {
    transfer: u64,
    vote: Vote,
    contents: Arc<Contents>,
    /// None as long as it goes on.
    outcome: watch::Receiver<Option<Installed>>,
    /// Ends with the server.
    _task: JoinSet<()>,
}

impl Install {
    fn goes_on(&self) -> bool {
        self.outcome.borrow().is_none() && self.outcome.has_changed().is_ok()
    }
}

impl Intake {
    /// Begins a transfer, and returns its number: that of the one before, if that is this very snapshot and being installed.
    pub(crate) fn begin<A: Apply>(&self, vote: Vote, contents: Contents, group: &Group<A>) -> io::Result<u64> {
        // Who was deposed must not take the place of its successor's transfer.
        let current = group.vote();
        if vote.partial_cmp(&current).is_none_or(Ordering::is_lt) {
            return Err(io::Error::other(format!(
                "this node has voted {current}, and the snapshot comes under {vote}"
            )));
        }
        let install = self.install.lock();
        if let Some(running) = install.as_ref().filter(|install| install.goes_on()) {
            return if running.vote == vote && *running.contents == contents {
                Ok(running.transfer)
            } else {
                Err(busy())
            };
        }
        let transfer = self.last_transfer.fetch_add(1, Atomically::Relaxed) + 1;
        self.receiver.begin(transfer, vote, contents, group.home().incoming())?;
        Ok(transfer)
    }

    /// How many bytes of a file are there. Its next piece begins behind them; all: it is complete.
    pub(crate) fn file(&self, transfer: u64, place: u32) -> io::Result<u64> {
        if let Some(install) = self.install.lock().as_ref().filter(|install| install.transfer == transfer) {
            let file = install.contents.files.get(place as usize);
            return file.map(|file| file.bytes).ok_or_else(|| io::Error::other("the snapshot has no such file"));
        }
        self.receiver.file(transfer, place)
    }

    /// Stores a piece. Returns where the next one begins: at 0 when the file has come and is not what was announced.
    pub(crate) fn piece(&self, piece: &SnapshotPiece) -> io::Result<u64> {
        self.receiver.piece(piece)
    }

    /// All of it is there. Returns what came of it, or that it goes on.
    pub(crate) async fn end<A: Apply>(
        &self,
        transfer: u64,
        group: &Arc<Group<A>>,
        pace: Option<Pace>,
    ) -> io::Result<Installed> {
        let mut outcome = {
            let mut install = self.install.lock();
            match install.as_ref().filter(|install| install.transfer == transfer) {
                Some(install) => install.outcome.clone(),
                // Of a leader that woke up late: what lies there belongs to the other one.
                None if install.as_ref().is_some_and(Install::goes_on) => return Err(busy()),
                None => {
                    let home = group.home();
                    let (vote, snapshot) = crate::blocking::in_place(|| {
                        home.remove_received()?;
                        self.receiver.end(transfer, &home.received())
                    })?;
                    let contents = Arc::clone(&snapshot.snapshot.contents);
                    let (sender, outcome) = watch::channel(None);
                    let mut task = JoinSet::new();
                    let group = Arc::clone(group);
                    task.spawn(async move {
                        let came = install_received(&group, vote, snapshot, pace).await;
                        sender.send_replace(Some(came));
                    });
                    *install = Some(Install { transfer, vote, contents, outcome: outcome.clone(), _task: task });
                    outcome
                }
            }
        };
        match tokio::time::timeout(PATIENCE, outcome.wait_for(Option::is_some)).await {
            Ok(Ok(came)) => Ok(came.clone().unwrap_or(Installed::GoesOn)),
            Ok(Err(_)) => Err(io::Error::other("the installation ended without a result")),
            Err(_) => Ok(Installed::GoesOn),
        }
    }
}

fn busy() -> io::Error {
    io::Error::other("another snapshot is being installed; send this one when that is done")
}

async fn install_received<A: Apply>(
    group: &Arc<Group<A>>,
    vote: Vote,
    snapshot: Snapshot,
    pace: Option<Pace>,
) -> Installed {
    let (shard, reaches) = (group.shard(), snapshot.snapshot.contents.index());
    let came = match group.check_received(&snapshot.snapshot, pace).await {
        Err(error) if error.is_damage() => {
            tracing::error!(shard, reaches, %error, "a snapshot came whole, and is damaged; it is not installed");
            Installed::Damaged(error.to_string())
        }
        Err(error) => Installed::Failed(error.to_string()),
        Ok(()) => match group.raft().install_full_snapshot(vote, snapshot).await {
            Ok(installed) => Installed::Under(installed.vote),
            Err(error) => Installed::Failed(error.to_string()),
        },
    };
    let (home, applied) = (group.home().clone(), group.status().applied_index);
    let worth_keeping = reaches > applied && !matches!(came, Installed::Damaged(_));
    // Unless it became the snapshot of this node.
    let cleared =
        crate::blocking::in_place(|| if worth_keeping { home.take_up_received() } else { home.remove_received() });
    if let Err(error) = cleared {
        tracing::warn!(shard, %error, "what is left of a snapshot that came was not removed; the next one does it");
    }
    came
}
