//! Numbers that look random and are the same for the same seed.

/// SplitMix64 (Steele, Lea and Flood, 2014): small, and good enough to choose.
pub struct Random(u64);

impl Random {
    /// The numbers of one input of a run.
    pub fn new(seed: u64, index: u64) -> Random {
        let mut of_seed = Random(seed);
        Random(of_seed.next() ^ index.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below this one; 0 if there is none.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % (end.max(1) as u64)) as usize
    }

    /// Whether one of so many times has come.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of these, of which there must be one.
    pub fn one_of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// How often to repeat a piece of so many bytes. Now and then it gets longer
    /// than any line may be.
    pub fn times(&mut self, piece_bytes: usize) -> usize {
        let most_bytes = if self.one_in(32) { 300 << 10 } else { 2 << 10 };
        1 + self.below(most_bytes / piece_bytes.max(1) + 1)
    }

    /// A piece of so many bytes: where it begins and ends. Most are short.
    pub fn piece(&mut self, length: usize) -> (usize, usize) {
        let start = self.below(length + 1);
        let most = if self.one_in(4) { length - start } else { (length - start).min(64) };
        (start, start + self.below(most + 1))
    }
}

#[test]
fn the_same_seed_makes_the_same_numbers() {
    let numbers = |seed, index| {
        let mut random = Random::new(seed, index);
        [random.next(), random.next(), random.next()]
    };
    assert_eq!(numbers(1, 2), numbers(1, 2));
    assert_ne!(numbers(1, 2), numbers(2, 2));
    assert_ne!(numbers(1, 2), numbers(1, 3));
}
