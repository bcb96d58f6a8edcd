// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the bytes of a stripe map to shards. Normative: two implementations that disagree here
//! cannot read each other's objects.
//!
//! A stripe of `len` bytes is cut into `k` contiguous slices of `shard_len` bytes; data shard `i`
//! is slice `i`. Only the tail of the stripe is padded, with zeros.

use core::ops::Range;

/// Shards of at least this many bytes are multiples of [`UNIT_LARGE`], smaller ones of
/// [`UNIT_SMALL`].
pub const LARGE_SHARD_BYTES: u64 = 64 << 10;
/// Large shards start and end on disk blocks.
pub const UNIT_LARGE: u64 = 4096;
/// Small shards are multiples of the code's 64-byte block.
pub const UNIT_SMALL: u64 = 64;

/// The length of every shard of a stripe of `stripe_bytes` bytes cut into `data_count` slices.
///
/// # Panics
/// `data_count` must not be 0; manifests and classes are validated before they get here.
pub fn shard_len(stripe_bytes: u64, data_count: usize) -> u64 {
    let exact = stripe_bytes.div_ceil(data_count as u64);
    let unit = if exact >= LARGE_SHARD_BYTES { UNIT_LARGE } else { UNIT_SMALL };
    exact.next_multiple_of(unit)
}

/// The part of one data shard that a byte range of its stripe touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRange {
    /// Index of the data shard.
    pub index: usize,
    /// Bytes within the shard.
    pub bytes: Range<u64>,
}

/// The data shards that hold `range` of a stripe, in order, with the bytes needed of each.
pub fn shards_of_range(range: Range<u64>, shard_len: u64) -> impl Iterator<Item = ShardRange> {
    let first = range.start / shard_len;
    let end = if range.is_empty() { first } else { range.end.div_ceil(shard_len) };
    (first..end).map(move |index| {
        let base = index * shard_len;
        ShardRange {
            index: usize::try_from(index).expect("a stripe has at most 256 shards"),
            bytes: range.start.saturating_sub(base)..(range.end - base).min(shard_len),
        }
    })
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::{ShardRange, shard_len, shards_of_range};

    #[test]
    fn shard_lengths_follow_the_normative_table() {
        for (bytes, k, expected) in [
            (1, 10, 64),
            (640, 10, 64),
            (641, 10, 128),
            (655_350, 10, 65_536),
            (655_360, 10, 65_536),
            (655_361, 10, 69_632),
            (64 << 20, 10, 6_713_344),
            ((64 << 20) - 1, 10, 6_713_344),
            (64 << 20, 1, 64 << 20),
            (64 << 20, 29, 2_314_240),
        ] {
            assert_eq!(shard_len(bytes, k), expected, "{bytes} bytes over {k}");
        }
    }

    #[test]
    fn a_range_touches_only_the_shards_that_hold_it() {
        let touched: Vec<_> = shards_of_range(60..200, 64).collect();
        assert_eq!(
            touched,
            [
                ShardRange { index: 0, bytes: 60..64 },
                ShardRange { index: 1, bytes: 0..64 },
                ShardRange { index: 2, bytes: 0..64 },
                ShardRange { index: 3, bytes: 0..8 },
            ]
        );
        assert_eq!(shards_of_range(64..128, 64).count(), 1);
        assert_eq!(shards_of_range(7..7, 64).count(), 0);
    }
}
