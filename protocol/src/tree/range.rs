// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reader's side of a verified range: the proof is checked at once, the bytes as they come.

use alloc::vec::{self, Vec};
use core::ops::Range;

use super::outboard::{check_parent, proof_len};
use super::shape::{Node, bytes_in_group, group_count, groups_of};
use super::{ChainingValue, GROUP_BYTES, PARENT_BYTES, TreeError, group_value};
use crate::ids::ShardId;

/// Accepts the groups of one range, in order, each only if it is the shard's.
#[derive(Debug)]
pub struct RangeVerifier {
    len: u64,
    next_group: u64,
    /// What the groups to come must hash to.
    expected: vec::IntoIter<ChainingValue>,
}

impl RangeVerifier {
    /// Checks a proof for the groups that `range` touches.
    ///
    /// `id` and `len` must come from a trusted place; `proof` may come from anybody. Memory is
    /// bounded by the proof's own length, which must be exactly [`proof_len`].
    ///
    /// # Errors
    /// [`TreeError::Range`], [`TreeError::ProofLen`], [`TreeError::Parent`]; for the empty shard
    /// [`TreeError::Group`] if `id` is not that of no bytes.
    pub fn new(id: &ShardId, len: u64, range: Range<u64>, proof: &[u8]) -> Result<Self, TreeError> {
        let (have, need) = (proof.len() as u64, proof_len(len, range.clone())?);
        if have != need {
            return Err(TreeError::ProofLen { have, need });
        }
        let groups = groups_of(&range, len)?;
        let mut expected = Vec::new();
        let mut entries = proof.chunks_exact(PARENT_BYTES);
        let root = Node::root(group_count(len));
        collect(root, id.as_bytes(), &groups, &mut entries, &mut expected)?;
        let mut verifier = Self { len, next_group: groups.start, expected: expected.into_iter() };
        if len == 0 {
            // There is no byte to push, so the only group is judged here.
            verifier.push(&[])?;
        }
        Ok(verifier)
    }

    /// How many bytes the next push must have, or nothing once the range is complete.
    pub fn next_len(&self) -> Option<usize> {
        let bytes = || bytes_in_group(self.next_group, self.len);
        (self.expected.len() > 0).then(|| usize::try_from(bytes()).expect("at most one group"))
    }

    /// Judges the next group. After an error the verifier stays where it was, so the same group
    /// may be fetched again elsewhere.
    ///
    /// # Errors
    /// [`TreeError::GroupLen`] and [`TreeError::Group`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TreeError> {
        let group = self.next_group;
        let Some(expected) = self.expected.as_slice().first() else {
            return Err(TreeError::GroupLen { group, have: bytes.len() as u64, need: 0 });
        };
        let (have, need) = (bytes.len() as u64, bytes_in_group(group, self.len));
        if have != need {
            return Err(TreeError::GroupLen { group, have, need });
        }
        if group_value(group, bytes, group_count(self.len) == 1) != *expected {
            return Err(TreeError::Group { group });
        }
        self.expected.next();
        self.next_group += 1;
        Ok(())
    }

    /// Confirms that every group of the range came.
    ///
    /// # Errors
    /// [`TreeError::Unfinished`].
    pub fn finish(self) -> Result<(), TreeError> {
        match self.expected.len() as u64 {
            0 => Ok(()),
            missing => Err(TreeError::Unfinished { missing }),
        }
    }
}

/// Walks the proof in its own order, checking every entry, and keeps the values of the groups.
fn collect<'a>(
    node: Node,
    value: &ChainingValue,
    groups: &Range<u64>,
    entries: &mut impl Iterator<Item = &'a [u8]>,
    expected: &mut Vec<ChainingValue>,
) -> Result<(), TreeError> {
    if !node.touches(groups) {
        return Ok(());
    }
    if node.is_leaf() {
        expected.push(*value);
        return Ok(());
    }
    let entry = entries.next().expect("the proof's length was checked against the same walk");
    let (left_value, right_value) = check_parent(&node, value, entry)?;
    let (left, right) = node.split();
    collect(left, &left_value, groups, entries, expected)?;
    collect(right, &right_value, groups, entries, expected)
}

/// Verifies the whole aligned range in one call; `data` is the range as
/// [`super::align_to_groups`] widened it.
///
/// # Errors
/// As [`RangeVerifier::new`], [`RangeVerifier::push`] and [`RangeVerifier::finish`].
pub fn verify_range(
    id: &ShardId,
    len: u64,
    range: Range<u64>,
    proof: &[u8],
    data: &[u8],
) -> Result<(), TreeError> {
    let mut verifier = RangeVerifier::new(id, len, range, proof)?;
    for group in data.chunks(GROUP_BYTES) {
        verifier.push(group)?;
    }
    verifier.finish()
}
