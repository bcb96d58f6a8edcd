// SPDX-License-Identifier: MIT OR Apache-2.0
//! The list of an object's shards as one hash tree. Its root, `shards_root`, is all that a chain
//! needs to keep: an audit proves a chunk to its shard's id and the id to this root.
//!
//! The list has one 64-byte entry per slot (`ShardId`, 32 bytes; `shard_len`, u64 little-endian;
//! 24 zero bytes) in slot order over the whole object, so that 16 entries fill a BLAKE3 chunk and
//! an entry never straddles two.

use alloc::vec::Vec;

use blake3::hazmat::HasherExt as _;
use serde::{Deserialize, Serialize};

use super::audit::{ProofError, verify_path};
use super::shape::{Node, chunk_count};
use super::{CHUNK_BYTES, ChainingValue};
use crate::ids::ShardId;

/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 64;
pub(super) const ENTRIES_PER_CHUNK: usize = CHUNK_BYTES / ENTRY_BYTES;

/// What the list says of one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// The shard in the slot.
    pub id: ShardId,
    /// Its length in bytes.
    pub shard_len: u64,
}

impl ShardEntry {
    /// The entry as it is hashed.
    pub fn to_bytes(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..32].copy_from_slice(self.id.as_bytes());
        bytes[32..40].copy_from_slice(&self.shard_len.to_le_bytes());
        bytes
    }
}

/// Computes `shards_root` slot by slot.
#[derive(Debug, Clone, Default)]
pub struct ShardsRootHasher {
    hasher: blake3::Hasher,
    count: u64,
}

impl ShardsRootHasher {
    /// An object without slots.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next slot.
    pub fn push(&mut self, id: ShardId, shard_len: u64) {
        self.hasher.update(&ShardEntry { id, shard_len }.to_bytes());
        self.count += 1;
    }

    /// Slots added so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The root over all slots; that of no bytes if there are none.
    pub fn finish(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}

/// One entry's way to `shards_root`: who shares its chunk, and the siblings above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryProof {
    /// The other entries of the chunk, in slot order.
    pub neighbours: Vec<ShardEntry>,
    /// The sibling at every level, the root's child first and the chunk's own sibling last.
    pub path: Vec<[u8; 32]>,
}

/// Proves the entry at `position` of the whole list.
///
/// # Errors
/// [`ProofError::Index`] if there is no such slot.
pub fn prove_entry(entries: &[ShardEntry], position: usize) -> Result<EntryProof, ProofError> {
    if position >= entries.len() {
        let (index, count) = (position as u64, entries.len() as u64);
        return Err(ProofError::Index { what: "slot", index, count });
    }
    let chunk_index = (position / ENTRIES_PER_CHUNK) as u64;
    let mut path = Vec::new();
    let mut node = Node::root(chunk_count((entries.len() * ENTRY_BYTES) as u64));
    while !node.is_leaf() {
        let (towards, sibling, _) = node.step_towards(chunk_index);
        path.push(entries_value(entries, &sibling));
        node = towards;
    }
    let start = position / ENTRIES_PER_CHUNK * ENTRIES_PER_CHUNK;
    let end = (start + ENTRIES_PER_CHUNK).min(entries.len());
    let neighbours =
        (start..end).filter(|&other| other != position).map(|other| entries[other]).collect();
    Ok(EntryProof { neighbours, path })
}

/// The chaining value of a subtree of the list.
fn entries_value(entries: &[ShardEntry], node: &Node) -> ChainingValue {
    let start = usize::try_from(node.first).expect("within the list") * ENTRIES_PER_CHUNK;
    let count = usize::try_from(node.count).expect("within the list") * ENTRIES_PER_CHUNK;
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(node.first * CHUNK_BYTES as u64);
    for entry in &entries[start..(start + count).min(entries.len())] {
        hasher.update(&entry.to_bytes());
    }
    hasher.finalize_non_root()
}

/// Verifies that slot `position` of an object with `slot_count` slots holds `entry`.
///
/// `root` and `slot_count` must come from the chain or a manifest. Nothing is allocated.
///
/// # Errors
/// A [`ProofError`] for anything but the one right proof.
pub fn verify_entry(
    root: &[u8; 32],
    slot_count: u64,
    position: u64,
    entry: &ShardEntry,
    proof: &EntryProof,
) -> Result<(), ProofError> {
    let out_of_range = ProofError::Index { what: "slot", index: position, count: slot_count };
    if position >= slot_count {
        return Err(out_of_range);
    }
    // More slots than this cannot have been hashed by anybody.
    let len = slot_count.checked_mul(ENTRY_BYTES as u64).ok_or(out_of_range)?;
    let chunk_index = position / ENTRIES_PER_CHUNK as u64;
    let first = chunk_index * ENTRIES_PER_CHUNK as u64;
    let in_chunk = (slot_count - first).min(ENTRIES_PER_CHUNK as u64);
    let have = proof.neighbours.len() as u64;
    if have != in_chunk - 1 {
        return Err(ProofError::Neighbours { have, need: in_chunk - 1 });
    }
    let place = usize::try_from(position - first).expect("one of 16");
    let (before, after) = proof.neighbours.split_at(place);
    let mut chunk = [0; CHUNK_BYTES];
    let (places, _) = chunk.as_chunks_mut::<ENTRY_BYTES>();
    for (place, entry) in places.iter_mut().zip(before.iter().chain([entry]).chain(after)) {
        *place = entry.to_bytes();
    }
    let bytes = (proof.neighbours.len() + 1) * ENTRY_BYTES;
    verify_path(root, len, chunk_index, &chunk[..bytes], &proof.path)
}
