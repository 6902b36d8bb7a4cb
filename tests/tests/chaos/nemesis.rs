//! What happens to the cluster: faults, drawn from the seed, some of them at the same time, each healed after a while.

mod clock;
mod disk;
mod kill;
mod links;
mod members;
mod partition;
mod pause;
mod restart;

use std::{sync::Arc, time::Duration};

use tandem_tests::{Random, now};
use tokio::task::JoinSet;

use crate::arena::{Arena, disk as disk_and_clock};

/// The faults there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// kill -9: one node, or several, or all.
    Kill,
    /// SIGSTOP, and SIGCONT after a while.
    Pause,
    /// Nodes that do not hear each other, or their clients.
    Partition,
    /// Links that are slow, or lose packets.
    Links,
    /// A disk without any room left.
    Disk,
    /// A clock that is set, forwards or backwards.
    Clock,
    /// All nodes one after the other, in order.
    Restart,
    /// Leaders that move, and nodes that come and go.
    Members,
}

impl Kind {
    /// All of them.
    pub(crate) const ALL: &[Self] =
        &[Self::Kill, Self::Pause, Self::Partition, Self::Links, Self::Disk, Self::Clock, Self::Restart, Self::Members];

    /// As in `TANDEM_CHAOS_FAULTS` and in the output.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Partition => "partition",
            Self::Links => "links",
            Self::Disk => "disk",
            Self::Clock => "clock",
            Self::Restart => "restart",
            Self::Members => "members",
        }
    }

    /// Whether this machine has what it takes.
    async fn is_possible(self, arena: &Arena) -> bool {
        match self {
            Self::Links => arena.network.is_isolated(),
            Self::Disk => arena.seat(0).await.disk.can_be_filled(),
            Self::Clock => disk_and_clock::clocks_can_be_shifted(),
            Self::Kill | Self::Pause | Self::Partition | Self::Restart | Self::Members => true,
        }
    }

    pub(crate) fn named(name: &str) -> Self {
        let found = Self::ALL.iter().find(|kind| kind.name() == name);
        *found.unwrap_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            panic!("TANDEM_CHAOS_FAULTS: {name:?} is none of {}", names.join(", "))
        })
    }
}

/// Faults at the same time.
const TOGETHER: usize = 2;
/// How long a fault stays, in milliseconds.
const STAYS_MS: (u64, u64) = (500, 6_000);
/// Between the end of one and the next, in milliseconds.
const PAUSE_MS: (u64, u64) = (200, 4_000);

/// One fault: where it happens, what it may draw, and how long it stays.
pub(crate) struct Scene {
    arena: Arc<Arena>,
    random: Random,
    stays: Duration,
    began: std::time::Instant,
}

impl Scene {
    /// Tells what happens.
    fn say(&self, text: impl AsRef<str>) {
        println!("{:7.1}s  {}", self.began.elapsed().as_secs_f64(), text.as_ref());
    }

    /// Some of the seats that have a node: between so many and so many of them.
    async fn some(&mut self, least: usize, most: usize) -> Vec<usize> {
        let mut taken = self.arena.taken().await;
        let count = self.random.between(least as u64, most.min(taken.len()) as u64) as usize;
        while taken.len() > count {
            let out = self.random.between(0, taken.len() as u64 - 1) as usize;
            taken.remove(out);
        }
        taken
    }
}

/// Strikes until the time is over, and returns when everything is healed, with how often each fault came.
pub(crate) async fn rage(
    arena: &Arc<Arena>,
    kinds: &[Kind],
    duration: Duration,
    random: &mut Random,
) -> Vec<(Kind, u32)> {
    let began = now();
    let mut counts = Vec::new();
    for kind in kinds {
        match kind.is_possible(arena).await {
            true => counts.push((*kind, 0)),
            false => println!("this machine has not what it takes for {}: left out", kind.name()),
        }
    }
    let mut raging: JoinSet<Kind> = JoinSet::new();
    while began.elapsed() < duration && arena.complaints().is_empty() {
        if !counts.is_empty() && raging.len() < TOGETHER {
            let drawn = random.between(0, counts.len() as u64 - 1) as usize;
            let (kind, count) = &mut counts[drawn];
            *count += 1;
            let stays = Duration::from_millis(random.between(STAYS_MS.0, STAYS_MS.1));
            let scene = Scene { arena: Arc::clone(arena), random: random.fork(), stays, began };
            raging.spawn(strike(*kind, scene));
        }
        let pause = Duration::from_millis(random.between(PAUSE_MS.0, PAUSE_MS.1));
        tokio::time::sleep(pause).await;
        while let Some(ended) = raging.try_join_next() {
            ended.unwrap();
        }
        arena.watch().await;
    }
    while let Some(ended) = raging.join_next().await {
        ended.unwrap();
    }
    counts
}

async fn strike(kind: Kind, scene: Scene) -> Kind {
    match kind {
        Kind::Kill => kill::strike(scene).await,
        Kind::Pause => pause::strike(scene).await,
        Kind::Partition => partition::strike(scene).await,
        Kind::Links => links::strike(scene).await,
        Kind::Disk => disk::strike(scene).await,
        Kind::Clock => clock::strike(scene).await,
        Kind::Restart => restart::strike(scene).await,
        Kind::Members => members::strike(scene).await,
    }
    kind
}
