//! A digest of a shard's state at one entry of its log. Every node that applies the entry computes it, so all can be
//! compared: promise 9 says that the same log gives the same bytes, and a disk that lies breaks it.
//!
//! Everything in the state counts, its position in the log too; nothing in it belongs to one node alone. The scan works on a
//! view that is taken when the entry is applied, in a thread of its own, while commands go on.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tandem_storage::{Engine, Error};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::Xxh3;

use crate::{
    encoding::{DecodeError, take_u8, take_u64, take_u128},
    error::{FatalError, FatalSink},
    pace::Pace,
    roll::{put_text, take_text},
};

/// How fast a state is read for its digest: an operator waits for it, and others wait for the disk.
const BYTES_PER_SECOND: u64 = 128 << 20;
/// Between two looks at the clock.
const STRIDE_BYTES: u64 = 256 << 10;

/// What a state comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDigest {
    /// xxh3 of all spaces, keys and values in their order, with their lengths. Tells damage and divergence, not forgery.
    pub hash: u128,
    /// How many keys there are.
    pub keys: u64,
    /// Bytes of all keys and values.
    pub bytes: u64,
}

/// What a node says when it is asked for the digest at an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DigestAnswer {
    /// The entry is not applied yet.
    Behind,
    /// It is being computed.
    Computing,
    /// Here it is.
    Taken(StateDigest),
    /// This node has none of that entry, and will not have: it started again, got a snapshot, or computes a newer one.
    Gone,
    /// The state cannot be read.
    Failed(String),
}

enum Progress {
    Computing,
    Taken(StateDigest),
    Failed(String),
}

/// The newest digest of a shard.
#[derive(Clone, Default)]
pub(crate) struct Digests {
    newest: Arc<Mutex<Option<(u64, Progress)>>>,
    /// Index of the entry whose digest is wanted; 0 for none.
    wanted: Arc<AtomicU64>,
}

impl Digests {
    /// Computes the digest of the state as it is now, after the entry with this index. Returns once what is written from now
    /// on does not count. An older one that is not done is given up.
    pub(crate) async fn begin(&self, index: u64, engine: Arc<dyn Engine>, fatal: FatalSink) {
        self.wanted.store(index, Ordering::SeqCst);
        *self.newest.lock() = Some((index, Progress::Computing));
        let (begun, is_begun) = oneshot::channel();
        let digests = self.clone();
        crate::blocking::begin(move || {
            let wanted = || digests.wanted.load(Ordering::SeqCst) == index;
            let progress = match compute(engine.as_ref(), begun, &wanted) {
                Ok(None) => return,
                Ok(Some(digest)) => Progress::Taken(digest),
                Err(error) => {
                    let text = error.to_string();
                    if error.is_fatal() {
                        fatal.report(FatalError::from(error));
                    }
                    Progress::Failed(text)
                }
            };
            let mut newest = digests.newest.lock();
            if wanted() {
                *newest = Some((index, progress));
            }
        });
        is_begun.await.ok();
    }

    /// Gives up what is not done.
    pub(crate) fn end(&self) {
        self.wanted.store(0, Ordering::SeqCst);
    }

    /// Index of the digest that is being computed.
    pub(crate) fn computing(&self) -> Option<u64> {
        match &*self.newest.lock() {
            Some((index, Progress::Computing)) => Some(*index),
            _ => None,
        }
    }

    /// The digest at an entry, on a node that has applied its log up to `applied`.
    pub(crate) fn at(&self, index: u64, applied: u64) -> DigestAnswer {
        match &*self.newest.lock() {
            Some((newest, progress)) if *newest == index => match progress {
                Progress::Computing => DigestAnswer::Computing,
                Progress::Taken(digest) => DigestAnswer::Taken(*digest),
                Progress::Failed(text) => DigestAnswer::Failed(text.clone()),
            },
            _ if applied >= index => DigestAnswer::Gone,
            _ => DigestAnswer::Behind,
        }
    }
}

/// None when it is not wanted any more.
fn compute(
    engine: &dyn Engine,
    begun: oneshot::Sender<()>,
    wanted: &dyn Fn() -> bool,
) -> Result<Option<StateDigest>, Error> {
    let mut hash = Xxh3::new();
    let (mut keys, mut bytes, mut unpaced) = (0, 0, 0);
    let mut pace = Pace::new(BYTES_PER_SECOND);
    let mut begun = Some(begun);
    let mut given_up = false;
    let mut on_begun = || {
        if let Some(begun) = begun.take() {
            begun.send(()).ok();
        }
    };
    engine.scan_all(&mut on_begun, &mut |space, key, value| {
        hash.update(&[space.0]);
        for part in [key, value] {
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let length = (key.len() + value.len()) as u64;
        keys += 1;
        bytes += length;
        unpaced += length;
        if unpaced >= STRIDE_BYTES {
            given_up = !pace.spend(std::mem::take(&mut unpaced), wanted);
        }
        if given_up { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok((!given_up && wanted()).then(|| StateDigest { hash: hash.digest128(), keys, bytes }))
}

impl DigestAnswer {
    pub(crate) fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Behind => out.put_u8(0),
            Self::Computing => out.put_u8(1),
            Self::Taken(digest) => {
                out.put_u8(2);
                out.put_u128(digest.hash);
                out.put_u64(digest.keys);
                out.put_u64(digest.bytes);
            }
            Self::Gone => out.put_u8(3),
            Self::Failed(text) => {
                out.put_u8(4);
                put_text(out, text);
            }
        }
    }

    pub(crate) fn take(mut body: Bytes) -> Result<Self, DecodeError> {
        let body = &mut body;
        Ok(match take_u8(body)? {
            0 => Self::Behind,
            1 => Self::Computing,
            2 => {
                let hash = take_u128(body)?;
                Self::Taken(StateDigest { hash, keys: take_u64(body)?, bytes: take_u64(body)? })
            }
            3 => Self::Gone,
            4 => Self::Failed(take_text(body)?),
            other => return Err(DecodeError::Kind(other)),
        })
    }
}

#[cfg(test)]
mod tests {
    use tandem_storage::{Durability, FaultEngine, MemoryEngine, Space, Tear, WriteBatch};

    use super::*;

    fn engine(pairs: &[(u8, &str, &str)]) -> Arc<dyn Engine> {
        let engine = MemoryEngine::new(2);
        let mut batch = WriteBatch::new();
        for (space, key, value) in pairs {
            batch.put(Space(*space), key.as_bytes().to_vec(), value.as_bytes().to_vec());
        }
        engine.write(batch, Durability::Deferred).unwrap();
        Arc::new(engine)
    }

    fn digest_of(engine: &dyn Engine) -> StateDigest {
        compute(engine, oneshot::channel().0, &|| true).unwrap().unwrap()
    }

    #[test]
    fn the_digest_is_of_every_byte_and_where_it_stands() {
        let all = [
            engine(&[]),
            engine(&[(0, "a", "b")]),
            engine(&[(1, "a", "b")]),
            engine(&[(0, "ab", "")]),
            engine(&[(0, "", "ab")]),
            engine(&[(0, "a", "c")]),
            engine(&[(0, "a", "b"), (1, "", "")]),
        ];
        let hashes: std::collections::BTreeSet<_> = all.iter().map(|engine| digest_of(engine.as_ref()).hash).collect();
        assert_eq!(hashes.len(), all.len(), "two of these have the same digest");
        let again = engine(&[(0, "a", "b")]);
        assert_eq!(digest_of(again.as_ref()), digest_of(all[1].as_ref()));
        assert_eq!((digest_of(again.as_ref()).keys, digest_of(again.as_ref()).bytes), (1, 2));
    }

    #[tokio::test]
    async fn what_is_written_after_the_entry_does_not_count() {
        let engine = engine(&[(0, "a", "b")]);
        let expected = digest_of(engine.as_ref());
        let digests = Digests::default();
        assert_eq!(digests.at(7, 6), DigestAnswer::Behind);
        digests.begin(7, Arc::clone(&engine), FatalSink::default()).await;
        let mut batch = WriteBatch::new();
        batch.put(Space(1), &b"later"[..], &b""[..]);
        engine.write(batch, Durability::Deferred).unwrap();
        while digests.computing().is_some() {
            tokio::task::yield_now().await;
        }
        assert_eq!(digests.at(7, 7), DigestAnswer::Taken(expected));
        assert_eq!(digests.at(6, 7), DigestAnswer::Gone, "only the newest is kept");
    }

    #[tokio::test]
    async fn a_state_that_cannot_be_read_stops_the_node() {
        let engine = FaultEngine::new(1);
        engine.handle().crash(Tear::All);
        let (digests, fatal) = (Digests::default(), FatalSink::default());
        digests.begin(1, Arc::new(engine), fatal.clone()).await;
        assert_eq!(fatal.wait().await.code(), "STORAGE_FAILED");
        while digests.computing().is_some() {
            tokio::task::yield_now().await;
        }
        assert!(matches!(digests.at(1, 1), DigestAnswer::Failed(_)));
    }

    #[test]
    fn answers_come_back() {
        let digest = StateDigest { hash: u128::MAX - 5, keys: 7, bytes: 9 };
        let all = [
            DigestAnswer::Behind,
            DigestAnswer::Computing,
            DigestAnswer::Taken(digest),
            DigestAnswer::Gone,
            DigestAnswer::Failed("why".into()),
        ];
        for answer in all {
            let mut out = BytesMut::new();
            answer.put(&mut out);
            assert_eq!(DigestAnswer::take(out.freeze()).unwrap(), answer);
        }
    }
}
