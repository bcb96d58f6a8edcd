// SPDX-License-Identifier: MIT OR Apache-2.0
//! Erasure coding: from the `k` data shards of a stripe to `m` parity shards, and back from any
//! `k` of the `k + m`.
//!
//! - [`Codec`] names an arithmetic; its id is part of the format and stands in every manifest.
//! - [`Code`] is a codec with its widths, checked once.
//! - [`Encoder`] makes parity.
//! - [`RebuildPlan`] makes any missing shards, data or parity, from any `k` others.
//!   [`reconstruct`] is the short way for one stripe.
//!
//! # Columns
//!
//! Every codec here is defined on 64-byte blocks ([`BLOCK_BYTES`]): byte range `a..b` of a shard
//! depends on `a..b` of the others and on nothing else, if `a` and `b` are multiples of 64. So both
//! directions work in columns that stay in the cache, and a reader may rebuild just the range it
//! wants. The column width is a matter of speed, never of format.
//!
//! # Why rebuilding does not call the library's decoder
//!
//! `reed-solomon-simd` spends about 0.5 ms per call of its decoder on the positions of what is
//! missing, transforms all shards to get one, and cannot restore parity. For widths up to 256,
//! multiplying by the inverse matrix is faster (10+4, stripes of 64 MiB on one core: one shard
//! missing 6.2 against 1.0 GB/s, four missing 2.6 against 1.0). The matrix itself is read off the
//! library: its decoder and encoder are run once on unit vectors, so the code that defines the
//! format stays in one place. A plan depends only on which shards there are, so that all stripes of
//! a group share it.
//!
//! # One data shard
//!
//! With `k = 1` the default codec copies: all `1 + m` shards of a stripe are equal and have one id.
//! (`leopard16-high` with `m > 1` is a valid code too, but its parity shards are multiples of the
//! data shard, not copies.)
//!
//! No code detects damage: verify every shard against its id before it is used, and every rebuilt
//! shard after.

use crate::limits::STRIPE_WIDTH_MAX;

mod codec;
mod encode;
mod leopard;
mod rebuild;

#[cfg(test)]
mod tests;

pub use self::codec::{Codec, CodecError};
pub use self::encode::{COLUMN_BYTES, Encoder};
pub use self::rebuild::{RebuildPlan, Wanted, align_to_blocks, reconstruct};

/// What every codec cuts shards into; shard lengths and column borders are multiples of it.
pub const BLOCK_BYTES: usize = 64;

/// Why shards could not be encoded or rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErasureError {
    /// Widths that no stripe may have.
    #[error(
        "a stripe of {data_count}+{parity_count} shards is not possible: \
         at least one data shard, at most {STRIPE_WIDTH_MAX} in total"
    )]
    Width {
        /// Data shards asked for.
        data_count: usize,
        /// Parity shards asked for.
        parity_count: usize,
    },
    /// A slice that is no whole number of blocks, or none at all.
    #[error("{bytes} bytes are no positive multiple of 64: pad shards, align ranges to blocks")]
    Unaligned {
        /// Length of the slice.
        bytes: usize,
    },
    /// Slices of one stripe that differ in length.
    #[error("slice {position} has {have} bytes where the others have {need}: pass equal slices")]
    Len {
        /// Which of the slices passed.
        position: usize,
        /// Its length.
        have: usize,
        /// The length it should have.
        need: usize,
    },
    /// More or fewer slices than the code, or the plan, works with.
    #[error("{have} {what} slices were passed where {need} belong")]
    Count {
        /// What the slices were meant to be.
        what: &'static str,
        /// Slices passed.
        have: usize,
        /// Slices needed.
        need: usize,
    },
    /// An index beyond the stripe's width, or named twice.
    #[error("shard index {index} is named twice or not below the stripe's width {width}")]
    Index {
        /// The offending index.
        index: usize,
        /// `k + m`.
        width: usize,
    },
    /// Too few shards survive.
    #[error("{have} shards are left where {need} are needed: find more holders of the stripe")]
    NotEnoughShards {
        /// Distinct shards at hand.
        have: usize,
        /// `k`.
        need: usize,
    },
}

/// A codec with the widths of a stripe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    codec: Codec,
    data_count: usize,
    parity_count: usize,
}

impl Code {
    /// Checks the widths once, so that nothing that takes a code has to.
    ///
    /// # Errors
    /// [`ErasureError::Width`] unless there is a data shard and at most
    /// [`STRIPE_WIDTH_MAX`] shards in total.
    pub fn new(codec: Codec, data_count: usize, parity_count: usize) -> Result<Self, ErasureError> {
        let width = data_count.checked_add(parity_count);
        if data_count == 0 || width.is_none_or(|width| width > STRIPE_WIDTH_MAX) {
            return Err(ErasureError::Width { data_count, parity_count });
        }
        Ok(Self { codec, data_count, parity_count })
    }

    /// With the codec that [`Codec::default_for`] chooses.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_default_codec(
        data_count: usize,
        parity_count: usize,
    ) -> Result<Self, ErasureError> {
        Self::new(Codec::default_for(data_count, parity_count), data_count, parity_count)
    }

    /// The arithmetic.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// `k`: shards that hold the stripe's bytes; shards `0..k`.
    pub fn data_count(&self) -> usize {
        self.data_count
    }

    /// `m`: shards that may be lost; shards `k..k + m`.
    pub fn parity_count(&self) -> usize {
        self.parity_count
    }

    /// `k + m`.
    pub fn width(&self) -> usize {
        self.data_count + self.parity_count
    }
}

/// The common length of some slices, if it is one that a codec can work on.
fn common_len<'a>(
    slices: impl IntoIterator<Item = &'a [u8]>,
    expected: Option<usize>,
) -> Result<Option<usize>, ErasureError> {
    let mut common = expected;
    for (position, slice) in slices.into_iter().enumerate() {
        let (have, need) = (slice.len(), *common.get_or_insert(slice.len()));
        if have != need {
            return Err(ErasureError::Len { position, have, need });
        }
        if have == 0 || !have.is_multiple_of(BLOCK_BYTES) {
            return Err(ErasureError::Unaligned { bytes: have });
        }
    }
    Ok(common)
}
