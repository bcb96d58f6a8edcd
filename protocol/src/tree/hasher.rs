// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hashing a shard while it arrives. Beside the outboard, which grows with the bytes that really
//! came and not with the announced length, the state is one open group and one finished subtree
//! per level of the tree.

use alloc::vec::Vec;

use super::shape::{Node, bytes_in_group, group_count};
use super::{ChainingValue, GROUP_BYTES, PARENT_BYTES, TreeError, group_value, join};
use crate::ids::ShardId;

/// A finished subtree that waits for its sibling on the right.
struct Subtree {
    first: u64,
    count: u64,
    value: ChainingValue,
}

/// Computes the id and the outboard of a shard whose length is known beforehand.
///
/// Bytes may come in slices of any length; whole groups within a slice are hashed in place.
pub struct TreeHasher {
    len: u64,
    fed: u64,
    groups: u64,
    /// The group that began in an earlier slice and did not end there. It is gathered before it is
    /// hashed, because BLAKE3 is three times slower on slices that cut through its chunks.
    open: Vec<u8>,
    finished: Vec<Subtree>,
    outboard: Vec<u8>,
}

impl TreeHasher {
    /// Starts a shard of `len` bytes. Nothing is allocated for bytes that have not come.
    pub fn new(len: u64) -> Self {
        let groups = group_count(len);
        let mut hasher = Self {
            len,
            fed: 0,
            groups,
            open: Vec::new(),
            finished: Vec::new(),
            outboard: Vec::new(),
        };
        if len == 0 {
            hasher.close_group(group_value(0, &[], true));
        }
        hasher
    }

    /// Takes the next bytes. Those beyond the announced length are counted, not hashed;
    /// [`Self::finish`] then refuses.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.fed < self.len {
            let group = self.fed / GROUP_BYTES as u64;
            let group_end = group * GROUP_BYTES as u64 + bytes_in_group(group, self.len);
            let wanted = usize::try_from(group_end - self.fed).expect("at most one group");
            let (now, rest) = bytes.split_at(wanted.min(bytes.len()));
            bytes = rest;
            self.fed += now.len() as u64;
            if self.open.is_empty() && now.len() == wanted {
                self.close_group(group_value(group, now, self.groups == 1));
                continue;
            }
            self.open.extend_from_slice(now);
            if now.len() == wanted {
                let value = group_value(group, &self.open, self.groups == 1);
                self.open.clear();
                self.close_group(value);
            }
        }
        self.fed = self.fed.saturating_add(bytes.len() as u64);
    }

    /// Bytes taken so far, those beyond the announced length included.
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// The shard's id and outboard.
    ///
    /// # Errors
    /// [`TreeError::InputLen`] if more or fewer bytes came than announced.
    pub fn finish(mut self) -> Result<(ShardId, Vec<u8>), TreeError> {
        if self.fed != self.len {
            return Err(TreeError::InputLen { fed: self.fed, len: self.len });
        }
        let whole = self.finished.pop().expect("every byte came, so every group was closed");
        debug_assert!(self.finished.is_empty(), "the last group joins all that was left");
        Ok((ShardId::from_bytes(whole.value), self.outboard))
    }

    fn close_group(&mut self, value: ChainingValue) {
        let first = self.finished.last().map_or(0, |subtree| subtree.first + subtree.count);
        let mut right = Subtree { first, count: 1, value };
        let is_last = right.first + 1 == self.groups;
        // Two equal full subtrees are a node of every larger tree; the ragged right edge is known
        // only when the last group is.
        while let Some(left) = self.finished.pop_if(|left| is_last || left.count == right.count) {
            let count = left.count + right.count;
            let is_root = count == self.groups;
            self.write_parent(left.first, count, &left.value, &right.value);
            let value = join(&left.value, &right.value, is_root);
            right = Subtree { first: left.first, count, value };
        }
        self.finished.push(right);
    }

    fn write_parent(
        &mut self,
        first: u64,
        count: u64,
        left: &ChainingValue,
        right: &ChainingValue,
    ) {
        let mut node = Node::root(self.groups);
        while node.first != first || node.count != count {
            (node, _, _) = node.step_towards(first);
        }
        let entry = node.entry();
        if self.outboard.len() < entry.end {
            self.outboard.resize(entry.end, 0);
        }
        let (left_half, right_half) = self.outboard[entry].split_at_mut(PARENT_BYTES / 2);
        left_half.copy_from_slice(left);
        right_half.copy_from_slice(right);
    }
}

impl core::fmt::Debug for TreeHasher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TreeHasher")
            .field("len", &self.len)
            .field("fed", &self.fed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{GROUP_BYTES, TreeHasher};

    #[test]
    fn an_announced_length_alone_costs_no_memory() {
        let mut hasher = TreeHasher::new(u64::MAX);
        hasher.update(&[7; 3 * GROUP_BYTES]);
        // One entry per level of the tallest possible tree, and the three groups that came.
        assert!(hasher.outboard.len() <= 64 * 64, "{} bytes", hasher.outboard.len());
        hasher.finish().expect_err("most of it is missing");
    }
}
