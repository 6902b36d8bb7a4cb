//! What a deterministic simulation of a cluster needs of this crate: many nodes on one thread, each on a tokio runtime of its
//! own with one worker and a paused clock, over simulated disks and wires. Nothing here is used in production.

use crate::random;

/// A disk whose fsync takes from nothing to this long. The commits of a node that has one are made by a task in simulated time,
/// not by a thread.
#[derive(Debug, Clone, Copy)]
pub struct SlowDisk {
    /// In microseconds.
    pub longest_sync_us: u64,
}

/// A fault that is built in on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// A leader takes an append for answered once it is sent, before any follower has it.
    AcknowledgedBeforeQuorum,
}

/// How a node is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    /// Its disk.
    pub disk: SlowDisk,
    /// What is wrong with it.
    pub planted: Option<Planted>,
}

/// Election timeouts, challenges and the times of a [`SlowDisk`] are, on this thread from now on, what this seed gives.
pub fn seed(seed: u64) {
    random::seed(seed);
}
