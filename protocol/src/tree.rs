// SPDX-License-Identifier: MIT OR Apache-2.0
//! BLAKE3 hash trees: shard ids, stored outboards, verified ranges and audit proofs.
//!
//! - [`TreeHasher`] hashes a shard as it arrives and leaves its **outboard** behind.
//! - [`check_outboard`] decides whether a stored outboard may be trusted again.
//! - [`range_proof`] and [`RangeVerifier`] are the two ends of a verified range read: a lie is
//!   noticed within the group of [`GROUP_BYTES`] it is told in.
//! - [`prove_chunk`] and [`verify_chunk`] answer an audit of one chunk of [`CHUNK_BYTES`].
//! - [`ShardsRootHasher`], [`prove_entry`] and [`verify_entry`] do the same for the list of an
//!   object's shards, whose root is what the chain keeps.
//! - [`ShardsTree`] makes a [`SpanProof`] for each group of that list; with it the group's holder
//!   proves entries ([`prove_entry_in_span`]) without having the list.
//!
//! All of it is plain BLAKE3 (its own specification, section 2.1, defines the tree): a shard's id
//! is what `b3sum` prints for it. Leaves and inner nodes are separated by BLAKE3's flags, and so
//! are the root and everything below, so neither can be passed off as the other.
//!
//! # Layout of an outboard (disk and wire format)
//!
//! A shard of `len` bytes is `groups = max(1, ceil(len / 16384))` groups. They are the leaves of
//! a binary tree: a node over `n > 1` groups has the largest power of two below `n` on its left
//! and the rest on its right. Its **parent entry** is 64 bytes: the 32-byte chaining value of the
//! left child, then that of the right child. The outboard is the `groups - 1` parent entries in
//! pre-order (node, left subtree, right subtree) with nothing before, between or after them; it
//! is empty for a shard of one group. The parent over `n` groups at entry `p` has its left child
//! at entry `p + 1` and its right child at entry `p + (groups on the left)`, where these are
//! parents themselves. Nodes inside a group are never stored: hashing 16 KiB again is cheaper.
//!
//! A **range proof** is the subsequence of the outboard whose nodes cover at least one byte of the
//! range, in the same order; the proof of the whole shard therefore *is* the outboard.
//!
//! # What a proof does not say
//!
//! The shape of the tree follows from `len`, and `len` is an input of every check here. A proof
//! that does not include the last chunk also fits some other lengths, so `len` must come from
//! where the id came from: a manifest, a record header, or an entry proven by [`verify_entry`].

use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::ids::ShardId;

mod audit;
mod entries;
mod hasher;
mod outboard;
mod range;
mod shape;
mod shards_tree;
mod span;

#[cfg(test)]
mod tests;

pub use self::audit::{ChunkProof, ProofError, prove_chunk, verify_chunk};
pub use self::entries::{
    ENTRY_BYTES, EntryProof, ShardEntry, ShardsRootHasher, prove_entry, verify_entry,
};
pub use self::hasher::TreeHasher;
pub use self::outboard::{check_outboard, proof_len, range_proof};
pub use self::range::{RangeVerifier, verify_range};
pub use self::shape::{align_to_groups, chunk_count, group_count, outboard_len};
pub use self::shards_tree::ShardsTree;
pub use self::span::{SpanProof, prove_entry_in_span, verify_span};

/// The unit of BLAKE3 itself and of an audit.
pub const CHUNK_BYTES: usize = 1024;
/// The unit of verified transfer: the largest lie that can arrive before it is noticed.
pub const GROUP_BYTES: usize = 16 * CHUNK_BYTES;
/// One parent entry of an outboard or a range proof: left and right chaining value.
pub const PARENT_BYTES: usize = 64;

/// The hash of a subtree that is not the whole tree.
type ChainingValue = [u8; 32];

/// Why a shard, an outboard or a range was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// More or fewer bytes were hashed than announced.
    #[error("the shard was announced with {len} bytes but {fed} came: announce what is sent")]
    InputLen {
        /// Bytes that were fed.
        fed: u64,
        /// Bytes that were announced.
        len: u64,
    },
    /// A stored outboard of another length than its shard's.
    #[error("the outboard has {have} bytes where {need} belong: rebuild it from the shard")]
    OutboardLen {
        /// Bytes of the outboard at hand.
        have: u64,
        /// What [`outboard_len`] says.
        need: u64,
    },
    /// A range that is empty, backwards or beyond the end.
    #[error("range {start}..{end} is not within the shard's {len} bytes: ask for a part of it")]
    Range {
        /// First byte asked for.
        start: u64,
        /// One past the last byte asked for.
        end: u64,
        /// Bytes of the shard.
        len: u64,
    },
    /// A range proof of another length than the range demands.
    #[error("the range proof has {have} bytes where {need} belong: fetch from another holder")]
    ProofLen {
        /// Bytes of the proof at hand.
        have: u64,
        /// What [`proof_len`] says.
        need: u64,
    },
    /// A parent entry that does not hash to what its own parent, or the shard id, says.
    #[error("the tree node over groups {first}..{end} does not lead to the shard id: drop it")]
    Parent {
        /// First group under the node.
        first: u64,
        /// One past the last group under the node.
        end: u64,
    },
    /// A group of another length than its place in the shard dictates.
    #[error("group {group} has {have} bytes where {need} belong: send whole groups in order")]
    GroupLen {
        /// Index of the group in the shard.
        group: u64,
        /// Bytes that came.
        have: u64,
        /// Bytes that belong there; 0 after the last group of the range.
        need: u64,
    },
    /// Bytes that are not the shard's.
    #[error("the bytes of group {group} are not those of the shard: fetch from another holder")]
    Group {
        /// Index of the group in the shard.
        group: u64,
    },
    /// The data ended before the range did.
    #[error("{missing} groups of the range never came: resume from there")]
    Unfinished {
        /// Groups that were not pushed.
        missing: u64,
    },
}

/// The chaining value of a subtree that starts at `offset`; never of a whole tree.
fn subtree_value(offset: u64, bytes: &[u8]) -> ChainingValue {
    blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
}

/// Joins two subtrees. The topmost join of a tree is flagged by BLAKE3 and gives its root.
fn join(left: &ChainingValue, right: &ChainingValue, is_root: bool) -> ChainingValue {
    if is_root {
        *merge_subtrees_root(left, right, Mode::Hash).as_bytes()
    } else {
        merge_subtrees_non_root(left, right, Mode::Hash)
    }
}

/// The hash a group must have: the shard id itself if it is the only one.
fn group_value(group: u64, bytes: &[u8], is_root: bool) -> ChainingValue {
    if is_root {
        *ShardId::of(bytes).as_bytes()
    } else {
        subtree_value(group * GROUP_BYTES as u64, bytes)
    }
}
