//! An engine whose fatal errors stop the node also when a reader meets them: bad data must not be met twice.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use tandem_raft::{FatalError, FatalSink};
use tandem_storage::{Direction, Durability, Engine, Error, Pacer, Space, SpaceVisitor, Visitor, WriteBatch};

pub(super) struct Watched {
    engine: Arc<dyn Engine>,
    fatal: FatalSink,
}

impl Watched {
    pub(super) fn new(engine: Arc<dyn Engine>, fatal: FatalSink) -> Self {
        Self { engine, fatal }
    }

    fn watch<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.inspect_err(|error| {
            if error.is_fatal() {
                self.fatal.report(FatalError::Engine { code: error.code(), detail: error.to_string() });
            }
        })
    }
}

impl Engine for Watched {
    fn write(&self, batch: WriteBatch, durability: Durability) -> Result<(), Error> {
        self.watch(self.engine.write(batch, durability))
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.watch(self.engine.get(space, key))
    }

    fn scan(
        &self,
        space: Space,
        from: &[u8],
        to: &[u8],
        direction: Direction,
        visit: &mut Visitor<'_>,
    ) -> Result<(), Error> {
        self.watch(self.engine.scan(space, from, to, direction, visit))
    }

    fn scan_all(&self, begun: &mut dyn FnMut(), visit: &mut SpaceVisitor<'_>) -> Result<(), Error> {
        self.watch(self.engine.scan_all(begun, visit))
    }

    fn verify(&self, pace: &mut Pacer<'_>) -> Result<u64, Error> {
        self.watch(self.engine.verify(pace))
    }

    fn flush(&self) -> Result<(), Error> {
        self.watch(self.engine.flush())
    }

    fn checkpoint(&self, dir: &Path) -> Result<(), Error> {
        self.watch(self.engine.checkpoint(dir))
    }

    fn size_bytes(&self) -> u64 {
        self.engine.size_bytes()
    }

    fn name(&self) -> &'static str {
        self.engine.name()
    }
}

#[cfg(test)]
mod tests {
    use tandem_storage::{FaultEngine, Tear};

    use super::*;

    #[test]
    fn what_a_reader_meets_stops_the_node() {
        let engine = FaultEngine::new(1);
        let power = engine.handle();
        let fatal = FatalSink::default();
        let watched = Watched::new(Arc::new(engine), fatal.clone());
        assert_eq!(watched.get(Space(0), b"k").unwrap(), None);
        assert!(fatal.get().is_none());
        power.crash(Tear::All);
        assert!(watched.get(Space(0), b"k").is_err());
        assert_eq!(fatal.get().unwrap().code(), "STORAGE_FAILED");
    }
}
