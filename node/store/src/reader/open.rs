// SPDX-License-Identifier: MIT OR Apache-2.0
//! Shards read piece by piece: the hash tree first, then any of the bytes, each piece verified by
//! it.

use bytes::Bytes;
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree;
use supernode_protocol::wire::ByteRange;

use super::{Reader, Shard, Way, align, bad_range};
use crate::catalog::{Kept, Thing};
use crate::error::StoreError;
use crate::record::to_len;
use crate::segment::read_outboard;

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
    /// Opens a shard: all of it if it has at most `whole_max` bytes, read this way, else its hash
    /// tree.
    ///
    /// # Errors
    /// As [`Self::shard`].
    pub fn open_shard(
        &self,
        shard: ShardId,
        whole_max: u64,
        way: Way,
    ) -> Result<Opened, StoreError> {
        let thing = Thing::Shard(shard);
        self.follow_shard(shard, |kept| {
            if kept.len <= whole_max {
                return self.shard_at(shard, kept, way).map(Opened::Whole);
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
        let from = kept.at.offset + kept.payload_start + range.offset;
        let mut piece = self.pieces.take(from, to_len(range.len));
        piece
            .fill_once(&*segment.file, from)
            .map_err(|error| StoreError::io("read a part of a shard", error))?;
        let span = range.offset..range.offset + range.len;
        match tree::verify_range(&tree.shard, tree.len, span, proof, piece.as_ref()) {
            Ok(()) => Ok(Bytes::from_owner(piece)),
            Err(_) => Err(self.set_aside(thing, kept.at)),
        }
    }
}
