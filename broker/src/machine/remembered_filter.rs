//! What may be remembered: in REMEMBERED, or in the recent ids that are on their way there.
//!
//! Nearly every message id is new, and the engine takes a microsecond to say that it does not have one. A blocked Bloom
//! filter says so in a tenth of that: one cache line per question, of a fixed size. It only saves lookups: what it may hold is
//! looked up, and with more keys than it is made for it merely says so more often.
//!
//! It is filled by and by from what the engine holds, a part with every batch of messages, and is asked once that is done.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::{Direction, Engine};

use super::{
    keys::{self, REMEMBERED, Remembered},
    recent_ids::RecentIds,
};

/// 4 MiB in blocks of a cache line.
const BLOCKS: usize = if cfg!(test) { 4 } else { 1 << 16 };
/// Bits that a key sets in its block.
const BITS: u32 = 6;
/// With so many keys, one of a hundred that are not there may be there: about ten bits a key.
const CAPACITY: u64 = BLOCKS as u64 * 512 / 10;
/// Keys that are read with a batch of messages.
const READ_AT_ONCE: usize = if cfg!(test) { 2 } else { 2_048 };

/// A key without its window.
pub(super) type Name = (u32, Remembered, u128);

struct Filter {
    blocks: Vec<[u64; 8]>,
    keys: u64,
}

impl Filter {
    fn new() -> Self {
        Self { blocks: vec![[0; 8]; BLOCKS], keys: 0 }
    }

    /// The place of a key: its block, and in it words and their bits.
    fn place((workspace, kind, hash): Name) -> (usize, [(usize, u64); BITS as usize]) {
        // The hash is evenly spread; the rest is stirred in by a multiplication with the golden ratio.
        let rest = (u64::from(workspace) << 8 | kind as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (low, high) = (hash as u64 ^ rest.rotate_left(32), (hash >> 64) as u64 ^ rest);
        let bits = std::array::from_fn(|number| {
            let bit = (high >> (number as u32 * 9)) % 512;
            ((bit / 64) as usize, 1 << (bit % 64))
        });
        ((low % BLOCKS as u64) as usize, bits)
    }

    fn add(&mut self, name: Name) {
        let (block, bits) = Self::place(name);
        let (block, mut news) = (&mut self.blocks[block], 0);
        for (word, bit) in bits {
            news |= bit & !block[word];
            block[word] |= bit;
        }
        self.keys += u64::from(news != 0);
    }

    fn may_hold(&self, name: Name) -> bool {
        // With no branch between the bits several questions are under way at the same time.
        let (block, bits) = Self::place(name);
        let block = &self.blocks[block];
        bits.into_iter().fold(0, |missing, (word, bit)| missing | (bit & !block[word])) == 0
    }
}

/// A filter that does not know all keys yet.
struct Loading {
    filter: Filter,
    /// From where the engine is to be read.
    from: Bytes,
}

impl Loading {
    fn new(recent: &RecentIds) -> Self {
        let mut filter = Filter::new();
        recent.names().for_each(|name| filter.add(name));
        Self { filter, from: Bytes::new() }
    }
}

/// See the module.
pub(super) struct RememberedFilter {
    filter: Option<Filter>,
    loading: Option<Loading>,
    is_renewal_wanted: bool,
}

impl RememberedFilter {
    pub(super) fn new(recent: &RecentIds) -> Self {
        Self { filter: None, loading: Some(Loading::new(recent)), is_renewal_wanted: false }
    }

    pub(super) fn may_hold(&self, name: Name) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_hold(name))
    }

    /// Something is remembered from now on.
    pub(super) fn add(&mut self, name: Name) {
        let loading = self.loading.as_mut().map(|loading| &mut loading.filter);
        self.filter.iter_mut().chain(loading).for_each(|filter| filter.add(name));
    }

    /// Reads on in what the engine holds.
    pub(super) fn load_some(&mut self, engine: &dyn Engine) -> Result<(), tandem_storage::Error> {
        let Some(loading) = &mut self.loading else { return Ok(()) };
        let (mut read, mut next) = (0, None);
        let filter = &mut loading.filter;
        engine.scan(REMEMBERED, &loading.from, &[], Direction::Forward, &mut |key, _| {
            if read == READ_AT_ONCE {
                next = Some(Bytes::copy_from_slice(key));
                return ControlFlow::Break(());
            }
            read += 1;
            if let Some(name) = keys::remembered_parts(key) {
                filter.add(name);
            }
            ControlFlow::Continue(())
        })?;
        match next {
            Some(next) => loading.from = next,
            None => self.filter = self.loading.take().map(|loading| loading.filter),
        }
        Ok(())
    }

    /// A window is over, and the keys in it are gone.
    pub(super) fn forget_some(&mut self) {
        self.is_renewal_wanted = self.filter.as_ref().is_some_and(|filter| filter.keys > CAPACITY / 2);
    }

    /// The engine shows everything that was written. Only now may it be read anew: nothing is between here and there.
    pub(super) fn visible(&mut self, recent: &RecentIds) {
        if std::mem::take(&mut self.is_renewal_wanted) {
            self.loading = Some(Loading::new(recent));
        }
    }
}

#[cfg(test)]
mod tests {
    use tandem_storage::{Durability, MemoryEngine, WriteBatch};

    use super::*;

    fn hash(number: u64) -> u128 {
        keys::text_hash(&number.to_string())
    }

    fn engine(ids: impl Iterator<Item = u64>) -> MemoryEngine {
        let engine = MemoryEngine::new(keys::SPACES.into());
        let mut writes = WriteBatch::new();
        for number in ids {
            writes.put(REMEMBERED, keys::remembered(1, 7, Remembered::Id, hash(number)), Bytes::new());
        }
        engine.write(writes, Durability::Deferred).unwrap();
        engine
    }

    #[test]
    fn an_id_that_is_there_may_be_there_and_most_others_are_not() {
        let mut ids = RememberedFilter::new(&RecentIds::default());
        let engine = engine(0..100);
        for added in 100..150 {
            assert!(
                (0..200).all(|number| ids.may_hold((1, Remembered::Id, hash(number)))),
                "nothing is ruled out before all is known"
            );
            ids.add((1, Remembered::Id, hash(added)));
            ids.load_some(&engine).unwrap();
        }
        while ids.loading.is_some() {
            ids.load_some(&engine).unwrap();
        }
        assert!((0..150).all(|number| ids.may_hold((1, Remembered::Id, hash(number)))));
        let wrong = (1_000..2_000).filter(|number| ids.may_hold((1, Remembered::Id, hash(*number)))).count();
        assert!(wrong < 50, "{wrong} of 1,000");
        assert!(
            (0..150).filter(|number| ids.may_hold((2, Remembered::Id, hash(*number)))).count() < 20,
            "workspaces are apart"
        );
        let of_kind = |kind| (0..150).filter(|number| ids.may_hold((1, kind, hash(*number)))).count();
        assert!(of_kind(Remembered::Producer) < 20, "kinds are apart");
    }

    #[test]
    fn a_filter_with_forgotten_ids_is_made_anew() {
        let mut ids = RememberedFilter::new(&RecentIds::default());
        let full = engine(0..CAPACITY);
        while ids.loading.is_some() {
            ids.load_some(&full).unwrap();
        }
        let few = engine(0..10);
        ids.forget_some();
        assert!(ids.loading.is_none(), "not before everything can be read");
        ids.visible(&RecentIds::default());
        ids.add((1, Remembered::Id, hash(5_000)));
        while ids.loading.is_some() {
            assert!(ids.may_hold((1, Remembered::Id, hash(5_000))));
            ids.load_some(&few).unwrap();
        }
        assert!((0..10).chain([5_000]).all(|number| ids.may_hold((1, Remembered::Id, hash(number)))));
        assert_eq!(ids.filter.as_ref().unwrap().keys, 11);
    }
}
