// SPDX-License-Identifier: MIT OR Apache-2.0
//! The holder's side: trusting a stored outboard, and cutting range proofs out of it.

use alloc::vec::Vec;
use core::ops::Range;

use super::shape::{Node, group_count, groups_of, halves, outboard_len};
use super::{ChainingValue, PARENT_BYTES, TreeError, join};
use crate::ids::ShardId;

/// Verifies every entry of a stored outboard against the shard's id.
///
/// Afterwards range proofs cut from it are right; whether the shard's bytes are is for the groups
/// to show.
///
/// # Errors
/// [`TreeError::OutboardLen`] or [`TreeError::Parent`]. A shard of one group has no entry to be
/// wrong.
pub fn check_outboard(id: &ShardId, len: u64, outboard: &[u8]) -> Result<(), TreeError> {
    demand_len(outboard, len)?;
    check_subtree(Node::root(group_count(len)), id.as_bytes(), outboard)
}

fn check_subtree(node: Node, value: &ChainingValue, outboard: &[u8]) -> Result<(), TreeError> {
    if node.is_leaf() {
        return Ok(());
    }
    let (left_value, right_value) = check_parent(&node, value, &outboard[node.entry()])?;
    let (left, right) = node.split();
    check_subtree(left, &left_value, outboard)?;
    check_subtree(right, &right_value, outboard)
}

/// Takes a parent entry apart if it is the one its own parent (or the id) promised.
pub(super) fn check_parent(
    node: &Node,
    value: &ChainingValue,
    entry: &[u8],
) -> Result<(ChainingValue, ChainingValue), TreeError> {
    let (left, right) = halves(entry);
    // Only the root's entry lies at position 0.
    if join(&left, &right, node.position == 0) == *value {
        Ok((left, right))
    } else {
        Err(TreeError::Parent { first: node.first, end: node.end() })
    }
}

/// Bytes of the proof of a range, so that a receiver knows what to accept before it comes.
///
/// # Errors
/// [`TreeError::Range`] as in [`super::align_to_groups`].
pub fn proof_len(len: u64, range: Range<u64>) -> Result<u64, TreeError> {
    let groups = groups_of(&range, len)?;
    Ok(parents_within(Node::root(group_count(len)), &groups) * PARENT_BYTES as u64)
}

fn parents_within(node: Node, groups: &Range<u64>) -> u64 {
    if !node.touches(groups) {
        0
    } else if node.is_within(groups) {
        node.count - 1
    } else {
        let (left, right) = node.split();
        1 + parents_within(left, groups) + parents_within(right, groups)
    }
}

/// The parent entries that prove the groups of a range, in pre-order.
///
/// The outboard is taken as it is: whoever stored it has checked it, and the receiver will.
///
/// # Errors
/// [`TreeError::OutboardLen`] and [`TreeError::Range`].
pub fn range_proof(outboard: &[u8], len: u64, range: Range<u64>) -> Result<Vec<u8>, TreeError> {
    demand_len(outboard, len)?;
    let groups = groups_of(&range, len)?;
    let mut proof = Vec::new();
    copy_subtree(Node::root(group_count(len)), &groups, outboard, &mut proof);
    Ok(proof)
}

fn copy_subtree(node: Node, groups: &Range<u64>, outboard: &[u8], proof: &mut Vec<u8>) {
    if node.is_leaf() || !node.touches(groups) {
        return;
    }
    proof.extend_from_slice(&outboard[node.entry()]);
    let (left, right) = node.split();
    copy_subtree(left, groups, outboard, proof);
    copy_subtree(right, groups, outboard, proof);
}

pub(super) fn demand_len(outboard: &[u8], len: u64) -> Result<(), TreeError> {
    let (have, need) = (outboard.len() as u64, outboard_len(len));
    if have == need { Ok(()) } else { Err(TreeError::OutboardLen { have, need }) }
}
