//! Whether a sandbox got what it should, once and in order.

use std::collections::{HashMap, HashSet};

/// One delivery as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Got {
    /// Index of the turn.
    pub(super) turn: usize,
    pub(super) sequence: u64,
}

/// What was wrong at a sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Faults {
    /// Acknowledged to the publisher, never delivered.
    pub(super) lost: u64,
    /// Delivered again, or to a sandbox that it was not for.
    pub(super) duplicated: u64,
    /// Delivered after a message with a higher sequence, or with another sequence than the publisher was told.
    pub(super) out_of_order: u64,
}

impl Faults {
    pub(super) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.out_of_order += other.out_of_order;
    }
}

/// `expected` are the turns that the sandbox must get, `sequences` what the broker gave each turn, `got` what came.
pub(super) fn check(expected: &[usize], sequences: &HashMap<usize, u64>, got: &[Got]) -> Faults {
    let mut faults = Faults::default();
    let mut missing: HashSet<usize> = expected.iter().copied().collect();
    let mut last_sequence = 0;
    for Got { turn, sequence } in got {
        if !missing.remove(turn) {
            faults.duplicated += 1;
            continue;
        }
        if *sequence <= last_sequence || sequences.get(turn) != Some(sequence) {
            faults.out_of_order += 1;
        }
        last_sequence = last_sequence.max(*sequence);
    }
    faults.lost = missing.len() as u64;
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(got: &[(usize, u64)]) -> Faults {
        let sequences = HashMap::from([(0, 10), (1, 20), (2, 30), (3, 40)]);
        let got: Vec<_> = got.iter().map(|&(turn, sequence)| Got { turn, sequence }).collect();
        check(&[0, 2, 3], &sequences, &got)
    }

    #[test]
    fn each_fault_is_seen() {
        let none = Faults::default();
        assert_eq!(faults(&[(0, 10), (2, 30), (3, 40)]), none);
        assert_eq!(faults(&[(0, 10), (3, 40)]), Faults { lost: 1, ..none });
        assert_eq!(faults(&[(0, 10), (0, 10), (2, 30), (3, 40)]), Faults { duplicated: 1, ..none });
        assert_eq!(faults(&[(0, 10), (1, 20), (2, 30), (3, 40)]), Faults { duplicated: 1, ..none });
        assert_eq!(faults(&[(0, 10), (3, 40), (2, 30)]), Faults { out_of_order: 1, ..none });
        assert_eq!(faults(&[(0, 10), (2, 31), (3, 40)]), Faults { out_of_order: 1, ..none });
    }
}
