//! A lot of ids: side by side in the order in which they came, and a small table that finds them. The table stays in the cache
//! of a processor, where a table of the ids themselves would not.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};

use crate::machine::state::KnownId;

/// An id and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecentId {
    pub(super) workspace: u32,
    pub(super) window: u32,
    pub(super) hash: u128,
    pub(super) known: KnownId,
}

/// See the module.
#[derive(Default)]
pub(super) struct Lot {
    ids: Vec<RecentId>,
    places: HashTable<u32>,
    state: RandomState,
}

impl Lot {
    pub(super) fn with_room(ids: usize) -> Self {
        Self { ids: Vec::with_capacity(ids), places: HashTable::with_capacity(ids), state: RandomState::default() }
    }

    pub(super) fn from_ids(ids: impl IntoIterator<Item = RecentId>) -> Self {
        let mut lot = Self::default();
        ids.into_iter().for_each(|id| lot.insert(id));
        lot
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(super) fn ids(&self) -> &[RecentId] {
        &self.ids
    }

    pub(super) fn get(&self, workspace: u32, hash: u128) -> Option<&RecentId> {
        let is_it = |at: &u32| (self.ids[*at as usize].workspace, self.ids[*at as usize].hash) == (workspace, hash);
        let at = self.places.find(self.state.hash_one((workspace, hash)), is_it)?;
        Some(&self.ids[*at as usize])
    }

    /// Of several under one id the newest stays.
    pub(super) fn insert(&mut self, id: RecentId) {
        let Self { ids, places, state } = self;
        let is_it = |at: &u32| (ids[*at as usize].workspace, ids[*at as usize].hash) == (id.workspace, id.hash);
        let rehash = |at: &u32| state.hash_one((ids[*at as usize].workspace, ids[*at as usize].hash));
        match places.entry(state.hash_one((id.workspace, id.hash)), is_it, rehash) {
            Entry::Occupied(known) => {
                let at = *known.get() as usize;
                ids[at] = id;
            }
            Entry::Vacant(free) => {
                free.insert(ids.len() as u32);
                ids.push(id);
            }
        }
    }

    /// Takes out the ids that are not to be kept.
    pub(super) fn split_off(&mut self, is_kept: impl Fn(&RecentId) -> bool) -> Vec<RecentId> {
        let (kept, taken): (Vec<_>, Vec<_>) = self.ids.iter().partition(|id| is_kept(id));
        if !taken.is_empty() {
            *self = Self::from_ids(kept);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_found_until_it_is_taken_out() {
        let id = |workspace, number: u64| RecentId {
            workspace,
            window: 1,
            hash: u128::from(number),
            known: KnownId { sequence: number, digest: 0, time_ms: 0 },
        };
        let mut lot = Lot::from_ids((0..1_000).flat_map(|number| [id(1, number), id(2, number)]));
        let newer = RecentId { window: 2, ..id(1, 7) };
        lot.insert(newer);
        assert_eq!((lot.len(), lot.get(1, 7), lot.get(2, 7)), (2_000, Some(&newer), Some(&id(2, 7))));
        assert_eq!(lot.split_off(|id| id.workspace == 2).len(), 1_000);
        assert!(
            (0..1_000).all(|number| lot.get(1, number).is_none() && lot.get(2, number) == Some(&id(2, number as u64)))
        );
        assert!(lot.split_off(|_| true).is_empty());
    }
}
