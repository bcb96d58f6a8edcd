// SPDX-License-Identifier: MIT OR Apache-2.0
//! Audit proofs, read from the disk and from nowhere else.
//!
//! A proof shows that the disk still has the bytes, so neither the hot-shard cache nor the system's
//! page cache may answer for it: each range is dropped from the latter before it is read. What is
//! read is the record's head with the hash tree (of a large tree only the blocks on the way to the
//! chunks) and the one group around each chunk, so a proof costs O(log n) whatever the shard's
//! length. It is verified before it leaves: a holder would rather say that it is damaged.

use std::collections::{BTreeMap, BTreeSet};

use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::{
    CHUNK_BYTES, ChunkProof, GROUP_BYTES, PARENT_BYTES, chunk_count, group_count, outboard_len,
    prove_chunk, verify_chunk,
};

use super::{Reader, agrees};
use crate::catalog::{Kept, Thing};
use crate::disk::DiskFile;
use crate::error::StoreError;
use crate::record::{HEADER_BYTES, Header, to_len};

/// Chunks proven at a time; an audit asks for a few.
const PROVEN_CHUNKS_MAX: usize = 256;
/// A head of up to this many bytes is read in one piece: one seek is dearer than the bytes.
const WHOLE_HEAD_BYTES_MAX: u64 = 64 << 10;
/// The piece of a larger hash tree that is read around an entry.
const BLOCK_BYTES: u64 = 4096;

impl Reader {
    /// Proves chunks of a shard, in the order asked for; see the module.
    ///
    /// # Errors
    /// [`StoreError::ShardNotFound`], [`StoreError::Damaged`], [`StoreError::BadRange`] for a chunk
    /// that does not exist, [`StoreError::TooMany`], or what the disk says.
    pub fn prove(&self, shard: ShardId, chunks: &[u64]) -> Result<Vec<ChunkProof>, StoreError> {
        let (count, max) = (chunks.len(), PROVEN_CHUNKS_MAX);
        if count > max {
            return Err(StoreError::TooMany { what: "chunks to prove", count, max });
        }
        self.follow_shard(shard, |kept| self.prove_at(shard, kept, chunks))
    }

    fn prove_at(
        &self,
        shard: ShardId,
        kept: &Kept,
        chunks: &[u64],
    ) -> Result<Vec<ChunkProof>, StoreError> {
        if let Some(beyond) = chunks.iter().find(|chunk| **chunk >= chunk_count(kept.len)) {
            let offset = beyond.saturating_mul(CHUNK_BYTES as u64);
            let (shard_len, len) = (kept.len, CHUNK_BYTES as u64);
            return Err(StoreError::BadRange { shard, shard_len, offset, len });
        }
        let thing = Thing::Shard(shard);
        self.demand_sound(thing, kept.at)?;
        match self.prove_cold(shard, kept, chunks)? {
            Some(proofs) => Ok(proofs),
            None => Err(self.set_aside(thing, kept.at)),
        }
    }

    /// `None` when what the disk has does not prove anything.
    fn prove_cold(
        &self,
        shard: ShardId,
        kept: &Kept,
        chunks: &[u64],
    ) -> Result<Option<Vec<ChunkProof>>, StoreError> {
        let segment = self.segments.segment(kept.at.segment)?;
        let groups = by_group(chunks);
        let cold = Cold { file: &*segment.file, kept };
        let Some(outboard) = cold.outboard(shard, segment.header.tag, &groups)? else {
            return Ok(None);
        };
        let mut proofs = BTreeMap::new();
        for (group, chunks) in groups {
            let start = group * GROUP_BYTES as u64;
            let mut bytes = vec![0; GROUP_BYTES.min(to_len(kept.len - start))];
            if !cold.read(kept.payload_start + start, &mut bytes)? {
                return Ok(None);
            }
            for chunk in chunks {
                let proof = prove_chunk(&bytes, &outboard, kept.len, chunk).ok();
                let sound = |proof: &ChunkProof| verify_chunk(&shard, kept.len, chunk, proof);
                let Some(proof) = proof.filter(|proof| sound(proof).is_ok()) else {
                    return Ok(None);
                };
                proofs.insert(chunk, proof);
            }
        }
        Ok(Some(chunks.iter().filter_map(|chunk| proofs.get(chunk).cloned()).collect()))
    }
}

/// The chunks by the group they are in.
fn by_group(chunks: &[u64]) -> BTreeMap<u64, BTreeSet<u64>> {
    let mut groups: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for chunk in chunks {
        let group = chunk / (GROUP_BYTES / CHUNK_BYTES) as u64;
        groups.entry(group).or_default().insert(*chunk);
    }
    groups
}

/// A record that is read past the page cache.
struct Cold<'a> {
    file: &'a dyn DiskFile,
    kept: &'a Kept,
}

impl Cold<'_> {
    /// Reads at an offset within the record; false where the file ends too early.
    fn read(&self, from: u64, buffer: &mut [u8]) -> Result<bool, StoreError> {
        let at = self.kept.at.offset + from;
        let read = self.file.read_cold_at(at, buffer);
        let read = read.map_err(|error| StoreError::io("read a record", error))?;
        Ok(read == buffer.len())
    }

    /// The hash tree, where it matters to these groups; zeros elsewhere.
    fn outboard<V>(
        &self,
        shard: ShardId,
        tag: u64,
        groups: &BTreeMap<u64, V>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let kept = self.kept;
        let is_small = kept.payload_start <= WHOLE_HEAD_BYTES_MAX;
        let head_len = if is_small { kept.payload_start } else { BLOCK_BYTES };
        let mut head = vec![0; to_len(head_len)];
        if !self.read(0, &mut head)? {
            return Ok(None);
        }
        let header = Header::decode_at(&head, tag, kept.at.offset).ok();
        let Some(header) = header.filter(|header| agrees(header, Thing::Shard(shard), kept)) else {
            return Ok(None);
        };
        let start = HEADER_BYTES as u64 + u64::from(header.shape.meta_len);
        let len = outboard_len(kept.len);
        if start + len > kept.payload_start {
            return Ok(None);
        }
        if is_small {
            return Ok(Some(head[to_len(start)..to_len(start + len)].to_vec()));
        }
        let mut outboard = vec![0; to_len(len)];
        for block in blocks_on_the_way(kept.len, groups.keys().copied()) {
            let from = block * BLOCK_BYTES;
            let part = to_len(from)..to_len((from + BLOCK_BYTES).min(len));
            if !self.read(start + from, &mut outboard[part])? {
                return Ok(None);
            }
        }
        Ok(Some(outboard))
    }
}

/// Blocks of a hash tree that hold an entry between the root and one of the groups.
fn blocks_on_the_way(len: u64, groups: impl Iterator<Item = u64>) -> BTreeSet<u64> {
    let mut blocks = BTreeSet::new();
    for group in groups {
        // As the layout of outboards has it: an entry, its left subtree, its right subtree.
        let (mut first, mut count, mut entry) = (0, group_count(len), 0);
        while count > 1 {
            blocks.insert(entry * PARENT_BYTES as u64 / BLOCK_BYTES);
            let left = 1 << (count - 1).ilog2();
            if group < first + left {
                (count, entry) = (left, entry + 1);
            } else {
                (first, count, entry) = (first + left, count - left, entry + left);
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::blocks_on_the_way;
    use supernode_protocol::tree::GROUP_BYTES;

    #[test]
    fn a_way_through_the_largest_tree_is_a_few_blocks() {
        let len = 64 << 20;
        let groups = len / GROUP_BYTES as u64;
        assert_eq!(blocks_on_the_way(len, 0..groups).len(), 64, "all of them are needed by some");
        for group in 0..groups {
            let blocks = blocks_on_the_way(len, std::iter::once(group)).len();
            assert!((1..=7).contains(&blocks), "group {group}: {blocks}");
        }
        assert!(blocks_on_the_way(1, std::iter::once(0)).is_empty());
    }
}
