//! How often a test tries what is a matter of chance: a number that fits into every run, or more on
//! demand, by an environment variable.

use std::{
    env,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The number in a variable, else the default.
///
/// # Panics
/// The variable holds no number.
pub fn times(variable: &str, default: u32) -> u32 {
    match env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number")),
        Err(_) => default,
    }
}

/// Chance that another run can repeat: SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
/// Number Generators, 2014).
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// From BULKHEAD_SEED, else from the clock; says which.
    pub fn new() -> Self {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let seed = env::var("BULKHEAD_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(clock);
        println!("BULKHEAD_SEED={seed}");
        Self(seed)
    }

    /// A number below a limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    /// Up to so many milliseconds.
    pub fn up_to_ms(&mut self, most: u64) -> Duration {
        Duration::from_micros(self.below(most * 1000))
    }
}

impl Default for Chance {
    fn default() -> Self {
        Self::new()
    }
}

/// Sorted durations, and what is said about them.
#[derive(Clone, Debug, Default)]
pub struct Measured(Vec<Duration>);

impl Measured {
    /// One more.
    pub fn add(&mut self, duration: Duration) {
        self.0.push(duration);
        self.0.sort_unstable();
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The longest.
    pub fn longest(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }

    /// The one that so many percent are not longer than.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    /// In a line.
    pub fn told(&self) -> String {
        format!(
            "{} times: p50 {:?}, p99 {:?}, longest {:?}",
            self.count(),
            self.percentile(50),
            self.percentile(99),
            self.longest()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let mut measured = Measured::default();
        assert_eq!(measured.percentile(99), Duration::ZERO);
        for ms in (1..=100).rev() {
            measured.add(Duration::from_millis(ms));
        }
        let ms = [1, 50, 99, 100].map(|percent| measured.percentile(percent).as_millis());
        assert_eq!((ms, measured.count()), ([1, 50, 99, 100], 100));
    }
}
