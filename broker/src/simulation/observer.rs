//! Sees what every node applies, and compares it with what others applied under the same index.

use std::cell::{Cell, RefCell};

thread_local! {
    static NODE: Cell<u64> = const { Cell::new(0) };
    static SEEN: RefCell<Vec<Applied>> = const { RefCell::new(Vec::new()) };
}

/// A command that was applied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applied {
    pub(super) node: u64,
    pub(super) shard: u32,
    pub(super) index: u64,
    pub(super) hash: u64,
}

/// What happens from now on happens on this node.
pub(super) fn enter(node: u64) {
    NODE.set(node);
}

/// Called by the applier of a shard.
pub(crate) fn applied(shard: u32, index: u64, command: &[u8]) {
    let hash = xxhash_rust::xxh3::xxh3_64(command);
    SEEN.with_borrow_mut(|seen| seen.push(Applied { node: NODE.get(), shard, index, hash }));
}

/// What was applied since this was called last.
pub(super) fn take() -> Vec<Applied> {
    SEEN.take()
}
