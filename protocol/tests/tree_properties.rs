// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hash trees under random lengths, ranges and damage: the honest proof is accepted, and no proof
//! with one bit changed anywhere is.

use std::ops::Range;

use proptest::prelude::{ProptestConfig, Strategy, any, prop_assert, prop_assert_eq};
use proptest::proptest;
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::{
    ChunkProof, ShardEntry, ShardsRootHasher, TreeHasher, align_to_groups, check_outboard,
    chunk_count, proof_len, prove_chunk, prove_entry, range_proof, verify_chunk, verify_entry,
    verify_range,
};

const GROUP: u64 = 16 << 10;
const LEN_MAX: u64 = 9 * GROUP + 5000;

#[derive(Debug, Clone)]
struct Shard {
    bytes: Vec<u8>,
    id: ShardId,
    outboard: Vec<u8>,
}

impl Shard {
    fn new(len: u64, seed: u64) -> Self {
        let mut bytes = vec![0; index(len)];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        let mut hasher = TreeHasher::new(len);
        hasher.update(&bytes);
        let (id, outboard) = hasher.finish().expect("the length is right");
        Self { bytes, id, outboard }
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn slice(&self, range: Range<u64>) -> &[u8] {
        &self.bytes[index(range.start)..index(range.end)]
    }

    fn prove(&self, chunk: u64) -> ChunkProof {
        let start = chunk / 16 * GROUP;
        let group = self.slice(start..(start + GROUP).min(self.len()));
        prove_chunk(group, &self.outboard, self.len(), chunk).expect("it exists")
    }
}

fn index(place: u64) -> usize {
    usize::try_from(place).expect("samples are small")
}

fn flip(bytes: &mut [u8], bit: u64) {
    let bit = index(bit % (bytes.len() as u64 * 8));
    bytes[bit / 8] ^= 1 << (bit % 8);
}

fn flip_id(id: ShardId, bit: u64) -> ShardId {
    let mut bytes = *id.as_bytes();
    flip(&mut bytes, bit);
    ShardId::from_bytes(bytes)
}

/// Lengths of every order of magnitude, those beside a border among them.
fn lengths() -> impl Strategy<Value = u64> {
    let near = (1..=LEN_MAX / 1024, 0_u64..=2).prop_map(|(chunks, off)| chunks * 1024 + off - 1);
    proptest::strategy::Union::new([(1..=LEN_MAX).boxed(), (1_u64..2048).boxed(), near.boxed()])
}

fn shards() -> impl Strategy<Value = Shard> {
    (lengths(), any::<u64>()).prop_map(|(len, seed)| Shard::new(len, seed))
}

fn ranges_within(len: u64, a: u64, b: u64) -> Range<u64> {
    let (a, b) = (a % len, b % len);
    a.min(b)..a.max(b) + 1
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn any_slicing_gives_the_blake3_of_the_whole(
        len in lengths(), seed: u64, steps in proptest::collection::vec(1_usize..40_000, 1..12),
    ) {
        let whole = Shard::new(len, seed);
        let mut hasher = TreeHasher::new(len);
        let (mut rest, mut steps) = (&whole.bytes[..], steps.into_iter().cycle());
        while !rest.is_empty() {
            let step = steps.next().expect("endless").min(rest.len());
            hasher.update(&rest[..step]);
            rest = &rest[step..];
        }
        let (id, outboard) = hasher.finish().expect("all fed");
        prop_assert_eq!(id, ShardId::of(&whole.bytes));
        prop_assert!(outboard == whole.outboard);
        prop_assert_eq!(check_outboard(&id, len, &outboard), Ok(()));
    }

    #[test]
    fn a_range_is_accepted_as_it_is_and_refused_with_any_bit_changed(
        shard in shards(), a: u64, b: u64, bit: u64,
    ) {
        let (id, len) = (shard.id, shard.len());
        let range = ranges_within(len, a, b);
        let proof = range_proof(&shard.outboard, len, range.clone()).expect("within");
        prop_assert_eq!(proof_len(len, range.clone()), Ok(proof.len() as u64));
        let data = shard.slice(align_to_groups(range.clone(), len).expect("within"));
        prop_assert_eq!(verify_range(&id, len, range.clone(), &proof, data), Ok(()));

        let other_id = flip_id(id, bit);
        prop_assert!(verify_range(&other_id, len, range.clone(), &proof, data).is_err());
        let mut damaged = data.to_vec();
        flip(&mut damaged, bit);
        prop_assert!(verify_range(&id, len, range.clone(), &proof, &damaged).is_err());
        if !proof.is_empty() {
            let mut forged = proof.clone();
            flip(&mut forged, bit);
            prop_assert!(verify_range(&id, len, range.clone(), &forged, data).is_err());
            prop_assert!(verify_range(&id, len, range.clone(), &proof[64..], data).is_err());
        }
        let longer = [&proof[..], &[0; 64]].concat();
        prop_assert!(verify_range(&id, len, range.clone(), &longer, data).is_err());
        prop_assert!(verify_range(&id, len, range, &proof, &data[..data.len() - 1]).is_err());
    }

    #[test]
    fn a_range_with_the_tail_settles_the_length(shard in shards(), a: u64, bit in 0_u32..40) {
        let (id, len) = (shard.id, shard.len());
        let start = a % len;
        let proof = range_proof(&shard.outboard, len, start..len).expect("within");
        let data = shard.slice(align_to_groups(start..len, len).expect("within"));
        let other = len ^ (1 << bit);
        prop_assert!(verify_range(&id, other, start..len, &proof, data).is_err());
        prop_assert!(verify_range(&id, other, start..other, &proof, data).is_err());
    }

    #[test]
    fn a_chunk_is_accepted_as_it_is_and_refused_with_any_bit_changed(
        shard in shards(), chunk: u64, bit: u64,
    ) {
        let (id, len) = (shard.id, shard.len());
        let chunk = chunk % chunk_count(len);
        let proof = shard.prove(chunk);
        prop_assert_eq!(verify_chunk(&id, len, chunk, &proof), Ok(()));

        prop_assert!(verify_chunk(&flip_id(id, bit), len, chunk, &proof).is_err());
        prop_assert!(verify_chunk(&id, len, chunk ^ (1 << (bit % 64)), &proof).is_err());
        let mut damaged = proof.clone();
        flip(&mut damaged.chunk, bit);
        prop_assert!(verify_chunk(&id, len, chunk, &damaged).is_err());
        if !proof.path.is_empty() {
            let mut forged = proof.clone();
            let level = index(bit % proof.path.len() as u64);
            flip(&mut forged.path[level], bit);
            prop_assert!(verify_chunk(&id, len, chunk, &forged).is_err());
        }
        let last = chunk_count(len) - 1;
        let (end, other) = (shard.prove(last), len ^ (1 << (bit % 40)));
        prop_assert!(verify_chunk(&id, other, last, &end).is_err());
    }

    #[test]
    fn an_entry_is_accepted_as_it_is_and_refused_with_any_bit_changed(
        count in 1_usize..200, position: u64, seed: u64, bit: u64,
    ) {
        let entry = |n: usize| ShardEntry {
            id: ShardId::of(&[seed.to_le_bytes(), n.to_le_bytes()].concat()),
            shard_len: seed.rotate_left(u32::try_from(n % 64).expect("below 64")),
        };
        let entries: Vec<_> = (0..count).map(entry).collect();
        let mut hasher = ShardsRootHasher::new();
        entries.iter().for_each(|entry| hasher.push(entry.id, entry.shard_len));
        let (root, slots) = (hasher.finish(), count as u64);
        let position = position % slots;
        let entry = entries[index(position)];
        let proof = prove_entry(&entries, index(position)).expect("it exists");
        prop_assert_eq!(verify_entry(&root, slots, position, &entry, &proof), Ok(()));

        let mut other_root = root;
        flip(&mut other_root, bit);
        prop_assert!(verify_entry(&other_root, slots, position, &entry, &proof).is_err());
        let moved = position ^ (1 << (bit % 64));
        prop_assert!(verify_entry(&root, slots, moved, &entry, &proof).is_err());
        let renamed = ShardEntry { id: flip_id(entry.id, bit), ..entry };
        prop_assert!(verify_entry(&root, slots, position, &renamed, &proof).is_err());
        let resized = ShardEntry { shard_len: entry.shard_len ^ (1 << (bit % 64)), ..entry };
        prop_assert!(verify_entry(&root, slots, position, &resized, &proof).is_err());
        if let Some(last) = proof.neighbours.len().checked_sub(1) {
            let mut forged = proof.clone();
            let neighbour = &mut forged.neighbours[index(bit % (last as u64 + 1))];
            neighbour.id = flip_id(neighbour.id, bit);
            prop_assert!(verify_entry(&root, slots, position, &entry, &forged).is_err());
        }
    }
}
