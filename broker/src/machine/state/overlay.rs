//! What commands have changed and the engine cannot show yet, in front of the engine.
//!
//! Several commands share one batch of writes, and after a restart many are applied at once: what one has written the next
//! must see. Everything a command reads goes through here; what only delivery reads (the runs of
//! inboxes and broadcasts) is written past it.

use std::{
    collections::{BTreeMap, HashMap},
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use bytes::Bytes;
use tandem_storage::{Direction, Engine, Space, WriteBatch};

/// Changes over an engine. See the module.
pub(super) struct Overlay {
    engine: Arc<dyn Engine>,
    /// Newest value by space and key; none where it was deleted.
    changed: BTreeMap<(u8, Bytes), Option<Bytes>>,
    /// The same for keys that no scan looks for, of which there are many.
    points: HashMap<(u8, Bytes), Option<Bytes>>,
    /// Of those, what is not in `writes` yet: it goes there by rising key, which the engine takes faster.
    new_points: Vec<(Space, Bytes, Bytes)>,
    /// Ranges that were deleted and that the engine still shows.
    hidden: Vec<(u8, Bytes, Bytes)>,
    writes: WriteBatch,
}

impl Overlay {
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self {
            engine,
            changed: BTreeMap::new(),
            points: HashMap::new(),
            new_points: Vec::new(),
            hidden: Vec::new(),
            writes: WriteBatch::new(),
        }
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        self.engine.as_ref()
    }

    pub(super) fn get(&self, space: Space, key: &Bytes) -> Result<Option<Bytes>, tandem_storage::Error> {
        let place = (space.0, key.clone());
        if let Some(value) = self.points.get(&place).or_else(|| self.changed.get(&place)) {
            return Ok(value.clone());
        }
        if self.is_hidden(space, key) {
            return Ok(None);
        }
        self.engine.get(space, key)
    }

    /// Visits what lies in a range, by rising key, until the visitor has enough.
    pub(super) fn scan(
        &self,
        space: Space,
        from: &Bytes,
        to: &Bytes,
        visit: &mut dyn FnMut(&Bytes, &Bytes) -> ControlFlow<()>,
    ) -> Result<(), tandem_storage::Error> {
        let bounds = (Bound::Included((space.0, from.clone())), Bound::Excluded((space.0, to.clone())));
        let mut changed = self.changed.range(bounds).peekable();
        let mut enough = false;
        self.engine.scan(space, from, to, Direction::Forward, &mut |key, value| {
            while let Some(((_, new), change)) = changed.next_if(|((_, new), _)| new.as_ref() < key) {
                if let Some(change) = change
                    && visit(new, change).is_break()
                {
                    enough = true;
                    return ControlFlow::Break(());
                }
            }
            let flow = match changed.next_if(|((_, new), _)| new.as_ref() == key) {
                Some(((_, new), Some(change))) => visit(new, change),
                Some((_, None)) => ControlFlow::Continue(()),
                None if self.is_hidden(space, key) => ControlFlow::Continue(()),
                None => visit(&Bytes::copy_from_slice(key), &Bytes::copy_from_slice(value)),
            };
            enough = flow.is_break();
            flow
        })?;
        if enough {
            return Ok(());
        }
        for ((_, key), change) in changed {
            if let Some(change) = change
                && visit(key, change).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.changed.insert((space.0, key.clone()), Some(value.clone()));
        self.writes.put(space, key, value);
    }

    /// The same for a key that is only ever put with this, removed with its range, and never part of a scan.
    pub(super) fn put_point(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.points.insert((space.0, key.clone()), Some(value.clone()));
        self.new_points.push((space, key, value));
    }

    fn write_points(&mut self) {
        // Stable: of several values of a key the newest stays behind the others.
        self.new_points.sort_by(|(_, one, _), (_, other, _)| one.cmp(other));
        for (space, key, value) in self.new_points.drain(..) {
            self.writes.put(space, key, value);
        }
    }

    pub(super) fn delete(&mut self, space: Space, key: Bytes) {
        self.changed.insert((space.0, key.clone()), None);
        self.writes.delete(space, key);
    }

    pub(super) fn delete_range(&mut self, space: Space, from: Bytes, to: Bytes) {
        let bounds = (Bound::Included((space.0, from.clone())), Bound::Excluded((space.0, to.clone())));
        self.changed.range_mut(bounds).for_each(|(_, value)| *value = None);
        let removed = |place: &(u8, Bytes)| place.0 == space.0 && place.1 >= from && place.1 < to;
        self.points.iter_mut().filter(|(place, _)| removed(place)).for_each(|(_, value)| *value = None);
        self.write_points();
        self.hidden.push((space.0, from.clone(), to.clone()));
        self.writes.delete_range(space, from, to);
    }

    /// Writes of what is never read through here.
    pub(super) fn unread(&mut self) -> &mut WriteBatch {
        &mut self.writes
    }

    /// Gives away the writes since the last call.
    pub(super) fn take_writes(&mut self, writes: &mut WriteBatch) {
        self.write_points();
        writes.append(&mut self.writes);
    }

    /// The engine shows everything.
    pub(super) fn visible(&mut self) {
        self.changed.clear();
        self.points.clear();
        self.hidden.clear();
    }

    fn is_hidden(&self, space: Space, key: &[u8]) -> bool {
        self.hidden.iter().any(|(hidden, from, to)| *hidden == space.0 && key >= from.as_ref() && key < to.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tandem_storage::{Durability, MemoryEngine};

    use super::*;

    const SPACE: Space = Space(0);

    fn key(number: u8) -> Bytes {
        Bytes::copy_from_slice(&[number])
    }

    /// Keys of points; scans look below them.
    const POINTS: std::ops::Range<u8> = 200..216;

    #[derive(Debug, Clone)]
    enum Change {
        Put(u8, u8),
        PutPoint(u8, u8),
        Delete(u8),
        DeleteRange(u8, u8),
        Visible,
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            6 => (0u8..16, any::<u8>()).prop_map(|(key, value)| Change::Put(key, value)),
            4 => (POINTS, any::<u8>()).prop_map(|(key, value)| Change::PutPoint(key, value)),
            3 => (0u8..16).prop_map(Change::Delete),
            1 => (0u8..16, 0u8..16).prop_map(|(from, to)| Change::DeleteRange(from.min(to), from.max(to) + 1)),
            1 => (POINTS, POINTS).prop_map(|(from, to)| Change::DeleteRange(from.min(to), from.max(to) + 1)),
            1 => Just(Change::Visible),
        ]
    }

    proptest! {
        /// What is read through the overlay is what a plain map has, whenever the engine catches up.
        #[test]
        fn an_overlay_is_a_map(changes in prop::collection::vec(change(), 0..40), from in 0u8..16, limit in 1usize..20) {
            let engine = Arc::new(MemoryEngine::new(1));
            let mut overlay = Overlay::new(engine.clone());
            let mut map = BTreeMap::new();
            for change in changes {
                match change {
                    Change::Put(at, value) => {
                        overlay.put(SPACE, key(at), key(value));
                        map.insert(key(at), key(value));
                    }
                    Change::PutPoint(at, value) => {
                        overlay.put_point(SPACE, key(at), key(value));
                        map.insert(key(at), key(value));
                    }
                    Change::Delete(at) => {
                        overlay.delete(SPACE, key(at));
                        map.remove(&key(at));
                    }
                    Change::DeleteRange(from, to) => {
                        overlay.delete_range(SPACE, key(from), key(to));
                        map.retain(|at, _| *at < key(from) || *at >= key(to));
                    }
                    Change::Visible => {
                        let mut writes = WriteBatch::new();
                        overlay.take_writes(&mut writes);
                        engine.write(writes, Durability::Deferred).unwrap();
                        overlay.visible();
                    }
                }
                for at in (0..16).chain(POINTS) {
                    prop_assert_eq!(overlay.get(SPACE, &key(at)).unwrap(), map.get(&key(at)).cloned());
                }
                let mut seen = Vec::new();
                overlay.scan(SPACE, &key(from), &key(200), &mut |at, value| {
                    seen.push((at.clone(), value.clone()));
                    if seen.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                }).unwrap();
                let expected: Vec<_> =
                    map.range(key(from)..key(200)).take(limit).map(|(at, value)| (at.clone(), value.clone())).collect();
                prop_assert_eq!(seen, expected);
            }
        }
    }
}
