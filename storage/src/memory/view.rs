//! Consistent views for running scans, paid for by the writes that would change them.
//!
//! A scan copies a chunk of pairs, lets go of the lock, and visits them. Until it comes back for the next chunk it is
//! registered here. A write that touches the part which the scan has not seen copies that part first, as it was.

use std::{
    collections::VecDeque,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::Map;
use crate::{Direction, Operation, Space};

type Pair = (Bytes, Bytes);

/// The part of a range that a scan has still to see.
#[derive(Debug)]
pub(super) struct Cursor {
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    direction: Direction,
    done: bool,
}

impl Cursor {
    /// All keys with `from <= key < to`, where an empty `to` is no bound. The caller has checked that `from < to`.
    pub(super) fn new(from: &[u8], to: &[u8], direction: Direction) -> Self {
        let from = Bound::Included(Bytes::copy_from_slice(from));
        let to = if to.is_empty() { Bound::Unbounded } else { Bound::Excluded(Bytes::copy_from_slice(to)) };
        Self { from, to, direction, done: false }
    }

    /// Copies up to `limit` pairs and moves past them.
    pub(super) fn take(&mut self, map: &Map, limit: usize) -> Vec<Pair> {
        if self.done {
            return Vec::new();
        }
        let owned = |(key, value): (&Bytes, &Bytes)| (key.clone(), value.clone());
        let range = map.range::<[u8], _>((slice_bound(&self.from), slice_bound(&self.to)));
        let pairs: Vec<Pair> = match self.direction {
            Direction::Forward => range.take(limit).map(owned).collect(),
            Direction::Backward => range.rev().take(limit).map(owned).collect(),
        };
        match pairs.last() {
            Some((key, _)) if pairs.len() == limit => {
                let behind = Bound::Excluded(key.clone());
                match self.direction {
                    Direction::Forward => self.from = behind,
                    Direction::Backward => self.to = behind,
                }
            }
            _ => self.done = true,
        }
        pairs
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    fn covers(&self, key: &[u8]) -> bool {
        RangeBounds::<[u8]>::contains(&(slice_bound(&self.from), slice_bound(&self.to)), key)
    }

    fn is_touched_by(&self, operation: &Operation) -> bool {
        match operation {
            Operation::Put(_, key, _) | Operation::Delete(_, key) => self.covers(key),
            Operation::DeleteRange(_, from, to) => {
                let begins_before_our_end = match &self.to {
                    Bound::Excluded(end) => from < end,
                    Bound::Included(end) => from <= end,
                    Bound::Unbounded => true,
                };
                let ends_behind_our_begin = match &self.from {
                    Bound::Included(begin) | Bound::Excluded(begin) => to > begin,
                    Bound::Unbounded => true,
                };
                from < to && begins_before_our_end && ends_behind_our_begin
            }
        }
    }
}

/// Where a running scan finds its next pairs.
#[derive(Debug)]
enum Rest {
    /// In the map, which no write has changed there.
    InMap(Cursor),
    /// Here, because a write was about to change them.
    Kept(VecDeque<Pair>),
}

#[derive(Debug)]
struct View {
    space: Space,
    rest: Mutex<Rest>,
}

/// The running scans of an engine. Locks are taken in this order: the engine's map, the list, one view.
#[derive(Debug, Default)]
pub(super) struct Views(Mutex<Vec<Arc<View>>>);

impl Views {
    /// To be called under the same read lock under which the cursor took its first pairs.
    pub(super) fn register(&self, space: Space, cursor: Cursor) -> Running<'_> {
        let view = Arc::new(View { space, rest: Mutex::new(Rest::InMap(cursor)) });
        self.0.lock().push(Arc::clone(&view));
        Running { views: self, view }
    }

    /// To be called under the write lock, before the operations are applied.
    pub(super) fn preserve(&self, spaces: &[Map], operations: &[Operation]) {
        for view in self.0.lock().iter() {
            let mut rest = view.rest.lock();
            if let Rest::InMap(cursor) = &mut *rest
                && operations.iter().any(|change| change.space() == view.space && cursor.is_touched_by(change))
            {
                let map = &spaces[usize::from(view.space.0)];
                *rest = Rest::Kept(cursor.take(map, usize::MAX).into());
            }
        }
    }
}

/// A registered scan; dropping it ends the registration, also when the visitor panics.
#[derive(Debug)]
pub(super) struct Running<'a> {
    views: &'a Views,
    view: Arc<View>,
}

impl Running<'_> {
    /// The next pairs, none at the end. To be called under the read lock of the map.
    pub(super) fn take(&self, map: &Map, limit: usize) -> Vec<Pair> {
        match &mut *self.view.rest.lock() {
            Rest::InMap(cursor) => cursor.take(map, limit),
            Rest::Kept(pairs) => {
                let count = limit.min(pairs.len());
                pairs.drain(..count).collect()
            }
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.views.0.lock().retain(|view| !Arc::ptr_eq(view, &self.view));
    }
}

fn slice_bound(bound: &Bound<Bytes>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| &key[..])
}
