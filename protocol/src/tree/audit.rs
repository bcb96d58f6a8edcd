// SPDX-License-Identifier: MIT OR Apache-2.0
//! Audits: one chunk of a shard and the sibling values on its way to the root.
//!
//! Everything a forger could choose is fixed by what the verifier already knows: the chunk's
//! length and the number of siblings follow from the shard's length and the chunk's index, and
//! BLAKE3 tells a chunk from a parent, the root from the rest, and one chunk's place from
//! another's.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::outboard::demand_len;
use super::shape::{Node, bytes_in_group, chunk_count, group_count, halves};
use super::{CHUNK_BYTES, ChainingValue, GROUP_BYTES, TreeError, join, subtree_value};
use crate::ids::ShardId;

const CHUNKS_PER_GROUP: u64 = (GROUP_BYTES / CHUNK_BYTES) as u64;

/// Why the proof of a chunk, an entry or a span was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A position that does not exist.
    #[error("there is no {what} {index}, only {count}: audit one that exists")]
    Index {
        /// What was counted: chunk or slot.
        what: &'static str,
        /// The position asked for.
        index: u64,
        /// How many there are.
        count: u64,
    },
    /// A chunk that is not as long as its place dictates.
    #[error("the chunk has {have} bytes where {need} belong: prove the chunk that was asked for")]
    ChunkLen {
        /// Bytes in the proof.
        have: u64,
        /// Bytes at that place.
        need: u64,
    },
    /// A list of neighbours that does not fill the chunk.
    #[error("the proof has {have} neighbouring entries where {need} belong")]
    Neighbours {
        /// Entries in the proof.
        have: u64,
        /// Entries that share the chunk.
        need: u64,
    },
    /// A path that is too short or too long for its place.
    #[error("the path has {have} siblings where {need} belong: send the whole path, no more")]
    PathLen {
        /// Siblings in the proof.
        have: u64,
        /// Levels between the chunk and the root.
        need: u64,
    },
    /// Slots that are no part of the object, or none at all.
    #[error(
        "{count} slots from {first} on are no span of the object's {slot_count}: ask for a part"
    )]
    Span {
        /// The first slot.
        first: u64,
        /// How many.
        count: u64,
        /// Slots of the object.
        slot_count: u64,
    },
    /// More or fewer subtrees than there are outside the span.
    #[error("the proof has {have} subtrees where {need} are outside the span: send all, no more")]
    Siblings {
        /// Values in the proof.
        have: u64,
        /// Subtrees outside the span.
        need: u64,
    },
    /// Bytes that are no encoding of a span proof, or go on behind one.
    #[error("these bytes are no span proof: encode it with this version's protocol")]
    Encoding,
    /// Everything fits, but the root is another one.
    #[error("the proof leads to another root: the bytes or their place are not those audited")]
    Root,
}

/// One chunk and its way to the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkProof {
    /// The chunk's bytes: [`CHUNK_BYTES`], fewer at the end of the shard.
    #[serde(with = "serde_bytes")]
    pub chunk: Vec<u8>,
    /// The sibling at every level, the root's child first and the chunk's own sibling last.
    pub path: Vec<[u8; 32]>,
}

/// Proves one chunk from the group that holds it; of the outboard only one entry per level is read.
///
/// # Errors
/// [`TreeError::OutboardLen`], [`TreeError::Range`] for a chunk beyond the end,
/// [`TreeError::GroupLen`] if `group` is not the group `chunk_index / 16` in full.
pub fn prove_chunk(
    group: &[u8],
    outboard: &[u8],
    len: u64,
    chunk_index: u64,
) -> Result<ChunkProof, TreeError> {
    demand_len(outboard, len)?;
    if chunk_index >= chunk_count(len) {
        let start = chunk_index.saturating_mul(CHUNK_BYTES as u64);
        let end = start.saturating_add(CHUNK_BYTES as u64);
        return Err(TreeError::Range { start, end, len });
    }
    let group_index = chunk_index / CHUNKS_PER_GROUP;
    let (have, need) = (group.len() as u64, bytes_in_group(group_index, len));
    if have != need {
        return Err(TreeError::GroupLen { group: group_index, have, need });
    }
    let mut path = Vec::new();
    let mut node = Node::root(group_count(len));
    while !node.is_leaf() {
        let (left, right) = halves(&outboard[node.entry()]);
        let (towards, _, is_left) = node.step_towards(group_index);
        path.push(if is_left { right } else { left });
        node = towards;
    }
    let chunk = prove_within_group(group, group_index, chunk_index, &mut path);
    Ok(ChunkProof { chunk: chunk.to_vec(), path })
}

/// Adds the siblings inside the group, which are hashed anew, and returns the chunk.
fn prove_within_group<'a>(
    group: &'a [u8],
    group_index: u64,
    chunk_index: u64,
    path: &mut Vec<ChainingValue>,
) -> &'a [u8] {
    let base = group_index * GROUP_BYTES as u64;
    let bytes_of = |node: &Node| {
        let start = usize::try_from(node.first).expect("within a group") * CHUNK_BYTES;
        let bytes = usize::try_from(node.count).expect("within a group") * CHUNK_BYTES;
        (start as u64, &group[start..(start + bytes).min(group.len())])
    };
    let mut node = Node::root(chunk_count(group.len() as u64));
    while !node.is_leaf() {
        let (towards, sibling, _) = node.step_towards(chunk_index % CHUNKS_PER_GROUP);
        let (start, bytes) = bytes_of(&sibling);
        path.push(subtree_value(base + start, bytes));
        node = towards;
    }
    bytes_of(&node).1
}

/// Verifies that a chunk is the one at `chunk_index` of the shard `id` of `len` bytes.
///
/// # Errors
/// A [`ProofError`] for anything but the one right proof.
pub fn verify_chunk(
    id: &ShardId,
    len: u64,
    chunk_index: u64,
    proof: &ChunkProof,
) -> Result<(), ProofError> {
    verify_path(id.as_bytes(), len, chunk_index, &proof.chunk, &proof.path)
}

/// Climbs from one chunk of an input of `len` bytes to its root. Allocates nothing.
pub(super) fn verify_path(
    root: &[u8; 32],
    len: u64,
    chunk_index: u64,
    chunk: &[u8],
    path: &[ChainingValue],
) -> Result<(), ProofError> {
    let count = chunk_count(len);
    if chunk_index >= count {
        return Err(ProofError::Index { what: "chunk", index: chunk_index, count });
    }
    let offset = chunk_index * CHUNK_BYTES as u64;
    let (have, need) = (chunk.len() as u64, (len - offset).min(CHUNK_BYTES as u64));
    if have != need {
        return Err(ProofError::ChunkLen { have, need });
    }
    let (have, need) = (path.len() as u64, depth(count, chunk_index));
    if have != need {
        return Err(ProofError::PathLen { have, need });
    }
    let value = if count == 1 {
        *blake3::hash(chunk).as_bytes()
    } else {
        climb(Node::root(count), chunk_index, subtree_value(offset, chunk), path, true)
    };
    if value == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Levels between a leaf and the root.
pub(super) fn depth(leaf_count: u64, leaf: u64) -> u64 {
    let mut node = Node::root(leaf_count);
    let mut levels = 0;
    while !node.is_leaf() {
        (node, _, _) = node.step_towards(leaf);
        levels += 1;
    }
    levels
}

/// The value of `node`, given the leaf's value and the siblings below `node`.
fn climb(
    node: Node,
    leaf: u64,
    leaf_value: ChainingValue,
    path: &[ChainingValue],
    is_root: bool,
) -> ChainingValue {
    let Some((sibling, below)) = path.split_first() else {
        return leaf_value;
    };
    let (towards, _, is_left) = node.step_towards(leaf);
    let value = climb(towards, leaf, leaf_value, below, false);
    if is_left { join(&value, sibling, is_root) } else { join(sibling, &value, is_root) }
}
