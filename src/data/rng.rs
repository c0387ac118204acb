//! `SplitMix64`: a small generator with streams addressed by (seed, index).
//!
//! Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014:
//! state += 0x9E3779B97F4A7C15, then the variant-13 finaliser. It is written here so that
//! data stay the same whatever version of a library is in use.

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stream of pseudo-random numbers; not for secrets.
#[derive(Debug, Clone)]
pub struct Rng(u64);

/// The finaliser: a bijection of 64 bits in which every input bit reaches every output bit.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// The stream of item `index` under `seed`.
    pub fn stream(seed: u64, index: u64) -> Self {
        Self(mix(mix(seed.wrapping_add(GOLDEN)) ^ index.wrapping_mul(GOLDEN)))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// Uniform on [0, 1), 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / 16_777_216.0
    }

    /// Uniform on [low, high).
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// Uniform on 0..n, by the high half of the product (bias below n / 2^64); 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// One of `items`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// Puts `items` in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }

    /// Approximately normal with mean 0 and variance 1: twelve uniforms minus six.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }
}
