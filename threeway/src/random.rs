//! Numbers that look random and depend on a seed alone, so that a run can be repeated anywhere.

use std::ops::RangeInclusive;

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed, and the number of the sequence under it.
    pub fn new(seed: u64, sequence: u64) -> Self {
        let mut random = Self(seed);
        let mixed = random.next() ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = Self(mixed);
        random.next();
        random
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, 0 if `end` is.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % (end as u64).max(1)) as usize
    }

    /// A number in a range.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True `percent` times out of a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    /// One of a list that is not empty.
    pub fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// One of a list, by weights whose sum is not 0.
    pub fn weighted<T: Clone>(&mut self, list: &[(u64, T)]) -> T {
        let mut left = self.next() % list.iter().map(|(weight, _)| weight).sum::<u64>();
        for (weight, item) in list {
            match left.checked_sub(*weight) {
                None => return item.clone(),
                Some(rest) => left = rest,
            }
        }
        list[list.len() - 1].1.clone()
    }

    /// As many as a number out of this range says, each made anew.
    pub fn several<T>(&mut self, range: RangeInclusive<usize>, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.within(range)).map(|_| make(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_depends_on_seed_and_number_alone() {
        let draw = |seed, sequence| {
            let mut random = Random::new(seed, sequence);
            [random.next(), random.next()]
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        let all = [draw(1, 2), draw(2, 1), draw(1, 3), draw(0, 0), draw(0, 1), draw(1, 0)];
        let distinct: std::collections::BTreeSet<_> = all.iter().flatten().collect();
        assert_eq!(distinct.len(), 12);
    }

    #[test]
    fn what_is_drawn_lies_where_it_should_and_everywhere_there() {
        let mut random = Random::new(7, 0);
        let mut seen = [0; 5];
        for _ in 0..1000 {
            let number = random.within(3..=7);
            seen[number - 3] += 1;
            assert_eq!(random.weighted(&[(0, 'a'), (3, 'b')]), 'b');
        }
        assert!(seen.iter().all(|times| *times > 100), "{seen:?}");
        assert!(!random.chance(0) && random.chance(100));
    }
}
