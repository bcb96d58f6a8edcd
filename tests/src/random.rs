// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random choices that a seed brings back. A test prints its seed, so that a failure can be
//! replayed with `SUPERNODE_TEST_SEED`.

use std::env;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// The variable that replays a run.
const VARIABLE: &str = "SUPERNODE_TEST_SEED";

/// A generator and the seed that makes it again.
pub struct Seeded {
    /// To be printed.
    pub seed: u64,
    generator: ChaCha8Rng,
}

impl Seeded {
    /// Takes the seed from the environment, or a new one.
    ///
    /// # Panics
    /// If the variable holds no number.
    pub fn new() -> Self {
        let given = env::var(VARIABLE).ok();
        let given = given.map(|text| text.parse().expect("SUPERNODE_TEST_SEED is a number"));
        Self::with(given.unwrap_or_else(rand::random))
    }

    /// The generator of this seed.
    pub fn with(seed: u64) -> Self {
        Self { seed, generator: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.generator.random_range(0..end)
    }

    /// A position in something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        self.generator.random_range(0..len)
    }

    /// A number in the range, each doubling of it as likely as any other.
    pub fn magnitude(&mut self, range: &RangeInclusive<u64>) -> u64 {
        let (first, last) = (range.start().ilog2(), range.end().ilog2());
        let floor = 1 << self.generator.random_range(first..=last);
        self.generator.random_range(floor..=floor * 2 - 1).clamp(*range.start(), *range.end())
    }

    /// That many bytes that no code shortens.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.generator.fill(&mut bytes[..]);
        bytes
    }

    /// The same things in another order.
    pub fn shuffled<T>(&mut self, mut things: Vec<T>) -> Vec<T> {
        things.shuffle(&mut self.generator);
        things
    }
}

impl Default for Seeded {
    fn default() -> Self {
        Self::new()
    }
}

/// SHA-256 of a file, in hexadecimal.
///
/// # Panics
/// If it cannot be read.
pub fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
