// SPDX-License-Identifier: MIT OR Apache-2.0
//! Audit proofs and the ways in which somebody without the bytes might try to make one.

use alloc::vec;
use alloc::vec::Vec;

use super::{GROUP, boundary_lengths, hash_tree, sample};
use crate::ids::ShardId;
use crate::tree::{
    CHUNK_BYTES, ChunkProof, EntryProof, ProofError, ShardEntry, ShardsRootHasher, TreeError,
    chunk_count, prove_chunk, prove_entry, verify_chunk, verify_entry,
};

struct Shard {
    bytes: Vec<u8>,
    id: ShardId,
    outboard: Vec<u8>,
}

impl Shard {
    fn of(bytes: Vec<u8>) -> Self {
        let (id, outboard) = hash_tree(&bytes);
        Self { bytes, id, outboard }
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn prove(&self, chunk: usize) -> ChunkProof {
        let start = chunk / 16 * GROUP;
        let group = &self.bytes[start..(start + GROUP).min(self.bytes.len())];
        prove_chunk(group, &self.outboard, self.len(), chunk as u64).expect("it exists")
    }

    fn verify(&self, chunk: usize, proof: &ChunkProof) -> Result<(), ProofError> {
        verify_chunk(&self.id, self.len(), chunk as u64, proof)
    }
}

fn entries(count: usize) -> (Vec<ShardEntry>, [u8; 32]) {
    let entry =
        |n: usize| ShardEntry { id: ShardId::of(&n.to_le_bytes()), shard_len: n as u64 * 64 };
    let entries: Vec<_> = (0..count).map(entry).collect();
    let mut hasher = ShardsRootHasher::new();
    for entry in &entries {
        hasher.push(entry.id, entry.shard_len);
    }
    assert_eq!(hasher.count(), count as u64);
    (entries, hasher.finish())
}

#[test]
fn every_chunk_can_be_proven() {
    for len in boundary_lengths() {
        let shard = Shard::of(sample(len));
        let chunks = usize::try_from(chunk_count(len as u64)).expect("a small sample");
        // All of the small ones, a spread of the large ones, and always the last.
        for chunk in (0..chunks).step_by(1 + chunks / 24).chain([chunks - 1]) {
            let proof = shard.prove(chunk);
            let end = (chunk * CHUNK_BYTES + CHUNK_BYTES).min(len);
            assert_eq!(proof.chunk, shard.bytes[chunk * CHUNK_BYTES..end]);
            shard.verify(chunk, &proof).expect("honest");
        }
    }
}

#[test]
fn a_prover_is_told_what_it_did_wrong() {
    let shard = Shard::of(sample(3 * GROUP + 1));
    let beyond = prove_chunk(&shard.bytes[..1], &shard.outboard, shard.len(), 49);
    let (start, end) = (49 * 1024, 50 * 1024);
    assert_eq!(beyond, Err(TreeError::Range { start, end, len: shard.len() }));
    let part = prove_chunk(&shard.bytes[..1024], &shard.outboard, shard.len(), 0);
    assert_eq!(part, Err(TreeError::GroupLen { group: 0, have: 1024, need: GROUP as u64 }));
    let other = prove_chunk(&shard.bytes[..GROUP], &[], shard.len(), 0);
    assert_eq!(other, Err(TreeError::OutboardLen { have: 0, need: 3 * 64 }));
}

#[test]
fn paths_of_another_length_are_refused() {
    let shard = Shard::of(sample(5 * GROUP));
    let honest = shard.prove(17);
    let need = honest.path.len() as u64;
    let mut short = honest.clone();
    short.path.pop();
    assert_eq!(shard.verify(17, &short), Err(ProofError::PathLen { have: need - 1, need }));
    let mut long = honest.clone();
    long.path.push([0; 32]);
    assert_eq!(shard.verify(17, &long), Err(ProofError::PathLen { have: need + 1, need }));
}

#[test]
fn a_stored_parent_does_not_pass_for_a_leaf() {
    // Whoever keeps two chaining values of a shard instead of the shard would like to answer with
    // them: as the only chunk of a tiny shard, or as a chunk one level up.
    let shard = Shard::of(sample(2 * GROUP));
    let tiny = ChunkProof { chunk: shard.outboard.clone(), path: Vec::new() };
    assert_eq!(verify_chunk(&shard.id, 64, 0, &tiny), Err(ProofError::Root));
    let need = shard.len().min(1024);
    assert_eq!(shard.verify(0, &tiny), Err(ProofError::ChunkLen { have: 64, need }));

    let four = Shard::of(sample(4 * CHUNK_BYTES));
    let proof = four.prove(3);
    let (left_half, third) = (proof.path[0], proof.path[1]);
    let fourth = blake3_value(&four.bytes[3 * CHUNK_BYTES..], 3);
    let parent = [third, fourth].concat();
    let climbed = ChunkProof { chunk: parent, path: vec![left_half] };
    assert_eq!(verify_chunk(&four.id, 1024 + 64, 1, &climbed), Err(ProofError::Root));
}

fn blake3_value(bytes: &[u8], chunk: u64) -> [u8; 32] {
    crate::tree::subtree_value(chunk * CHUNK_BYTES as u64, bytes)
}

#[test]
fn siblings_of_another_shard_lead_elsewhere() {
    let shard = Shard::of(sample(3 * GROUP));
    let mut other_bytes = shard.bytes.clone();
    other_bytes[0] ^= 1;
    let other = Shard::of(other_bytes);
    // The chunk is the same in both, only its surroundings differ.
    let forged = other.prove(40);
    assert_eq!(forged.chunk, shard.prove(40).chunk);
    assert_eq!(shard.verify(40, &forged), Err(ProofError::Root));
}

#[test]
fn right_bytes_at_another_index_are_refused() {
    let zeros = Shard::of(vec![0; 4 * GROUP]);
    for (from, to) in [(0, 1), (3, 5), (0, 16), (17, 33), (63, 62)] {
        let moved = zeros.prove(from);
        assert_eq!(zeros.verify(to, &moved), Err(ProofError::Root), "{from} as {to}");
    }
    let refused = zeros.verify(64, &zeros.prove(63));
    assert_eq!(refused, Err(ProofError::Index { what: "chunk", index: 64, count: 64 }));
}

#[test]
fn a_shard_does_not_pass_for_a_shorter_or_longer_one() {
    let shard = Shard::of(sample(2 * GROUP + 500));
    let last = shard.prove(32);
    for len in [500, 1024, 2 * GROUP - 1, 2 * GROUP, 2 * GROUP + 499, 2 * GROUP + 501, 9 * GROUP] {
        let chunk = chunk_count(len as u64) - 1;
        assert!(verify_chunk(&shard.id, len as u64, chunk, &last).is_err(), "as {len} bytes");
        assert!(verify_chunk(&shard.id, len as u64, 32, &last).is_err(), "as {len} bytes");
    }
}

#[test]
fn the_shards_root_is_plain_blake3_of_the_entries() {
    for count in [0, 1, 14, 15, 16, 17, 32, 33, 140, 513] {
        let (entries, root) = entries(count);
        let flat: Vec<u8> = entries.iter().flat_map(ShardEntry::to_bytes).collect();
        assert_eq!(flat.len(), count * 64);
        assert_eq!(root, *blake3::hash(&flat).as_bytes(), "{count} slots");
    }
    let entry = ShardEntry { id: ShardId::from_bytes([7; 32]), shard_len: 0x0102_0304 };
    let bytes = entry.to_bytes();
    assert_eq!(bytes[..32], [7; 32]);
    assert_eq!(bytes[32..40], [4, 3, 2, 1, 0, 0, 0, 0]);
    assert_eq!(bytes[40..], [0; 24]);
}

#[test]
fn every_entry_can_be_proven_and_no_other() {
    for count in [1, 2, 14, 16, 17, 33, 48, 140, 300] {
        let (entries, root) = entries(count);
        for (position, entry) in entries.iter().enumerate() {
            let proof = prove_entry(&entries, position).expect("it exists");
            let verify = |position: usize, entry: &ShardEntry, proof: &EntryProof| {
                verify_entry(&root, count as u64, position as u64, entry, proof)
            };
            verify(position, entry, &proof).expect("honest");
            if count > 1 {
                let other = (position + 1) % count;
                assert!(verify(other, entry, &proof).is_err(), "moved within {count}");
                assert!(verify(position, &entries[other], &proof).is_err(), "another's entry");
            }
            let longer = ShardEntry { shard_len: entry.shard_len + 1, ..*entry };
            assert_eq!(verify(position, &longer, &proof), Err(ProofError::Root));
        }
        let beyond =
            Err(ProofError::Index { what: "slot", index: count as u64, count: count as u64 });
        assert_eq!(prove_entry(&entries, count).map(|_| ()), beyond);
        let proof = prove_entry(&entries, 0).expect("it exists");
        let refused = verify_entry(&root, count as u64, count as u64, &entries[0], &proof);
        assert_eq!(refused, beyond);
    }
}

#[test]
fn entry_proofs_of_another_shape_are_refused() {
    let (entries, root) = entries(40);
    let honest = prove_entry(&entries, 20).expect("it exists");
    let verify = |proof: &EntryProof| verify_entry(&root, 40, 20, &entries[20], proof);
    let mut fewer = honest.clone();
    fewer.neighbours.pop();
    assert_eq!(verify(&fewer), Err(ProofError::Neighbours { have: 14, need: 15 }));
    let mut more = honest.clone();
    more.neighbours.push(entries[0]);
    assert_eq!(verify(&more), Err(ProofError::Neighbours { have: 16, need: 15 }));
    let mut swapped = honest.clone();
    swapped.neighbours.swap(0, 14);
    assert_eq!(verify(&swapped), Err(ProofError::Root));
    let mut long = honest.clone();
    long.path.push(root);
    assert_eq!(verify(&long), Err(ProofError::PathLen { have: 3, need: 2 }));
    let mut short = honest;
    short.path.clear();
    assert_eq!(verify(&short), Err(ProofError::PathLen { have: 0, need: 2 }));
    // Slot counts that nobody can have hashed do not overflow.
    assert!(verify_entry(&root, u64::MAX, 20, &entries[20], &more).is_err());
}
