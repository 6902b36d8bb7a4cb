//! Reads batches for one recipient, through a small cache that the shard shares: inboxes that catch up together read the
//! same batches.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{batch::Batch, machine::StateError, query::StateReader};

/// Bytes of batches that a shard's cache holds at the most.
const MAX_CACHED_BYTES: usize = 16 << 20;

/// See the module.
#[derive(Default)]
pub(crate) struct BatchCache(Mutex<Cached>);

#[derive(Default)]
struct Cached {
    /// By workspace and first sequence.
    batches: HashMap<(u32, u64), Arc<Batch>>,
    bytes: usize,
}

/// Reads for one recipient.
pub(crate) struct Loader {
    pub(crate) reader: StateReader,
    pub(crate) cache: Arc<BatchCache>,
    pub(crate) workspace: u32,
    pub(crate) sandbox: u32,
}

impl Loader {
    pub(crate) fn batch(&self, first_sequence: u64) -> Result<Option<Arc<Batch>>, StateError> {
        let key = (self.workspace, first_sequence);
        if let Some(batch) = self.cache.0.lock().batches.get(&key) {
            return Ok(Some(Arc::clone(batch)));
        }
        let Some(batch) = self.reader.batch(self.workspace, first_sequence)?.map(Arc::new) else { return Ok(None) };
        self.keep(&batch);
        Ok(Some(batch))
    }

    /// A message of this batch will be asked for again, probably soon.
    pub(crate) fn keep(&self, batch: &Arc<Batch>) {
        let mut cache = self.cache.0.lock();
        if cache.batches.contains_key(&(self.workspace, batch.first_sequence)) {
            return;
        }
        if cache.bytes > MAX_CACHED_BYTES {
            cache.batches.clear();
            cache.bytes = 0;
        }
        cache.bytes += batch.bytes().len();
        cache.batches.insert((self.workspace, batch.first_sequence), Arc::clone(batch));
    }
}
