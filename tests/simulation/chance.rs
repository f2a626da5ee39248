//! Chance that one seed decides: splitmix64.

use std::cell::Cell;

pub struct Chance(Cell<u64>);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [0, 1).
    pub fn share(&self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// In `from..to`.
    pub fn between(&self, from: i64, to: i64) -> i64 {
        from + (self.share() * (to - from).max(0) as f64) as i64
    }

    /// In `from..to`, short spans as likely as long ones.
    pub fn scale(&self, from: f64, to: f64) -> i64 {
        (from * (to / from).powf(self.share())) as i64
    }

    pub fn one_in(&self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}
