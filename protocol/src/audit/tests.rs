// SPDX-License-Identifier: MIT OR Apache-2.0
//! Unit tests of the draw, the bounds and the encoding. Forgeries are tried in
//! `tests/audit_forgeries.rs`.

use super::{AuditError, AuditProof, Question, drawn_chunks, verify};
use crate::ids::ShardId;
use crate::limits::{AUDIT_PROOF_BYTES_MAX, CHUNKS_PER_AUDIT_MAX, SHARD_BYTES_MAX};
use crate::tree::{
    ChunkProof, EntryProof, ShardEntry, ShardsRootHasher, TreeHasher, chunk_count, prove_chunk,
    prove_entry,
};

fn shard(len: usize) -> (Vec<u8>, ShardEntry, Vec<u8>) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(b"audit").finalize_xof().fill(&mut bytes);
    let mut hasher = TreeHasher::new(len as u64);
    hasher.update(&bytes);
    let (id, outboard) = hasher.finish().expect("the announced length");
    (bytes, ShardEntry { id, shard_len: len as u64 }, outboard)
}

/// A question about slot 17 of 20 and the honest answer.
fn honest(len: usize, count: u8) -> (Question, AuditProof) {
    let (bytes, entry, outboard) = shard(len);
    let other = |n: u8| ShardEntry { id: ShardId::of(&[n]), shard_len: 64 };
    let entries: Vec<_> = (0..20).map(|n| if n == 17 { entry } else { other(n) }).collect();
    let mut root = ShardsRootHasher::new();
    entries.iter().for_each(|entry| root.push(entry.id, entry.shard_len));
    let seed = [9; 32];
    let question =
        Question { shards_root: root.finish(), slot_count: 20, slot: 17, seed, chunk_count: count };
    let chunks = drawn_chunks(&seed, chunk_count(len as u64), count)
        .map(|chunk| {
            let start = usize::try_from(chunk / 16 * 16_384).expect("small");
            let group = &bytes[start..(start + 16_384).min(len)];
            prove_chunk(group, &outboard, len as u64, chunk).expect("it exists")
        })
        .collect();
    let place = prove_entry(&entries, 17).expect("it exists");
    (question, AuditProof { entry, place, chunks })
}

#[test]
fn honest_answers_hold_for_every_shape() {
    for len in [64, 1024, 1025, 16_384, 16_385, 100_000, 1 << 20] {
        for count in [1, 4, CHUNKS_PER_AUDIT_MAX] {
            let (question, proof) = honest(len, count);
            let decoded = AuditProof::decode(&proof.encode()).expect("own output decodes");
            assert_eq!(decoded, proof);
            assert_eq!(verify(&question, &decoded), Ok(()), "{len} bytes, {count} chunks");
        }
    }
}

#[test]
fn chunks_are_drawn_evenly_over_the_whole_shard() {
    let (chunks, draws_per_seed) = (97, 32);
    let mut seen = vec![0_u32; 97];
    for seed in 0..3_000_u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&seed.to_le_bytes());
        for chunk in drawn_chunks(&key, chunks, draws_per_seed) {
            seen[usize::try_from(chunk).expect("below 97")] += 1;
        }
    }
    // 96,000 draws over 97 chunks: 990 each, with a deviation of about 31.
    let (least, most) = (seen.iter().min().copied(), seen.iter().max().copied());
    assert!(least > Some(990 - 190) && most < Some(990 + 190), "{least:?} to {most:?}");
}

#[test]
fn draws_depend_on_the_seed_and_extend_each_other() {
    let draw = |seed: u8, count| drawn_chunks(&[seed; 32], 1 << 16, count).collect::<Vec<_>>();
    assert_ne!(draw(1, 8), draw(2, 8));
    assert_eq!(draw(1, 4), draw(1, 8)[..4]);
    assert!(drawn_chunks(&[1; 32], 1, 32).all(|chunk| chunk == 0));
}

#[test]
fn the_largest_honest_proof_is_within_the_limit() {
    let chunk = ChunkProof { chunk: vec![255; 1024], path: vec![[255; 32]; 16] };
    let entry = ShardEntry { id: ShardId::from_bytes([255; 32]), shard_len: SHARD_BYTES_MAX };
    let proof = AuditProof {
        entry,
        place: EntryProof { neighbours: vec![entry; 15], path: vec![[255; 32]; 36] },
        chunks: vec![chunk; usize::from(CHUNKS_PER_AUDIT_MAX)],
    };
    assert!(proof.encode().len() <= AUDIT_PROOF_BYTES_MAX, "{}", proof.encode().len());
}

#[test]
fn counts_are_exact_and_never_zero() {
    let (mut question, mut proof) = honest(100_000, 4);
    question.chunk_count = 0;
    assert!(matches!(verify(&question, &proof), Err(AuditError::Question { count: 0, .. })));
    let chunks = core::mem::take(&mut proof.chunks);
    assert!(matches!(verify(&question, &proof), Err(AuditError::Question { count: 0, .. })));
    proof.chunks = chunks;
    question.chunk_count = CHUNKS_PER_AUDIT_MAX + 1;
    assert!(matches!(verify(&question, &proof), Err(AuditError::Question { .. })));
    question.chunk_count = 3;
    assert_eq!(verify(&question, &proof), Err(AuditError::ChunkCount { have: 4, need: 3 }));
    question.chunk_count = 5;
    assert_eq!(verify(&question, &proof), Err(AuditError::ChunkCount { have: 4, need: 5 }));
}

#[test]
fn a_length_that_no_shard_has_is_refused_even_if_proven() {
    let entry = ShardEntry { id: ShardId::of(b""), shard_len: SHARD_BYTES_MAX + 1 };
    let mut root = ShardsRootHasher::new();
    root.push(entry.id, entry.shard_len);
    let (shards_root, seed) = (root.finish(), [0; 32]);
    let question = Question { shards_root, slot_count: 1, slot: 0, seed, chunk_count: 1 };
    let place = EntryProof { neighbours: Vec::new(), path: Vec::new() };
    let chunks = vec![ChunkProof { chunk: Vec::new(), path: Vec::new() }];
    let error = verify(&question, &AuditProof { entry, place, chunks });
    assert!(matches!(error, Err(AuditError::ShardLen { .. })), "{error:?}");
}

#[test]
fn decoding_refuses_trailing_short_and_long_bytes() {
    let (_, proof) = honest(100_000, 4);
    let bytes = proof.encode();
    for cut in 0..bytes.len() {
        assert_eq!(AuditProof::decode(&bytes[..cut]), Err(AuditError::Malformed), "{cut}");
    }
    let trailing = [&bytes[..], &[0]].concat();
    assert_eq!(AuditProof::decode(&trailing), Err(AuditError::Malformed));
    let long = vec![0; AUDIT_PROOF_BYTES_MAX + 1];
    assert!(matches!(AuditProof::decode(&long), Err(AuditError::TooLong { .. })));
}

#[test]
fn damage_is_noticed_as_often_as_the_documentation_says() {
    // A tenth of the chunks is damaged: the first 10 of 100.
    let seeds: u16 = 4_000;
    let noticed = |count| {
        let hits = (0..seeds).filter(|seed| {
            let mut key = [7; 32];
            key[..2].copy_from_slice(&seed.to_le_bytes());
            drawn_chunks(&key, 100, count).any(|chunk| chunk < 10)
        });
        hits.count() as f64 / f64::from(seeds)
    };
    for (count, expected) in [(4, 0.344), (8, 0.570), (32, 0.966)] {
        let share: f64 = noticed(count);
        assert!((share - expected).abs() < 0.04, "{count} chunks: {share}");
    }
}
