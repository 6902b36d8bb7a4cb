//! Which message ids may be in the engine.
//!
//! Nearly every id is new, and the engine takes a microsecond to say that it does not have one. A blocked Bloom filter says so
//! in a tenth of that: one cache line per question, of a fixed size. It only saves lookups: what it may hold is looked up,
//! and with more ids than it is made for it merely says so more often.
//!
//! It is filled by and by from what the engine holds, a part with every batch of messages, and is asked once that is done.

use std::ops::ControlFlow;

use bytes::Bytes;
use tandem_storage::{Direction, Engine};

use super::keys::{self, REMEMBERED};

/// 8 MiB in blocks of a cache line.
const BLOCKS: usize = if cfg!(test) { 4 } else { 1 << 17 };
/// Bits that an id sets in its block.
const BITS: u32 = 6;
/// With so many ids, one of a hundred that are not there may be there: about ten bits an id.
const CAPACITY: u64 = BLOCKS as u64 * 512 / 10;
/// Keys that are read with a batch of messages.
const READ_AT_ONCE: usize = if cfg!(test) { 2 } else { 2_048 };

struct Filter {
    blocks: Vec<[u64; 8]>,
    ids: u64,
}

impl Filter {
    fn new() -> Self {
        Self { blocks: vec![[0; 8]; BLOCKS], ids: 0 }
    }

    fn block(workspace: u32, hash: u128) -> usize {
        // The hash is evenly spread; the workspace is stirred in by a multiplication with the golden ratio.
        let low = (hash as u64) ^ u64::from(workspace).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (low % BLOCKS as u64) as usize
    }

    /// Words and bits of an id in its block.
    fn bits(hash: u128) -> impl Iterator<Item = (usize, u64)> {
        let high = (hash >> 64) as u64;
        (0..BITS).map(move |number| {
            let bit = (high >> (number * 9)) % 512;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }

    fn add(&mut self, workspace: u32, hash: u128) {
        let block = &mut self.blocks[Self::block(workspace, hash)];
        Self::bits(hash).for_each(|(word, bit)| block[word] |= bit);
        self.ids += 1;
    }

    fn may_hold(&self, workspace: u32, hash: u128) -> bool {
        let block = &self.blocks[Self::block(workspace, hash)];
        Self::bits(hash).all(|(word, bit)| block[word] & bit != 0)
    }
}

/// A filter that does not know all ids yet.
struct Loading {
    filter: Filter,
    /// From where the engine is to be read.
    from: Bytes,
}

impl Loading {
    fn new() -> Self {
        Self { filter: Filter::new(), from: Bytes::new() }
    }
}

/// See the module.
pub(super) struct WrittenIds {
    filter: Option<Filter>,
    loading: Option<Loading>,
    is_renewal_wanted: bool,
}

impl WrittenIds {
    pub(super) fn new() -> Self {
        Self { filter: None, loading: Some(Loading::new()), is_renewal_wanted: false }
    }

    pub(super) fn may_hold(&self, workspace: u32, hash: u128) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.may_hold(workspace, hash))
    }

    /// A pair is written to REMEMBERED.
    pub(super) fn add(&mut self, key: &[u8]) {
        if let Some((workspace, hash)) = keys::remembered_id(key) {
            let loading = self.loading.as_mut().map(|loading| &mut loading.filter);
            self.filter.iter_mut().chain(loading).for_each(|filter| filter.add(workspace, hash));
        }
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
            if let Some((workspace, hash)) = keys::remembered_id(key) {
                filter.add(workspace, hash);
            }
            ControlFlow::Continue(())
        })?;
        match next {
            Some(next) => loading.from = next,
            None => self.filter = self.loading.take().map(|loading| loading.filter),
        }
        Ok(())
    }

    /// A window is over, and the ids in it are gone.
    pub(super) fn forget_some(&mut self) {
        self.is_renewal_wanted = self.filter.as_ref().is_some_and(|filter| filter.ids > CAPACITY / 2);
    }

    /// The engine shows everything that was written. Only now may it be read anew: nothing is between here and there.
    pub(super) fn visible(&mut self) {
        if std::mem::take(&mut self.is_renewal_wanted) {
            self.loading = Some(Loading::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use tandem_storage::{Durability, MemoryEngine, WriteBatch};

    use super::*;
    use crate::machine::keys::Remembered;

    fn hash(number: u64) -> u128 {
        keys::text_hash(&number.to_string())
    }

    fn engine(ids: impl Iterator<Item = u64>) -> MemoryEngine {
        let engine = MemoryEngine::new(keys::SPACES.into());
        let mut writes = WriteBatch::new();
        for number in ids {
            writes.put(REMEMBERED, keys::remembered(1, 7, Remembered::Id, hash(number)), Bytes::new());
            writes.put(REMEMBERED, keys::remembered(1, 7, Remembered::Producer, hash(number)), Bytes::new());
        }
        engine.write(writes, Durability::Deferred).unwrap();
        engine
    }

    #[test]
    fn an_id_that_is_there_may_be_there_and_most_others_are_not() {
        let mut ids = WrittenIds::new();
        let engine = engine(0..100);
        for added in 100..150 {
            assert!((0..200).all(|number| ids.may_hold(1, hash(number))), "nothing is ruled out before all is known");
            ids.add(&keys::remembered(1, 7, Remembered::Id, hash(added)));
            ids.load_some(&engine).unwrap();
        }
        while ids.loading.is_some() {
            ids.load_some(&engine).unwrap();
        }
        assert!((0..150).all(|number| ids.may_hold(1, hash(number))));
        let wrong = (1_000..2_000).filter(|number| ids.may_hold(1, hash(*number))).count();
        assert!(wrong < 50, "{wrong} of 1,000");
        assert!((0..150).filter(|number| ids.may_hold(2, hash(*number))).count() < 20, "workspaces are apart");
    }

    #[test]
    fn a_filter_with_forgotten_ids_is_made_anew() {
        let mut ids = WrittenIds::new();
        let full = engine(0..CAPACITY);
        while ids.loading.is_some() {
            ids.load_some(&full).unwrap();
        }
        let few = engine(0..10);
        ids.forget_some();
        assert!(ids.loading.is_none(), "not before everything can be read");
        ids.visible();
        ids.add(&keys::remembered(1, 8, Remembered::Id, hash(5_000)));
        while ids.loading.is_some() {
            assert!(ids.may_hold(1, hash(5_000)));
            ids.load_some(&few).unwrap();
        }
        assert!((0..10).chain([5_000]).all(|number| ids.may_hold(1, hash(number))));
        assert_eq!(ids.filter.as_ref().unwrap().ids, 11);
    }
}
