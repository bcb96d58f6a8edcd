// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shards read piece by piece: the hash tree first, then any of the bytes, each piece verified by
//! it. Memory for pieces is kept for the next one.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree;
use supernode_protocol::wire::ByteRange;

use super::{Reader, Shard, align, bad_range};
use crate::catalog::{Kept, Thing};
use crate::disk::read_exact_at;
use crate::error::StoreError;
use crate::record::to_len;
use crate::segment::read_outboard;

/// Pieces of at least this size are read into memory that is used again.
const POOLED_BYTES_MIN: usize = 64 << 10;
/// Memory that waits for the next piece at most.
const IDLE_BYTES_MAX: usize = 32 << 20;

/// A shard's length and hash tree, which was checked against its id.
#[derive(Debug, Clone)]
pub struct ShardTree {
    /// Which shard.
    pub shard: ShardId,
    /// Its bytes.
    pub len: u64,
    /// Its hash tree.
    pub outboard: Bytes,
}

/// A shard that was opened.
pub enum Opened {
    /// It is short enough to be read at once.
    Whole(Shard),
    /// It is not.
    Tree(ShardTree),
}

impl ShardTree {
    /// A range widened to whole groups, and the parents that prove it.
    ///
    /// # Errors
    /// [`StoreError::BadRange`].
    pub fn prove(&self, range: ByteRange) -> Result<(ByteRange, Bytes), StoreError> {
        let aligned = align(self.shard, self.len, range)?;
        let span = aligned.offset..aligned.offset + aligned.len;
        let proof = tree::range_proof(&self.outboard, self.len, span)
            .map_err(|_| bad_range(self.shard, self.len, range))?;
        Ok((aligned, proof.into()))
    }

    /// A range of the whole shard.
    ///
    /// # Errors
    /// [`StoreError::BadRange`].
    pub fn slice(&self, whole: &Bytes, range: ByteRange) -> Result<Bytes, StoreError> {
        let end = range.offset.checked_add(range.len).filter(|end| *end <= whole.len() as u64);
        let end = end.ok_or_else(|| bad_range(self.shard, self.len, range))?;
        Ok(whole.slice(to_len(range.offset)..to_len(end)))
    }
}

impl Reader {
    /// Opens a shard: all of it if it has at most `whole_max` bytes, else its hash tree.
    ///
    /// # Errors
    /// As [`Self::shard`].
    pub fn open_shard(&self, shard: ShardId, whole_max: u64) -> Result<Opened, StoreError> {
        let thing = Thing::Shard(shard);
        self.follow_shard(shard, |kept| {
            if kept.len <= whole_max {
                return self.read_back(thing, kept).map(Opened::Whole);
            }
            let found = self.found(thing, kept)?;
            let outboard = read_outboard(&self.segments, &found)?;
            if tree::check_outboard(&shard, kept.len, &outboard).is_err() {
                return Err(self.set_aside(thing, kept.at));
            }
            Ok(Opened::Tree(ShardTree { shard, len: kept.len, outboard: outboard.into() }))
        })
    }

    /// Reads and verifies a range of whole groups of an open shard.
    ///
    /// # Errors
    /// As [`Self::shard`], and [`StoreError::BadRange`].
    pub fn shard_piece(&self, tree: &ShardTree, range: ByteRange) -> Result<Bytes, StoreError> {
        let (aligned, proof) = tree.prove(range)?;
        if aligned != range {
            return Err(bad_range(tree.shard, tree.len, range));
        }
        self.follow_shard(tree.shard, |kept| self.piece_at(tree, kept, range, &proof))
    }

    /// The record's header was checked when the shard was opened; should another record have come
    /// to this place since, its bytes do not fit the hash tree.
    fn piece_at(
        &self,
        tree: &ShardTree,
        kept: &Kept,
        range: ByteRange,
        proof: &[u8],
    ) -> Result<Bytes, StoreError> {
        let thing = Thing::Shard(tree.shard);
        self.demand_sound(thing, kept.at)?;
        let segment = self.segments.segment(kept.at.segment)?;
        let mut piece = self.pieces.take(to_len(range.len));
        let from = kept.at.offset + kept.payload_start + range.offset;
        read_exact_at(&*segment.file, from, piece.as_mut())
            .map_err(|error| StoreError::io("read a part of a shard", error))?;
        let span = range.offset..range.offset + range.len;
        match tree::verify_range(&tree.shard, tree.len, span, proof, piece.as_ref()) {
            Ok(()) => Ok(Bytes::from_owner(piece)),
            Err(_) => Err(self.set_aside(thing, kept.at)),
        }
    }
}

/// Memory of pieces that were sent.
#[derive(Clone, Default)]
pub(super) struct Pieces {
    idle: Arc<Mutex<Idle>>,
}

#[derive(Default)]
struct Idle {
    blocks: Vec<Vec<u8>>,
    bytes: usize,
}

impl Pieces {
    /// Memory of exactly `len` bytes, whatever is in it.
    fn take(&self, len: usize) -> Piece {
        let mut idle = self.idle.lock();
        let block = if len >= POOLED_BYTES_MIN { idle.blocks.pop() } else { None };
        idle.bytes -= block.as_ref().map_or(0, Vec::len);
        drop(idle);
        let mut block = block.unwrap_or_default();
        if block.len() < len {
            block = vec![0; len];
        }
        Piece { block, len, pool: self.clone() }
    }
}

/// A part of a shard in memory that goes back to its pool.
struct Piece {
    block: Vec<u8>,
    len: usize,
    pool: Pieces,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.block[..self.len]
    }
}

impl AsMut<[u8]> for Piece {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.block[..self.len]
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let block = std::mem::take(&mut self.block);
        let mut idle = self.pool.idle.lock();
        if block.len() >= POOLED_BYTES_MIN && idle.bytes + block.len() <= IDLE_BYTES_MAX {
            idle.bytes += block.len();
            idle.blocks.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pieces;

    #[test]
    fn memory_of_pieces_is_used_again_and_bounded() {
        let pieces = Pieces::default();
        let first = pieces.take(1 << 20);
        let at = first.as_ref().as_ptr();
        drop(first);
        let second = pieces.take(100_000);
        assert_eq!((second.as_ref().as_ptr(), second.as_ref().len()), (at, 100_000));
        let many: Vec<_> = (0..64).map(|_| pieces.take(1 << 20)).collect();
        drop((second, many));
        let idle = pieces.idle.lock();
        assert_eq!((idle.bytes, idle.blocks.len()), (32 << 20, 32));
    }
}
