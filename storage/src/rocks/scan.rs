//! Ordered scans.

use std::ops::ControlFlow;

use rocksdb::{ColumnFamily, DB, ReadOptions};

use crate::{Direction, Space, SpaceVisitor, Visitor};

/// How much a scan of everything reads ahead, in bytes.
const READAHEAD_BYTES: usize = 1 << 20;

/// Visits `from <= key < to`; the iterator is the consistent view.
pub(super) fn run(
    db: &DB,
    family: &ColumnFamily,
    (from, to): (&[u8], &[u8]),
    direction: Direction,
    visit: &mut Visitor<'_>,
) -> Result<(), rocksdb::Error> {
    if !to.is_empty() && from >= to {
        return Ok(());
    }
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options.set_total_order_seek(true);
    // Tight bounds let RocksDB skip files and stop at tombstones outside the range.
    if !from.is_empty() {
        options.set_iterate_lower_bound(from);
    }
    if !to.is_empty() {
        options.set_iterate_upper_bound(to);
    }
    let mut pairs = db.raw_iterator_cf_opt(family, options);
    match direction {
        Direction::Forward => pairs.seek_to_first(),
        Direction::Backward => pairs.seek_to_last(),
    }
    while let Some((key, value)) = pairs.item() {
        if visit(key, value) == ControlFlow::Break(()) {
            return Ok(());
        }
        match direction {
            Direction::Forward => pairs.next(),
            Direction::Backward => pairs.prev(),
        }
    }
    // An invalid iterator is at its end or has failed.
    pairs.status()
}

/// Visits everything in `families`, which are the spaces in their order; the snapshot is the consistent view. With `deleted` also
/// what a range deletion covers: its blocks are read again when files are merged, so whoever looks for damage must look there.
pub(super) fn all(
    db: &DB,
    families: &[&ColumnFamily],
    deleted: bool,
    begun: &mut dyn FnMut(),
    visit: &mut SpaceVisitor<'_>,
) -> Result<(), rocksdb::Error> {
    let view = db.snapshot();
    begun();
    for (space, family) in (0..=u8::MAX).map(Space).zip(families) {
        let mut options = ReadOptions::default();
        options.set_verify_checksums(true);
        options.set_total_order_seek(true);
        #[expect(deprecated, reason = "it has become needless for speed, and what it hides is wanted here")]
        options.set_ignore_range_deletions(deleted);
        options.fill_cache(false);
        options.set_readahead_size(READAHEAD_BYTES);
        let mut pairs = view.raw_iterator_cf_opt(family, options);
        pairs.seek_to_first();
        while let Some((key, value)) = pairs.item() {
            if visit(space, key, value) == ControlFlow::Break(()) {
                return Ok(());
            }
            pairs.next();
        }
        pairs.status()?;
    }
    Ok(())
}
