// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shape of the tree: which nodes exist and where their entries lie. Pure arithmetic that
//! both ends of every proof share, so that no length or position is ever taken from a peer.

use core::ops::Range;

use super::{CHUNK_BYTES, ChainingValue, GROUP_BYTES, PARENT_BYTES, TreeError};

/// Groups of a shard of `len` bytes. The empty shard has one, of no bytes.
pub fn group_count(len: u64) -> u64 {
    len.div_ceil(GROUP_BYTES as u64).max(1)
}

/// Chunks of `len` bytes. The empty input has one, of no bytes.
pub fn chunk_count(len: u64) -> u64 {
    len.div_ceil(CHUNK_BYTES as u64).max(1)
}

/// Bytes of the outboard of a shard of `len` bytes.
pub fn outboard_len(len: u64) -> u64 {
    (group_count(len) - 1) * PARENT_BYTES as u64
}

/// The smallest range of whole groups that holds `range`; the last group ends with the shard.
///
/// # Errors
/// [`TreeError::Range`] if the range is empty, backwards or leaves the shard. The one empty range
/// that is allowed is `0..0` of an empty shard.
pub fn align_to_groups(range: Range<u64>, len: u64) -> Result<Range<u64>, TreeError> {
    let Range { start, end } = range;
    if end > len || (start >= end && !(len == 0 && start == 0)) {
        return Err(TreeError::Range { start, end, len });
    }
    let group = GROUP_BYTES as u64;
    let aligned_end = end.div_ceil(group).saturating_mul(group);
    Ok(start / group * group..aligned_end.min(len))
}

/// The groups that an (unaligned) range touches.
pub(super) fn groups_of(range: &Range<u64>, len: u64) -> Result<Range<u64>, TreeError> {
    let aligned = align_to_groups(range.clone(), len)?;
    let first = aligned.start / GROUP_BYTES as u64;
    Ok(first..aligned.end.div_ceil(GROUP_BYTES as u64).max(first + 1))
}

/// Bytes in one group of a shard.
pub(super) fn bytes_in_group(group: u64, len: u64) -> u64 {
    (len - group * GROUP_BYTES as u64).min(GROUP_BYTES as u64)
}

/// A subtree: `count` leaves from leaf `first` on, its parent entry (if it has one) at `position`.
///
/// Leaves are groups where an outboard is meant and chunks where an audit path is; the shape is
/// the same because a group is a full subtree of chunks wherever there is more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) position: u64,
}

impl Node {
    /// The whole tree.
    pub(super) fn root(leaf_count: u64) -> Self {
        Self { first: 0, count: leaf_count, position: 0 }
    }

    pub(super) fn is_leaf(&self) -> bool {
        self.count == 1
    }

    pub(super) fn end(&self) -> u64 {
        self.first + self.count
    }

    pub(super) fn touches(&self, leaves: &Range<u64>) -> bool {
        self.first < leaves.end && leaves.start < self.end()
    }

    pub(super) fn is_within(&self, leaves: &Range<u64>) -> bool {
        leaves.start <= self.first && self.end() <= leaves.end
    }

    /// The two children of a node over more than one leaf.
    pub(super) fn split(&self) -> (Self, Self) {
        debug_assert!(self.count > 1, "a leaf has no children");
        let left = 1 << (self.count - 1).ilog2();
        (
            Self { first: self.first, count: left, position: self.position + 1 },
            Self {
                first: self.first + left,
                count: self.count - left,
                position: self.position + left,
            },
        )
    }

    /// The children in the order (the one that holds `leaf`, the other), and whether the first of
    /// them is the left one.
    pub(super) fn step_towards(&self, leaf: u64) -> (Self, Self, bool) {
        let (left, right) = self.split();
        if leaf < right.first { (left, right, true) } else { (right, left, false) }
    }

    /// Where this node's parent entry lies in an outboard.
    pub(super) fn entry(&self) -> Range<usize> {
        let start = usize::try_from(self.position).expect("an outboard in memory is addressable")
            * PARENT_BYTES;
        start..start + PARENT_BYTES
    }
}

/// The two chaining values of a parent entry.
pub(super) fn halves(entry: &[u8]) -> (ChainingValue, ChainingValue) {
    let (left, right) = entry.split_at(PARENT_BYTES / 2);
    (
        left.try_into().expect("a parent entry has 64 bytes"),
        right.try_into().expect("a parent entry has 64 bytes"),
    )
}
