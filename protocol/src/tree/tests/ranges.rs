// SPDX-License-Identifier: MIT OR Apache-2.0
//! Range proofs: what the holder cuts, what the reader accepts.

use alloc::vec::Vec;
use core::ops::Range;

use super::{GROUP, hash_tree, sample};
use crate::ids::ShardId;
use crate::tree::{
    RangeVerifier, TreeError, align_to_groups, outboard_len, proof_len, range_proof, verify_range,
};

fn slice(bytes: &[u8], range: &Range<u64>) -> Vec<u8> {
    let at = |place: u64| usize::try_from(place).expect("within the sample");
    bytes[at(range.start)..at(range.end)].to_vec()
}

#[test]
fn every_range_of_groups_verifies_with_a_proof_of_the_foretold_length() {
    for groups in 1..=17 {
        let bytes = sample(groups * GROUP - 100);
        let len = bytes.len() as u64;
        let (id, outboard) = hash_tree(&bytes);
        assert_eq!(range_proof(&outboard, len, 0..len).expect("whole"), outboard);
        for first in 0..groups {
            for last in first..groups {
                let range = (first * GROUP) as u64 + 7..((last * GROUP) as u64 + 9);
                let proof = range_proof(&outboard, len, range.clone()).expect("within");
                assert_eq!(proof_len(len, range.clone()), Ok(proof.len() as u64), "{range:?}");
                let data = slice(&bytes, &align_to_groups(range.clone(), len).expect("within"));
                verify_range(&id, len, range, &proof, &data).expect("honest");
            }
        }
    }
}

#[test]
fn the_root_is_always_part_of_the_proof() {
    let (id, outboard) = hash_tree(&sample(9 * GROUP));
    let len = 9 * GROUP as u64;
    for start in (0..len).step_by(GROUP) {
        let proof = range_proof(&outboard, len, start..start + 1).expect("within");
        assert_eq!(proof[..64], outboard[..64], "range at {start}");
        RangeVerifier::new(&id, len, start..start + 1, &proof).expect("honest");
    }
}

#[test]
fn ranges_grow_to_whole_groups_and_end_with_the_shard() {
    let group = GROUP as u64;
    let len = 2 * group + 10;
    for (range, aligned) in [
        (0..1, 0..group),
        (group - 1..group + 1, 0..2 * group),
        (group..2 * group, group..2 * group),
        (2 * group..2 * group + 1, 2 * group..len),
        (0..len, 0..len),
    ] {
        assert_eq!(align_to_groups(range.clone(), len), Ok(aligned), "{range:?}");
    }
    assert_eq!(align_to_groups(0..0, 0), Ok(0..0));
    let backwards = Range { start: 5, end: 4 };
    for (range, len) in
        [(0..0, 5), (5..5, 5), (0..6, 5), (backwards, 9), (0..1, 0), (0..u64::MAX, 5)]
    {
        let (start, end) = (range.start, range.end);
        let expected = Err(TreeError::Range { start, end, len });
        assert_eq!(align_to_groups(range.clone(), len), expected);
        assert_eq!(proof_len(len, range), Err(TreeError::Range { start, end, len }));
    }
    // Arithmetic at the end of the number line neither overflows nor panics.
    assert_eq!(align_to_groups(u64::MAX - 1..u64::MAX, u64::MAX), Ok(u64::MAX - 16_383..u64::MAX));
    assert_eq!(proof_len(u64::MAX, 0..1), Ok(50 * 64));
}

#[test]
fn shards_of_one_group_need_no_proof() {
    for len in [1, 64, 1024, 1025, GROUP - 1, GROUP] {
        let bytes = sample(len);
        let range = 0..len as u64;
        verify_range(&ShardId::of(&bytes), len as u64, range.clone(), &[], &bytes).expect("honest");
        let mut damaged = bytes.clone();
        damaged[len / 2] ^= 1;
        let lie = verify_range(&ShardId::of(&bytes), len as u64, range, &[], &damaged);
        assert_eq!(lie, Err(TreeError::Group { group: 0 }));
    }
}

#[test]
fn the_empty_shard_is_the_hash_of_nothing() {
    let id = ShardId::of(&[]);
    assert_eq!(hash_tree(&[]), (id, Vec::new()));
    let verifier = RangeVerifier::new(&id, 0, 0..0, &[]).expect("honest");
    assert_eq!(verifier.next_len(), None);
    verifier.finish().expect("nothing to come");
    let other = ShardId::of(b"x");
    assert_eq!(verify_range(&other, 0, 0..0, &[], &[]), Err(TreeError::Group { group: 0 }));
}

#[test]
fn a_lie_is_noticed_in_its_own_group_and_the_group_may_come_again() {
    let bytes = sample(5 * GROUP + 33);
    let len = bytes.len() as u64;
    let (id, outboard) = hash_tree(&bytes);
    let mut verifier = RangeVerifier::new(&id, len, 0..len, &outboard).expect("honest");
    for (index, group) in bytes.chunks(GROUP).enumerate() {
        let place = index as u64;
        assert_eq!(verifier.next_len(), Some(group.len()));
        let mut lie = group.to_vec();
        lie[group.len() - 1] ^= 0x80;
        assert_eq!(verifier.push(&lie), Err(TreeError::Group { group: place }));
        let short = verifier.push(&group[1..]);
        let (have, need) = (group.len() as u64 - 1, group.len() as u64);
        assert_eq!(short, Err(TreeError::GroupLen { group: place, have, need }));
        verifier.push(group).expect("honest");
    }
    let surplus = verifier.push(&bytes[..GROUP]);
    assert_eq!(surplus, Err(TreeError::GroupLen { group: 6, have: GROUP as u64, need: 0 }));
    verifier.finish().expect("all came");
}

#[test]
fn data_that_ends_early_is_unfinished() {
    let bytes = sample(4 * GROUP);
    let len = bytes.len() as u64;
    let (id, outboard) = hash_tree(&bytes);
    let result = verify_range(&id, len, 0..len, &outboard, &bytes[..3 * GROUP]);
    assert_eq!(result, Err(TreeError::Unfinished { missing: 1 }));
}

#[test]
fn equal_groups_at_other_places_are_refused() {
    // Zeros everywhere: only BLAKE3's counter tells one group from the next.
    let bytes = alloc::vec![0; 4 * GROUP];
    let len = bytes.len() as u64;
    let (id, outboard) = hash_tree(&bytes);
    assert_ne!(outboard[64..96], outboard[96..128], "group values carry their place");
    let proof = range_proof(&outboard, len, 0..1).expect("within");
    let elsewhere = (2 * GROUP) as u64..(2 * GROUP) as u64 + 1;
    assert_eq!(proof_len(len, elsewhere.clone()), Ok(proof.len() as u64));
    let refused = RangeVerifier::new(&id, len, elsewhere, &proof).expect_err("left half's proof");
    assert_eq!(refused, TreeError::Parent { first: 2, end: 4 });
}

#[test]
fn a_claimed_length_makes_nobody_allocate() {
    let id = ShardId::of(b"whatever");
    let refused = RangeVerifier::new(&id, u64::MAX, 0..u64::MAX, &[0; 64]).expect_err("too short");
    assert_eq!(refused, TreeError::ProofLen { have: 64, need: outboard_len(u64::MAX) });
}
