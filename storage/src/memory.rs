//! An engine in memory: for tests, and for brokers whose messages may die with the process.

mod image;
mod view;

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    path::Path,
};

use bytes::Bytes;
use parking_lot::RwLock;

use self::view::{Cursor, Views};
use crate::{Direction, Durability, Engine, Error, Operation, Space, SpaceVisitor, Visitor, WriteBatch};

type Map = BTreeMap<Bytes, Bytes>;

/// How many pairs a scan copies while it holds the lock, so that it neither blocks writers for long nor takes the lock for
/// every pair.
const SCAN_CHUNK_PAIRS: usize = 128;

/// A sorted map per space behind one lock. Writes and gets cost one lookup per key.
///
/// Nothing is durable, at any [`Durability`]: only what [`Engine::checkpoint`] wrote outlives the process. Values are kept
/// as the [`Bytes`] that were written, without a copy, so a small value cut from a large buffer keeps all of it alive.
///
/// A scan holds no lock while its visitor runs. A write that changes what a running scan has still to see first copies the
/// rest of that scan's range (references, not bytes), so a long scan makes such a write slower once.
#[derive(Debug)]
pub struct MemoryEngine {
    contents: RwLock<Contents>,
    views: Views,
}

#[derive(Debug)]
struct Contents {
    spaces: Vec<Map>,
    bytes: u64,
}

impl MemoryEngine {
    /// An empty engine with the spaces `0..space_count`; at most 256 of them can be addressed.
    pub fn new(space_count: usize) -> Self {
        Self::from_spaces(vec![Map::new(); space_count])
    }

    /// Opens what [`Engine::checkpoint`] wrote into `dir`, with at least the spaces that it had. Later writes do not change
    /// the directory.
    ///
    /// Errors: [`Error::Unusable`] when there is no checkpoint or it has more spaces than `space_count`;
    /// [`Error::Corrupt`] when a checksum does not fit.
    pub fn open(dir: impl AsRef<Path>, space_count: usize) -> Result<Self, Error> {
        image::read(dir.as_ref(), space_count).map(Self::from_spaces)
    }

    fn from_spaces(spaces: Vec<Map>) -> Self {
        let bytes = spaces.iter().flatten().map(|(key, value)| pair_bytes(key, value)).sum();
        Self { contents: RwLock::new(Contents { spaces, bytes }), views: Views::default() }
    }
}

impl Engine for MemoryEngine {
    fn write(&self, batch: WriteBatch, _durability: Durability) -> Result<(), Error> {
        let mut contents = self.contents.write();
        for operation in batch.operations() {
            contents.space(operation.space())?;
        }
        self.views.preserve(&contents.spaces, batch.operations());
        for operation in batch.into_operations() {
            contents.apply(operation);
        }
        Ok(())
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        Ok(self.contents.read().space(space)?.get(key).cloned())
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Error> {
        let contents = self.contents.read();
        let map = contents.space(space)?;
        if !to.is_empty() && from >= to {
            return Ok(());
        }
        let mut cursor = Cursor::new(from, to, direction);
        let mut chunk = cursor.take(map, SCAN_CHUNK_PAIRS);
        let running = (!cursor.is_done()).then(|| self.views.register(space, cursor));
        drop(contents);
        loop {
            for (key, value) in &chunk {
                if visit(key, value) == ControlFlow::Break(()) {
                    return Ok(());
                }
            }
            let Some(running) = &running else { return Ok(()) };
            chunk = running.take(self.contents.read().space(space)?, SCAN_CHUNK_PAIRS);
            if chunk.is_empty() {
                return Ok(());
            }
        }
    }

    fn scan_all(&self, begun: &mut dyn FnMut(), visit: &mut SpaceVisitor<'_>) -> Result<(), Error> {
        // References, not bytes.
        let spaces = self.contents.read().spaces.clone();
        begun();
        for (space, map) in (0..=u8::MAX).map(Space).zip(spaces) {
            for (key, value) in map {
                if visit(space, &key, &value) == ControlFlow::Break(()) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        let spaces = self.contents.read().spaces.clone();
        image::write(dir, spaces)
    }

    fn size_bytes(&self) -> u64 {
        self.contents.read().bytes
    }

    fn name(&self) -> &'static str {
        "memory"
    }
}

impl Contents {
    fn space(&self, space: Space) -> Result<&Map, Error> {
        let known = self.spaces.len();
        self.spaces.get(usize::from(space.0)).ok_or_else(|| Error::unknown_space("(memory)", space, known))
    }

    /// The caller has checked that the space exists.
    fn apply(&mut self, operation: Operation) {
        let map = &mut self.spaces[usize::from(operation.space().0)];
        match operation {
            Operation::Put(_, key, value) => {
                self.bytes += pair_bytes(&key, &value);
                let key_bytes = key.len() as u64;
                if let Some(old) = map.insert(key, value) {
                    self.bytes -= key_bytes + old.len() as u64;
                }
            }
            Operation::Delete(_, key) => {
                if let Some((key, value)) = map.remove_entry(&key) {
                    self.bytes -= pair_bytes(&key, &value);
                }
            }
            Operation::DeleteRange(_, from, to) => {
                if from < to {
                    let range = (Bound::Included(from), Bound::Excluded(to));
                    for (key, value) in map.extract_if(range, |_, _| true) {
                        self.bytes -= pair_bytes(&key, &value);
                    }
                }
            }
        }
    }
}

fn pair_bytes(key: &Bytes, value: &Bytes) -> u64 {
    (key.len() + value.len()) as u64
}
