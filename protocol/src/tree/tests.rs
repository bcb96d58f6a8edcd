// SPDX-License-Identifier: MIT OR Apache-2.0
//! Examples at every boundary; the random ones are in the crate's `tests/`.

mod audits;
mod ranges;

use alloc::vec;
use alloc::vec::Vec;

use blake3::hazmat::{HasherExt as _, Mode, left_subtree_len, merge_subtrees_non_root};

use super::{GROUP_BYTES, TreeError, TreeHasher, check_outboard, group_count, outboard_len};
use crate::ids::ShardId;

const GROUP: usize = GROUP_BYTES;

/// Bytes that differ everywhere, the same in every run.
fn sample(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"tree tests").finalize_xof().fill(&mut bytes);
    bytes
}

fn hash_tree(bytes: &[u8]) -> (ShardId, Vec<u8>) {
    let mut hasher = TreeHasher::new(bytes.len() as u64);
    hasher.update(bytes);
    hasher.finish().expect("the length is right")
}

/// Every length around which the code takes another path.
fn boundary_lengths() -> Vec<usize> {
    let mut lengths = vec![0, 1, 63, 64, 65, 1023, 1024, 1025, 2048, 2049];
    for groups in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17] {
        let bytes = groups * GROUP;
        lengths.extend([bytes - 1024, bytes - 1, bytes, bytes + 1, bytes + 1025]);
    }
    lengths
}

/// The outboard straight from its definition, by recursion over the bytes.
fn outboard_by_definition(bytes: &[u8], offset: u64, outboard: &mut Vec<u8>) -> [u8; 32] {
    if bytes.len() <= GROUP {
        return blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root();
    }
    let left_len = left_subtree_len(bytes.len() as u64);
    let (left, right) = bytes.split_at(usize::try_from(left_len).expect("within the sample"));
    let place = outboard.len();
    outboard.resize(place + 64, 0);
    let left = outboard_by_definition(left, offset, outboard);
    let right = outboard_by_definition(right, offset + left_len, outboard);
    outboard[place..place + 32].copy_from_slice(&left);
    outboard[place + 32..place + 64].copy_from_slice(&right);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

#[test]
fn the_id_is_plain_blake3_and_the_outboard_follows_its_definition() {
    for len in boundary_lengths().into_iter().chain([6_713_344]) {
        let bytes = sample(len);
        let (id, outboard) = hash_tree(&bytes);
        assert_eq!(id, ShardId::of(&bytes), "{len} bytes");
        assert_eq!(outboard.len() as u64, outboard_len(len as u64), "{len} bytes");
        let mut expected = Vec::new();
        if len > 0 {
            outboard_by_definition(&bytes, 0, &mut expected);
        }
        assert!(outboard == expected, "{len} bytes: outboard");
        check_outboard(&id, len as u64, &outboard).expect("just made");
    }
}

#[test]
fn slicing_does_not_matter() {
    for len in boundary_lengths() {
        let bytes = sample(len);
        let whole = hash_tree(&bytes);
        for step in [61, 1024, 7919, GROUP, GROUP + 1, 3 * GROUP - 1] {
            let mut hasher = TreeHasher::new(len as u64);
            for slice in bytes.chunks(step) {
                hasher.update(slice);
                hasher.update(&[]);
            }
            assert_eq!(hasher.fed(), len as u64);
            assert!(hasher.finish().expect("all fed") == whole, "{len} bytes by {step}");
        }
    }
}

#[test]
fn another_length_than_announced_is_an_error() {
    for (len, fed) in [(0, 1), (1, 0), (1024, 1023), (GROUP, GROUP + 1), (5 * GROUP, 4 * GROUP)] {
        let mut hasher = TreeHasher::new(len as u64);
        hasher.update(&sample(fed));
        let error = hasher.finish().expect_err("lengths differ");
        assert_eq!(error, TreeError::InputLen { fed: fed as u64, len: len as u64 });
    }
}

#[test]
fn counts_and_lengths_follow_the_definition() {
    for (len, groups) in [(0, 1), (1, 1), (16_384, 1), (16_385, 2), (6_713_344, 410)] {
        assert_eq!(group_count(len), groups, "{len} bytes");
        assert_eq!(outboard_len(len), (groups - 1) * 64, "{len} bytes");
    }
    // The largest possible length neither overflows nor panics.
    assert_eq!(outboard_len(u64::MAX), ((1 << 50) - 1) * 64);
}

#[test]
fn a_damaged_outboard_is_noticed_wherever_it_is_damaged() {
    let bytes = sample(7 * GROUP + 5);
    let (id, outboard) = hash_tree(&bytes);
    let len = bytes.len() as u64;
    for place in 0..outboard.len() {
        let mut damaged = outboard.clone();
        damaged[place] ^= 0x10;
        let error = check_outboard(&id, len, &damaged).expect_err("one bit differs");
        assert!(matches!(error, TreeError::Parent { .. }), "byte {place}: {error}");
    }
    let (have, need) = (outboard.len() as u64, outboard.len() as u64);
    assert_eq!(
        check_outboard(&id, len, &outboard[64..]),
        Err(TreeError::OutboardLen { have: have - 64, need })
    );
    assert!(check_outboard(&ShardId::of(b"another"), len, &outboard).is_err());
    check_outboard(&ShardId::of(b"one group"), 9, &[])
        .expect("nothing is stored, nothing is wrong");
}
