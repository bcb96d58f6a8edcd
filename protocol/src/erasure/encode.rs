// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making parity, column by column.

use std::fmt;
use std::ops::Range;

use super::{BLOCK_BYTES, Code, Codec, ErasureError, common_len};

/// Bytes of each shard that are encoded at once. Whole shards of megabytes fall out of the cache
/// and take two to four times as long.
pub const COLUMN_BYTES: usize = 32 << 10;

const _: () = assert!(COLUMN_BYTES.is_multiple_of(BLOCK_BYTES));

/// One codec's arithmetic in the writing direction.
pub(super) trait ColumnEncoder: Send {
    /// Reads `column` of each of the `k` data shards and hands out the same bytes of each of the
    /// `m > 0` parity shards by its index among them.
    fn encode_column(
        &mut self,
        data: &[&[u8]],
        column: Range<usize>,
        parity: &mut dyn FnMut(usize, &[u8]),
    );
}

/// Makes the parity of stripes of one [`Code`]. Keep it: its work space is reused by every call.
pub struct Encoder {
    code: Code,
    /// None where there is no parity to make.
    columns: Option<Box<dyn ColumnEncoder>>,
    column_bytes: usize,
}

impl Encoder {
    /// Work space is about [`COLUMN_BYTES`] times the stripe's width.
    pub fn new(code: Code) -> Self {
        Self::with_column_bytes(code, COLUMN_BYTES)
    }

    /// With another column width, for measurements; the parity is the same.
    ///
    /// # Panics
    /// If the width is no positive multiple of [`BLOCK_BYTES`].
    pub fn with_column_bytes(code: Code, column_bytes: usize) -> Self {
        assert!(
            column_bytes > 0 && column_bytes.is_multiple_of(BLOCK_BYTES),
            "a column of {column_bytes} bytes cuts through a block"
        );
        let columns = (code.parity_count() > 0).then(|| Codec::encoder(code));
        Self { code, columns, column_bytes }
    }

    /// The code this encoder was made for.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Fills the parity shards of a stripe from its `k` data shards.
    ///
    /// All slices have the same length, a positive multiple of [`BLOCK_BYTES`]; they may also be
    /// the same block-aligned range of every shard.
    ///
    /// # Errors
    /// [`ErasureError::Count`], [`ErasureError::Len`], [`ErasureError::Unaligned`]. Nothing is
    /// written then.
    pub fn encode<D: AsRef<[u8]>, P: AsMut<[u8]>>(
        &mut self,
        data: &[D],
        parity: &mut [P],
    ) -> Result<(), ErasureError> {
        let data: Vec<&[u8]> = data.iter().map(AsRef::as_ref).collect();
        self.encode_slices(&data, parity)
    }

    /// The same from one buffer that holds the `k` data shards one after the other: the stripe's
    /// bytes, padded at the tail to `k * shard_len`.
    ///
    /// # Errors
    /// [`ErasureError::Unaligned`] if the buffer is not `k` equal shards of whole blocks, else as
    /// [`Self::encode`].
    pub fn encode_stripe<P: AsMut<[u8]>>(
        &mut self,
        stripe: &[u8],
        parity: &mut [P],
    ) -> Result<(), ErasureError> {
        let shard_len = stripe.len() / self.code.data_count();
        if shard_len == 0 || !stripe.len().is_multiple_of(self.code.data_count()) {
            return Err(ErasureError::Unaligned { bytes: stripe.len() });
        }
        let data: Vec<&[u8]> = stripe.chunks_exact(shard_len).collect();
        self.encode_slices(&data, parity)
    }

    fn encode_slices<P: AsMut<[u8]>>(
        &mut self,
        data: &[&[u8]],
        parity: &mut [P],
    ) -> Result<(), ErasureError> {
        demand_count("data", data.len(), self.code.data_count())?;
        demand_count("parity", parity.len(), self.code.parity_count())?;
        let len = common_len(data.iter().copied(), None)?;
        common_len(parity.iter_mut().map(|shard| &*shard.as_mut()), len)?;
        let (Some(columns), Some(len)) = (&mut self.columns, len) else {
            return Ok(());
        };
        for start in (0..len).step_by(self.column_bytes) {
            let column = start..(start + self.column_bytes).min(len);
            columns.encode_column(data, column.clone(), &mut |index, bytes| {
                parity[index].as_mut()[column.clone()].copy_from_slice(bytes);
            });
        }
        Ok(())
    }
}

pub(super) fn demand_count(
    what: &'static str,
    have: usize,
    need: usize,
) -> Result<(), ErasureError> {
    if have == need { Ok(()) } else { Err(ErasureError::Count { what, have, need }) }
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").field("code", &self.code).finish_non_exhaustive()
    }
}
