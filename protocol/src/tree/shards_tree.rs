// SPDX-License-Identifier: MIT OR Apache-2.0
//! The writer's side of span proofs: the object's list of shards as a tree that grows slot by
//! slot and can prove the span of any group once the object ends.
//!
//! It keeps the value of every node over closed chunks: 64 bytes for each chunk of 16 entries, so
//! 4 bytes a slot (2 MiB for an object of 2 TiB), and the entries of those chunks that two groups
//! share. Nodes at the right edge, which the end of the object shapes, are joined when asked for.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;
use core::ops::Range;

use super::entries::{ENTRIES_PER_CHUNK, ENTRY_BYTES, ShardEntry, ShardsRootHasher};
use super::shape::{Node, chunk_count};
use super::span::{Shape, SpanProof};
use super::{CHUNK_BYTES, ChainingValue, join, subtree_value};
use crate::ids::ShardId;

/// Computes `shards_root` slot by slot, as [`ShardsRootHasher`] does, and the span proof of every
/// group. Who needs no proofs takes the other one, which keeps nothing.
#[derive(Debug, Clone, Default)]
pub struct ShardsTree {
    /// Level `l` holds the values of the full subtrees over `2^l` closed chunks, in order.
    levels: Vec<Vec<ChainingValue>>,
    /// Entries of the last chunk, which is closed only when another one follows: the hash of an
    /// only chunk is flagged as the root.
    last: Vec<ShardEntry>,
    count: u64,
    /// The first slot of every group.
    starts: Vec<u64>,
    /// Whether a group starts inside the last chunk.
    is_shared: bool,
    /// Entries of the closed chunks in which a group starts, by chunk index.
    shared: BTreeMap<u64, Vec<ShardEntry>>,
}

impl ShardsTree {
    /// An object without slots and groups.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next slot is the first of another group.
    pub fn start_group(&mut self) {
        self.starts.push(self.count);
        self.is_shared |= !self.count.is_multiple_of(ENTRIES_PER_CHUNK as u64);
    }

    /// Adds the next slot.
    pub fn push(&mut self, id: ShardId, shard_len: u64) {
        if self.last.len() == ENTRIES_PER_CHUNK {
            self.close_chunk();
        }
        self.last.push(ShardEntry { id, shard_len });
        self.count += 1;
    }

    /// Slots added so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The root over all slots; that of no bytes if there are none.
    pub fn root(&self) -> [u8; 32] {
        let root = self.whole();
        if root.is_leaf() {
            let mut hasher = ShardsRootHasher::new();
            self.last.iter().for_each(|entry| hasher.push(entry.id, entry.shard_len));
            return hasher.finish();
        }
        let (left, right) = root.split();
        join(&self.value(left), &self.value(right), true)
    }

    /// The proof of a group's span in the list as it is now, so after the last slot; `None` if
    /// there is no such group or it has no slots.
    pub fn span(&self, group: usize) -> Option<SpanProof> {
        let first = *self.starts.get(group)?;
        let end = self.starts.get(group + 1).copied().unwrap_or(self.count);
        let shape = Shape::new(self.count, first, end - first).ok()?;
        let mut siblings = Vec::new();
        shape.outside(shape.root(), &mut |node| siblings.push(self.value(node)));
        let entries = |slots: Range<u64>| slots.map(|slot| self.shared_entry(slot));
        Some(SpanProof {
            before: entries(shape.before()).collect(),
            after: entries(shape.after()).collect(),
            siblings,
        })
    }

    fn whole(&self) -> Node {
        Node::root(chunk_count(self.count * ENTRY_BYTES as u64))
    }

    /// Chunks before the last one.
    fn closed(&self) -> u64 {
        self.levels.first().map_or(0, |chunks| chunks.len() as u64)
    }

    /// Turns the last chunk into a leaf, and every pair of full subtrees that it completes into
    /// one. None of them is the root, because another chunk follows.
    fn close_chunk(&mut self) {
        let index = self.closed();
        let mut value = self.last_value();
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let nodes = &mut self.levels[level];
            nodes.push(value);
            match nodes[..] {
                [.., left, right] if nodes.len().is_multiple_of(2) => {
                    value = join(&left, &right, false);
                }
                _ => break,
            }
        }
        let entries = mem::take(&mut self.last);
        if mem::take(&mut self.is_shared) {
            self.shared.insert(index, entries);
        }
    }

    fn last_value(&self) -> ChainingValue {
        let bytes: Vec<u8> = self.last.iter().flat_map(ShardEntry::to_bytes).collect();
        subtree_value(self.closed() * CHUNK_BYTES as u64, &bytes)
    }

    /// The value of a subtree that is not the whole tree.
    fn value(&self, node: Node) -> ChainingValue {
        if node.count.is_power_of_two() && node.end() <= self.closed() {
            let level = node.count.ilog2();
            let place = usize::try_from(node.first >> level).expect("kept in memory");
            // Full subtrees start at a multiple of their size.
            return self.levels[level as usize][place];
        }
        if node.is_leaf() {
            return self.last_value();
        }
        let (left, right) = node.split();
        join(&self.value(left), &self.value(right), false)
    }

    /// The entry of a slot whose chunk is shared by groups, or is the last one.
    fn shared_entry(&self, slot: u64) -> ShardEntry {
        let chunk = slot / ENTRIES_PER_CHUNK as u64;
        let place = usize::try_from(slot % ENTRIES_PER_CHUNK as u64).expect("one of 16");
        self.shared.get(&chunk).unwrap_or(&self.last)[place]
    }
}
