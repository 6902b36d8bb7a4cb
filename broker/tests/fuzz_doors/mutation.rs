//! Spoils inputs, the same way every time.

/// Bytes that decoders like least: bounds of lengths, signs, wire types and continuation bits.
const EXTREMES: [u8; 8] = [0, 1, 9, 10, 0x7f, 0x80, 0xfe, 0xff];

/// Makes inputs from seeds.
pub(crate) struct Mutator {
    seeds: Vec<Vec<u8>>,
    state: u64,
}

impl Mutator {
    pub(crate) fn new(seeds: Vec<Vec<u8>>) -> Self {
        Self { seeds, state: 0x7a2d_0001 }
    }

    /// One of the seeds, spoiled one to four times.
    pub(crate) fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.seed();
        for _ in 0..=self.below(4) {
            self.spoil(&mut input);
        }
        input
    }

    fn spoil(&mut self, input: &mut Vec<u8>) {
        let at = self.below(input.len() + 1);
        let end = at + self.below((input.len() - at).min(16) + 1);
        match self.below(8) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..end)),
            2 => input.extend_from_within(at..end),
            3 => input.insert(at, EXTREMES[self.below(EXTREMES.len())]),
            4 => {
                let other = self.seed();
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend(&other[from..]);
            }
            // One byte of what there is.
            kind => {
                let Some(byte) = input.get_mut(at) else { return };
                *byte = match kind {
                    5 => *byte ^ 1 << self.below(8),
                    6 => EXTREMES[self.below(EXTREMES.len())],
                    _ => byte.wrapping_add(1),
                };
            }
        }
    }

    fn seed(&mut self) -> Vec<u8> {
        let at = self.below(self.seeds.len());
        self.seeds[at].clone()
    }

    /// A number below `bound`, by splitmix64 (Steele, Lea and Flood, 2014).
    fn below(&mut self, bound: usize) -> usize {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
