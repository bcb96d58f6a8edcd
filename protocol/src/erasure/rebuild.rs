// SPDX-License-Identifier: MIT OR Apache-2.0
//! Getting shards back: which ones to read, and what to make of them.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

use super::encode::demand_count;
use super::{BLOCK_BYTES, Code, Codec, ErasureError, common_len};

/// Bytes of each source that are multiplied at once: a piece of a source and a piece of a result
/// stay in the first-level cache together.
pub(super) const PIECE_BYTES: usize = 8 << 10;

/// One codec's arithmetic in the reading direction, for one choice of sources and wanted shards.
pub(super) trait ColumnRebuilder: Send + Sync {
    /// Fills `out` with `column` of the wanted shard number `row` (as numbered in the plan).
    /// `column` has at most [`PIECE_BYTES`]; `sources` are whole, in the plan's order.
    fn rebuild_column(&self, row: usize, sources: &[&[u8]], column: Range<usize>, out: &mut [u8]);

    /// The source that the wanted shard number `row` is a copy of, if it is one.
    fn copy_of(&self, row: usize) -> Option<usize>;
}

/// How to make some shards of a stripe from `k` others.
///
/// Making a plan takes about half a millisecond; it is good for every stripe of the same code
/// with the same shards missing, and may be shared between threads.
pub struct RebuildPlan {
    code: Code,
    sources: Vec<usize>,
    wanted: Vec<usize>,
    columns: Box<dyn ColumnRebuilder>,
}

impl RebuildPlan {
    /// Chooses `k` of the `available` shard indexes, data shards first and otherwise in the order
    /// given (so name the nearest first), to make the `wanted` ones from.
    ///
    /// # Errors
    /// [`ErasureError::NotEnoughShards`] and [`ErasureError::Index`].
    pub fn new(code: Code, available: &[usize], wanted: &[usize]) -> Result<Self, ErasureError> {
        demand_distinct(code, available)?;
        demand_distinct(code, wanted)?;
        let need = code.data_count();
        if available.len() < need {
            return Err(ErasureError::NotEnoughShards { have: available.len(), need });
        }
        let mut sources = available.to_vec();
        sources.sort_by_key(|&index| index >= need);
        sources.truncate(need);
        let columns = Codec::rebuilder(code, &sources, wanted);
        Ok(Self { code, sources, wanted: wanted.to_vec(), columns })
    }

    /// The code of the stripes this plan is for.
    pub fn code(&self) -> Code {
        self.code
    }

    /// The `k` shard indexes to read, in the order in which [`Self::rebuild`] takes them.
    pub fn sources(&self) -> &[usize] {
        &self.sources
    }

    /// The shard indexes that come out, in the order in which they do.
    pub fn wanted(&self) -> &[usize] {
        &self.wanted
    }

    /// Makes the wanted shards from the sources.
    ///
    /// All slices have the same length, a positive multiple of [`BLOCK_BYTES`]: whole shards, or
    /// the same block-aligned range ([`align_to_blocks`]) of every shard.
    ///
    /// # Errors
    /// [`ErasureError::Count`], [`ErasureError::Len`], [`ErasureError::Unaligned`]. Nothing is
    /// written then.
    pub fn rebuild_into<S: AsRef<[u8]>, O: AsMut<[u8]>>(
        &self,
        sources: &[S],
        out: &mut [O],
    ) -> Result<(), ErasureError> {
        demand_count("source", sources.len(), self.sources.len())?;
        demand_count("output", out.len(), self.wanted.len())?;
        let sources: Vec<&[u8]> = sources.iter().map(AsRef::as_ref).collect();
        let len = common_len(sources.iter().copied(), None)?;
        common_len(out.iter_mut().map(|shard| &*shard.as_mut()), len)?;
        let len = len.expect("a code has at least one data shard, so there was a source");
        for start in (0..len).step_by(PIECE_BYTES) {
            let column = start..(start + PIECE_BYTES).min(len);
            for (row, out) in out.iter_mut().enumerate() {
                let out = &mut out.as_mut()[column.clone()];
                self.columns.rebuild_column(row, &sources, column.clone(), out);
            }
        }
        Ok(())
    }

    /// As [`Self::rebuild_into`], into new buffers; a shard that is equal to a source (a replica)
    /// shares its memory.
    ///
    /// # Errors
    /// As [`Self::rebuild_into`].
    pub fn rebuild(&self, sources: &[Bytes]) -> Result<Vec<Bytes>, ErasureError> {
        demand_count("source", sources.len(), self.sources.len())?;
        let copies: Vec<_> = (0..self.wanted.len()).map(|row| self.columns.copy_of(row)).collect();
        if copies.iter().all(Option::is_some) {
            common_len(sources.iter().map(AsRef::as_ref), None)?;
            return Ok(copies
                .into_iter()
                .flatten()
                .map(|source| sources[source].clone())
                .collect());
        }
        let len = sources.first().map_or(0, Bytes::len);
        let mut out = vec![vec![0; len]; self.wanted.len()];
        self.rebuild_into(sources, &mut out)?;
        Ok(out.into_iter().map(Bytes::from).collect())
    }
}

impl fmt::Debug for RebuildPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RebuildPlan")
            .field("code", &self.code)
            .field("sources", &self.sources)
            .field("wanted", &self.wanted)
            .finish_non_exhaustive()
    }
}

fn demand_distinct(code: Code, indexes: &[usize]) -> Result<(), ErasureError> {
    let mut seen = vec![false; code.width()];
    for &index in indexes {
        match seen.get_mut(index) {
            Some(seen) if !*seen => *seen = true,
            _ => return Err(ErasureError::Index { index, width: code.width() }),
        }
    }
    Ok(())
}

/// The smallest range of whole blocks that holds `range`. Never leaves a shard, whose length is a
/// multiple of [`BLOCK_BYTES`].
pub fn align_to_blocks(range: Range<u64>) -> Range<u64> {
    let block = BLOCK_BYTES as u64;
    range.start / block * block..range.end.checked_next_multiple_of(block).unwrap_or(u64::MAX)
}

/// Which of the missing shards to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Data shards only: what a reader needs.
    Data,
    /// All of them: what repair needs.
    All,
}

/// Fills in the missing shards of one stripe. `shards[i]` is shard `i`; whoever has many stripes
/// with the same shards missing keeps a [`RebuildPlan`].
///
/// # Errors
/// [`ErasureError::NotEnoughShards`] if fewer than `k` are there, [`ErasureError::Count`],
/// [`ErasureError::Len`], [`ErasureError::Unaligned`]. Nothing is filled in then.
pub fn reconstruct(
    code: Code,
    shards: &mut [Option<Bytes>],
    wanted: Wanted,
) -> Result<(), ErasureError> {
    demand_count("shard", shards.len(), code.width())?;
    common_len(shards.iter().flatten().map(AsRef::as_ref), None)?;
    let (available, mut missing): (Vec<usize>, Vec<usize>) =
        (0..code.width()).partition(|&index| shards[index].is_some());
    if wanted == Wanted::Data {
        missing.retain(|&index| index < code.data_count());
    }
    if available.len() < code.data_count() {
        let (have, need) = (available.len(), code.data_count());
        return Err(ErasureError::NotEnoughShards { have, need });
    }
    if missing.is_empty() {
        return Ok(());
    }
    let plan = RebuildPlan::new(code, &available, &missing)?;
    let sources: Vec<Bytes> =
        plan.sources().iter().filter_map(|&index| shards[index].clone()).collect();
    for (index, shard) in missing.into_iter().zip(plan.rebuild(&sources)?) {
        shards[index] = Some(shard);
    }
    Ok(())
}
