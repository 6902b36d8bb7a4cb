//! How many of something each key has, where only keys that have some take memory.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

/// Counts by key.
pub(crate) struct Counts<K: Eq + Hash>(Mutex<HashMap<K, u32>>);

impl<K: Eq + Hash> Default for Counts<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Counts<K> {
    /// Counts one more of a key, until what is returned is dropped. Err: it has this many, as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, key: &K, most: u32) -> Result<Counted<K>, u32> {
        let mut counts = self.0.lock();
        match counts.get_mut(key) {
            Some(count) if *count >= most => return Err(*count),
            Some(count) => *count += 1,
            None if most == 0 => return Err(0),
            None => drop(counts.insert(key.clone(), 1)),
        }
        Ok(Counted { counts: Arc::clone(self), key: key.clone() })
    }

    /// Whether nothing has any.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// One that is counted, for as long as it lives.
pub(crate) struct Counted<K: Eq + Hash> {
    counts: Arc<Counts<K>>,
    key: K,
}

impl<K: Eq + Hash> Counted<K> {
    /// Of whom.
    pub(crate) fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_as_many_as_it_may_and_gives_them_back() {
        let counts = Arc::new(Counts::default());
        let (one, two) = (counts.enter(&"a", 2).unwrap(), counts.enter(&"a", 2).unwrap());
        assert_eq!(counts.enter(&"a", 2).err(), Some(2));
        let other = counts.enter(&"b", 1).unwrap();
        drop(one);
        let again = counts.enter(&"a", 2).unwrap();
        assert_eq!((counts.enter(&"a", 2).err(), *again.key()), (Some(2), "a"));
        assert_eq!(counts.enter(&"c", 0).err(), Some(0));
        drop((two, other, again));
        assert!(counts.is_empty());
    }
}
