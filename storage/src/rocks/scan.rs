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

/// Visits everything in `families`, which are the spaces in their order; the snapshot is the consistent view.
pub(super) fn all(
    db: &DB,
    families: &[&ColumnFamily],
    begun: &mut dyn FnMut(),
    visit: &mut SpaceVisitor<'_>,
) -> Result<(), rocksdb::Error> {
    let view = db.snapshot();
    begun();
    for (space, family) in (0..=u8::MAX).map(Space).zip(families) {
        let mut pairs = view.raw_iterator_cf_opt(family, past_caches());
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

/// Visits everything that is stored in `families`, as it comes: not one view, because whoever holds one for hours keeps every
/// file from being removed meanwhile. Lets go of what it reads after each `stride` bytes. Also visits what a range deletion
/// covers: its blocks are read again when files are merged, so whoever looks for damage must look there.
pub(super) fn stored(
    db: &DB,
    families: &[&ColumnFamily],
    stride: usize,
    visit: &mut SpaceVisitor<'_>,
) -> Result<(), rocksdb::Error> {
    for (space, family) in (0..=u8::MAX).map(Space).zip(families) {
        let mut last: Option<Vec<u8>> = None;
        loop {
            let mut options = past_caches();
            #[expect(deprecated, reason = "it has become needless for speed, and what it hides is wanted here")]
            options.set_ignore_range_deletions(true);
            let mut pairs = db.raw_iterator_cf_opt(family, options);
            match &last {
                None => pairs.seek_to_first(),
                Some(key) => {
                    pairs.seek(key);
                    if pairs.key() == Some(key) {
                        pairs.next();
                    }
                }
            }
            last = None;
            let mut read = 0;
            while let Some((key, value)) = pairs.item() {
                if visit(space, key, value) == ControlFlow::Break(()) {
                    return Ok(());
                }
                read += key.len() + value.len();
                if read >= stride {
                    last = Some(key.to_vec());
                    break;
                }
                pairs.next();
            }
            pairs.status()?;
            if last.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// For long scans, which must not push out what others need.
fn past_caches() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    options.set_total_order_seek(true);
    options.fill_cache(false);
    options.set_readahead_size(READAHEAD_BYTES);
    options
}

#[cfg(test)]
mod tests {
    use rocksdb::{DEFAULT_COLUMN_FAMILY_NAME, Options};

    use super::*;

    #[test]
    fn what_is_stored_is_visited_once_and_nothing_is_held_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.create_if_missing(true);
        let db = DB::open_cf(&options, dir.path(), [DEFAULT_COLUMN_FAMILY_NAME]).unwrap();
        let family = db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME).unwrap();
        let key = |number: u32| number.to_be_bytes();
        for number in 0..100 {
            db.put_cf(family, key(number), [7; 96]).unwrap();
        }
        db.delete_range_cf(family, key(40), key(50)).unwrap();
        let mut seen = Vec::new();
        stored(&db, &[family], 1_000, &mut |_, found, _| {
            if seen.is_empty() {
                db.put_cf(family, key(100), b"later").unwrap();
            }
            seen.push(found.to_vec());
            assert_eq!(db.property_int_value("rocksdb.num-snapshots").unwrap(), Some(0));
            ControlFlow::Continue(())
        })
        .unwrap();
        let expected: Vec<_> = (0..=100).map(|number| key(number).to_vec()).collect();
        assert_eq!(seen, expected, "also what was deleted, and what came after the beginning");
    }
}
