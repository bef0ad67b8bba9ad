//! Randomness: one stream per component, keyed by (seed, component), so that drawing more in one place shifts nothing in another.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Component {
    Settings = 1,
    Swarm,
    Network,
    Storage = 5,
    Client,
    Workload,
    Clock,
    Fault,
    Boot,
    Demand,
    Contender,
    Watcher,
    Guarded,
    Side,
    Begin,
    End,
    Majority,
    Operator,
    Frames,
    Hostile,
    Lease,
    Version,
    Decay,
}

/// Mixes two numbers into one that looks like neither (the finaliser of SplitMix64).
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One stream.
#[derive(Debug)]
pub(super) struct Random(Xoshiro256PlusPlus);

impl Random {
    /// The stream of the `n`-th of its kind of component.
    pub(super) fn stream(seed: u64, component: Component, n: u64) -> Self {
        Random(Xoshiro256PlusPlus::seed_from_u64(mix(mix(seed, component as u64), n)))
    }

    /// The stream of something that has a seed of its own.
    pub(super) fn of(seed: u64) -> Self {
        Random(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A name of 128 bits, never zero.
    pub(super) fn token(&mut self) -> u128 {
        (u128::from(self.next()) << 64 | u128::from(self.next())).max(1)
    }

    /// Below `bound`; zero if `bound` is zero.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        // The bias of multiply-shift is far below what a test could notice.
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// From `low` to `high`, both included.
    pub(super) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// From `low` to `high`, evenly over the orders of magnitude.
    pub(super) fn scale(&mut self, low: u64, high: u64) -> u64 {
        let (from, to) = ((low.max(1) as f64).ln(), (high.max(1) as f64).ln());
        ((from + (to - from) * self.unit()).exp() as u64).clamp(low, high)
    }

    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Waiting time of a process without memory, at most ten times its mean.
    pub(super) fn exponential(&mut self, mean: u64) -> u64 {
        let drawn = -(1.0 - self.unit()).ln() * mean as f64;
        (drawn as u64).min(mean.saturating_mul(10))
    }

    /// One of them. `None` of none.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        of.get(usize::try_from(self.below(of.len() as u64)).unwrap_or(0)).copied()
    }

    /// In another order.
    pub(super) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            let with = self.below(end as u64 + 1) as usize;
            list.swap(end, with);
        }
    }
}
