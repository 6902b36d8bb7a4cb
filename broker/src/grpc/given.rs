//! What is being given to whom by requests of this node, until the state shows it.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

type Place = (u32, u32);

/// How many messages are on their way to a sandbox, by workspace and sandbox, each by number. Cheap to clone: all see the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given(Arc<Mutex<HashMap<Place, u64>>>);

impl Given {
    /// How many are on their way to a sandbox.
    pub(super) fn to(&self, place: Place) -> u64 {
        self.0.lock().get(&place).copied().unwrap_or(0)
    }
}

/// What one request gives; dropped when its messages are in the state, or nowhere.
#[derive(Debug)]
pub(super) struct Gift {
    given: Given,
    to: Vec<Place>,
}

impl Gift {
    pub(super) fn new(given: &Given) -> Self {
        Self { given: given.clone(), to: Vec::new() }
    }

    /// A message goes to a sandbox.
    pub(super) fn add(&mut self, place: Place) {
        *self.given.0.lock().entry(place).or_default() += 1;
        self.to.push(place);
    }

    /// They have arrived.
    pub(super) fn arrived(&mut self) {
        let mut all = self.given.0.lock();
        for place in self.to.drain(..) {
            if let Some(count) = all.get_mut(&place) {
                *count -= 1;
                if *count == 0 {
                    all.remove(&place);
                }
            }
        }
    }
}

impl Drop for Gift {
    fn drop(&mut self) {
        self.arrived();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_its_way_counts_until_it_has_arrived() {
        let given = Given::default();
        let (mut one, mut other) = (Gift::new(&given), Gift::new(&given));
        one.add((1, 1));
        one.add((1, 2));
        other.add((1, 1));
        assert_eq!([(1, 1), (1, 2), (2, 1)].map(|place| given.to(place)), [2, 1, 0]);
        one.arrived();
        assert_eq!(given.to((1, 1)), 1);
        drop((one, other));
        assert!(given.0.lock().is_empty(), "nothing is left behind");
    }
}
