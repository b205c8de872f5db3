//! Chance that can be repeated.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A seeded generator (SplitMix64, Steele et al. 2014).
///
/// Written out here rather than taken from a library, whose small generators may change between
/// versions: the seed of a failure from last year must still fail the same way.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose numbers depend on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator for a part of the world, so that one part's draws do not shift another's.
    pub fn fork(&mut self) -> Self {
        Self(self.bits())
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `range`, both ends included. An empty range gives its start.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let span = range.end().saturating_sub(*range.start());
        // The bias of the remainder is below 2^-40 for every span a test uses.
        match span.checked_add(1) {
            Some(count) => range.start() + self.bits() % count,
            None => self.bits(),
        }
    }

    /// True in `percent` of 100 draws.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.within(0..=99) < percent
    }

    /// A duration in `range` of milliseconds, in steps of a microsecond.
    pub fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_micros(self.within(range.start() * 1000..=range.end() * 1000))
    }

    /// One of `items`, or `None` when there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let last = items.len().checked_sub(1)?;
        let index = usize::try_from(self.within(0..=last as u64)).ok()?;
        items.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_a_seed_never_change() {
        // The first outputs of SplitMix64 for seed 1234567, as published with the algorithm.
        let mut rng = Rng::new(1_234_567);
        assert_eq!(rng.bits(), 6_457_827_717_110_365_317);
        assert_eq!(rng.bits(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_range_reaches_both_of_its_ends_and_nothing_else() {
        let mut rng = Rng::new(7);
        let mut seen = [0; 4];
        for _ in 0..1000 {
            seen[usize::try_from(rng.within(2..=5)).unwrap() - 2] += 1;
        }
        assert!(seen.iter().all(|&count| count > 200), "{seen:?}");
    }

    #[test]
    fn an_empty_list_has_nothing_to_pick() {
        assert_eq!(Rng::new(1).pick::<u8>(&[]), None);
        assert_eq!(Rng::new(1).pick(&[5]), Some(&5));
    }
}
