//! Reads batches for one recipient, through a small cache that the shard shares: inboxes that catch up together read the
//! same batches.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::{batch::Batch, machine::StateError, query::StateReader};

/// Bytes of batches that a shard's cache holds at the most.
const MAX_CACHED_BYTES: usize = 16 << 20;

/// Batches by workspace and first sequence.
#[derive(Default)]
pub(crate) struct BatchCache {
    batches: Mutex<(HashMap<(u32, u64), Arc<Batch>>, usize)>,
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
        if let Some(batch) = self.cache.batches.lock().0.get(&key) {
            return Ok(Some(Arc::clone(batch)));
        }
        let Some(batch) = self.reader.batch(self.workspace, first_sequence)?.map(Arc::new) else { return Ok(None) };
        let mut cache = self.cache.batches.lock();
        if cache.1 > MAX_CACHED_BYTES {
            cache.0.clear();
            cache.1 = 0;
        }
        cache.1 += batch.bytes().len();
        cache.0.insert(key, Arc::clone(&batch));
        Ok(Some(batch))
    }
}
