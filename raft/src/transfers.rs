//! Who is being brought up with a snapshot, and what is kept for them meanwhile: the snapshot, and the log behind it.
//!
//! The log is purged up to [`Transfers::kept_from`] and no further: from the moment a snapshot begins to be sent until its
//! receiver no longer needs what a newer snapshot holds. That ends in three ways: the receiver has caught up; it has not
//! moved for [`STALLED_AFTER`]; or the log that is kept has become more than the snapshot itself (and more than an
//! operator allows), so that sending a newer one is the shorter way. Who was overtaken so gets the next one without a
//! limit of speed: a limit below the speed of the load would never end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{clock, snapshot::Snapshot};

/// A receiver that has got nothing for this long is not waited for. Longer than it may take to install a snapshot.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(180);

/// Where a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    UnderWay,
    /// The connection ended; the receiver keeps what it has.
    BrokenOff,
    /// The receiver has installed it, and gets the log behind it.
    Installed,
}

struct Transfer {
    /// Which one: a new attempt to the same node takes the place of the one before.
    number: u64,
    snapshot: Snapshot,
    phase: Phase,
    /// Bytes that the receiver has.
    there: u64,
    /// Of the log, when the snapshot began to be sent for the first time.
    log_bytes_before: u64,
    /// How far its log was when it was last looked at.
    matched: u64,
    moved: Instant,
    overtaken: watch::Sender<bool>,
}

#[derive(Default)]
struct Table {
    transfers: BTreeMap<u64, Transfer>,
    /// Who was overtaken by the log.
    hurried: BTreeSet<u64>,
    begun: u64,
}

/// All transfers of one shard. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Transfers {
    table: Arc<Mutex<Table>>,
    /// Bytes that were ever applied since the start.
    log_bytes: Arc<AtomicU64>,
}

/// What a shard looks like when its transfers are reviewed.
pub(crate) struct Look {
    /// None where this node does not lead.
    pub(crate) matched: Option<BTreeMap<u64, u64>>,
    /// Index of the newest snapshot.
    pub(crate) snapshot_index: u64,
    /// Bytes of the log that may be kept in any case.
    pub(crate) held_log_bytes: u64,
    pub(crate) now: Instant,
}

impl Transfers {
    /// The log has become longer.
    pub(crate) fn log_grew(&self, bytes: u64) {
        self.log_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A snapshot begins to be sent, or goes on to be.
    pub(crate) fn begin(&self, node: u64, snapshot: &Snapshot) -> Ticket {
        let mut table = self.table.lock();
        let (overtaken, watch) = watch::channel(false);
        let index = snapshot.snapshot.contents.index();
        let before = table.transfers.remove(&node).filter(|before| before.snapshot.snapshot.contents.index() == index);
        let log_bytes = self.log_bytes.load(Ordering::Relaxed);
        table.begun += 1;
        let number = table.begun;
        let transfer = Transfer {
            number,
            snapshot: snapshot.clone(),
            phase: Phase::UnderWay,
            there: 0,
            log_bytes_before: before.map_or(log_bytes, |before| before.log_bytes_before),
            matched: 0,
            moved: clock::now(),
            overtaken,
        };
        table.transfers.insert(node, transfer);
        let hurried = table.hurried.contains(&node);
        Ticket { transfers: self.clone(), node, number, overtaken: watch, hurried }
    }

    /// A snapshot that somebody has a part of, or gets right now: with it he goes on instead of beginning anew, and the log
    /// behind it is kept in any case.
    pub(crate) fn unfinished(&self) -> Option<Snapshot> {
        let table = self.table.lock();
        let unfinished = table.transfers.values().filter(|transfer| transfer.phase != Phase::Installed);
        unfinished.max_by_key(|transfer| transfer.snapshot.snapshot.contents.index()).map(|one| one.snapshot.clone())
    }

    /// Log entries behind this index are needed by somebody.
    pub(crate) fn kept_from(&self) -> Option<u64> {
        let table = self.table.lock();
        table.transfers.values().map(|transfer| transfer.snapshot.snapshot.contents.index()).min()
    }

    /// Whether nothing is kept for anybody.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.table.lock().transfers.is_empty()
    }

    /// Bytes that each receiver has, and all bytes of what it gets.
    pub(crate) fn progress(&self) -> BTreeMap<u64, (u64, u64)> {
        let table = self.table.lock();
        let running = table.transfers.iter().filter(|(_, transfer)| transfer.phase != Phase::Installed);
        running.map(|(node, one)| (*node, (one.there, one.snapshot.snapshot.contents.bytes()))).collect()
    }

    /// Forgets who needs nothing any more, and gives up who cannot be helped this way.
    pub(crate) fn review(&self, look: &Look) {
        let mut table = self.table.lock();
        let Some(matched) = &look.matched else {
            table.transfers.clear();
            table.hurried.clear();
            return;
        };
        let log_bytes = self.log_bytes.load(Ordering::Relaxed);
        let mut overtaken = Vec::new();
        table.transfers.retain(|node, transfer| {
            let Some(has) = matched.get(node).copied() else { return false };
            if has > transfer.matched {
                (transfer.matched, transfer.moved) = (has, look.now);
            }
            if transfer.phase == Phase::Installed && has >= look.snapshot_index {
                return false;
            }
            let contents = &transfer.snapshot.snapshot.contents;
            if look.now.saturating_duration_since(transfer.moved) >= STALLED_AFTER {
                tracing::warn!(node, "a node that gets a snapshot does not move; the log is not kept for it any more");
                transfer.overtaken.send_replace(true);
                return false;
            }
            let kept = log_bytes - transfer.log_bytes_before;
            if kept > contents.bytes().max(look.held_log_bytes) {
                tracing::warn!(
                    node,
                    kept,
                    "the log has overtaken a snapshot; a newer one goes without a limit of speed"
                );
                transfer.overtaken.send_replace(true);
                overtaken.push(*node);
                return false;
            }
            true
        });
        table.hurried.extend(overtaken);
        let Table { transfers, hurried, .. } = &mut *table;
        hurried.retain(|node| {
            let behind = matched.get(node).is_some_and(|has| *has < look.snapshot_index);
            behind || transfers.contains_key(node)
        });
    }
}

/// A snapshot is being sent for as long as this lives.
pub(crate) struct Ticket {
    transfers: Transfers,
    node: u64,
    number: u64,
    overtaken: watch::Receiver<bool>,
    /// Whether the limit of speed does not count.
    pub(crate) hurried: bool,
}

impl Ticket {
    /// The receiver has so many bytes more.
    pub(crate) fn moved(&self, bytes: u64) {
        self.with(|transfer| {
            transfer.there += bytes;
            transfer.moved = clock::now();
        });
    }

    /// Bytes that were counted must be sent again.
    pub(crate) fn moved_back(&self, bytes: u64) {
        self.with(|transfer| transfer.there = transfer.there.saturating_sub(bytes));
    }

    /// The receiver has installed it.
    pub(crate) fn installed(&self) {
        self.with(|transfer| {
            (transfer.phase, transfer.moved) = (Phase::Installed, clock::now());
        });
    }

    /// Resolves when it makes no sense to go on.
    pub(crate) async fn overtaken(&self) {
        let mut overtaken = self.overtaken.clone();
        // The sender is gone with a transfer that was given up, after it has said so, or that was replaced.
        overtaken.wait_for(|overtaken| *overtaken).await.ok();
    }

    fn with(&self, change: impl FnOnce(&mut Transfer)) {
        let mut table = self.transfers.table.lock();
        if let Some(transfer) = table.transfers.get_mut(&self.node).filter(|one| one.number == self.number) {
            change(transfer);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.with(|transfer| {
            if transfer.phase == Phase::UnderWay {
                transfer.phase = Phase::BrokenOff;
            }
        });
    }
}

#[cfg(test)]
#[path = "transfers_tests.rs"]
mod tests;
