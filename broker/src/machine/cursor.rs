//! What of one lane is acknowledged: everything up to a floor, and ranges above it.

use bytes::BytesMut;

use crate::encoding::{DecodeError, Field, Reader};

/// A set of `(after, through]` ranges over the messages of one lane. Ranges end on messages of the lane, and begin at the
/// message before, so neighbours share a bound and melt together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// Everything in the lane up to here is done.
    pub(crate) floor: u64,
    /// Rising, apart from each other, above the floor.
    pub(crate) ranges: Vec<(u64, u64)>,
}

impl Cursor {
    pub(crate) fn new(floor: u64) -> Self {
        Self { floor, ranges: Vec::new() }
    }

    /// Whether the message with this sequence is done.
    pub(crate) fn contains(&self, sequence: u64) -> bool {
        sequence <= self.floor || {
            let at = self.ranges.partition_point(|(_, through)| *through < sequence);
            self.ranges.get(at).is_some_and(|(after, _)| *after < sequence)
        }
    }

    /// Marks all messages of the lane with `after < sequence <= through` as done. False when they were already.
    pub(crate) fn insert(&mut self, after: u64, through: u64) -> bool {
        if through <= self.floor || after >= through {
            return false;
        }
        let first = self.ranges.partition_point(|(_, end)| *end < after);
        let last = self.ranges.partition_point(|(start, _)| *start <= through);
        if let &[(start, end)] = &self.ranges[first..last.max(first)]
            && start <= after
            && through <= end
        {
            return false;
        }
        let mut merged = (after, through);
        for (start, end) in &self.ranges[first..last.max(first)] {
            merged = (merged.0.min(*start), merged.1.max(*end));
        }
        self.ranges.splice(first..last.max(first), [merged]);
        if let Some((start, end)) = self.ranges.first().copied()
            && start <= self.floor
        {
            self.floor = self.floor.max(end);
            self.ranges.remove(0);
        }
        true
    }
}

impl Field for Cursor {
    fn put(&self, out: &mut BytesMut) {
        self.floor.put(out);
        self.ranges.put(out);
    }

    fn get(reader: &mut Reader) -> Result<Self, DecodeError> {
        let cursor = Self { floor: reader.u64()?, ranges: Vec::get(reader)? };
        let ends = cursor.ranges.iter().flat_map(|(after, through)| [*after, *through]);
        let rising = std::iter::once(cursor.floor).chain(ends).is_sorted_by(|one, other| one < other);
        if rising { Ok(cursor) } else { Err(DecodeError::Disorder("cursor")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn neighbours_melt_and_the_floor_follows() {
        let mut cursor = Cursor::new(0);
        assert!(cursor.insert(5, 9));
        assert!(cursor.insert(2, 5));
        assert_eq!(cursor, Cursor { floor: 0, ranges: vec![(2, 9)] });
        assert!(cursor.contains(3) && cursor.contains(9) && !cursor.contains(2) && !cursor.contains(10));
        assert!(cursor.insert(0, 2));
        assert_eq!(cursor, Cursor::new(9));
        assert!(!cursor.insert(2, 5) && !cursor.insert(9, 9));
    }

    proptest! {
        /// Against a plain set of the lane's messages.
        #[test]
        fn a_cursor_is_a_set(gaps in prop::collection::vec(1u64..4, 1..40), acks in prop::collection::vec((0usize..40, 1usize..5), 0..40)) {
            let lane: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut cursor = Cursor::new(0);
            let mut set = std::collections::BTreeSet::<u64>::new();
            for (from, count) in acks {
                let from = from % lane.len();
                let to = (from + count).min(lane.len());
                let after = if from == 0 { 0 } else { lane[from - 1] };
                let news = lane[from..to].iter().any(|sequence| !set.contains(sequence));
                set.extend(&lane[from..to]);
                prop_assert_eq!(cursor.insert(after, lane[to - 1]), news);
                for sequence in &lane {
                    prop_assert_eq!(cursor.contains(*sequence), set.contains(sequence));
                }
            }
            if set.len() == lane.len() {
                prop_assert_eq!(cursor, Cursor::new(*lane.last().unwrap()));
            }
        }
    }
}
