// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hundred thousand forged audit proofs, none of which may be accepted.
//!
//! Every attempt begins with a case whose honest proof is first seen to hold, so that a verifier
//! which refuses everything fails too. Then one class of forgery is applied, by a prover who has
//! all the bytes of the object and of another one: what is forged here cannot be forged by lack
//! of material. The seed of a failing attempt is printed; `FORGERY_SEED` replays from it.

use std::env;

use rand::Rng;
use rand::SeedableRng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use supernode_protocol::audit::{AuditError, AuditProof, Question, drawn_chunks, verify};
use supernode_protocol::tree::{
    CHUNK_BYTES, ChunkProof, ShardEntry, ShardsRootHasher, TreeHasher, chunk_count, prove_chunk,
    prove_entry,
};

const ATTEMPTS: u64 = 100_000;
const SEED: u64 = 0x5eed_a0d1;

struct Shard {
    bytes: Vec<u8>,
    outboard: Vec<u8>,
}

impl Shard {
    fn of(bytes: Vec<u8>) -> (Self, ShardEntry) {
        let shard_len = bytes.len() as u64;
        let mut hasher = TreeHasher::new(shard_len);
        hasher.update(&bytes);
        let (id, outboard) = hasher.finish().expect("the announced length");
        (Self { bytes, outboard }, ShardEntry { id, shard_len })
    }

    fn show(&self, chunk: u64) -> ChunkProof {
        let start = usize::try_from(chunk / 16 * 16_384).expect("small");
        let end = self.bytes.len().min(start + 16_384);
        let len = self.bytes.len() as u64;
        prove_chunk(&self.bytes[start..end], &self.outboard, len, chunk).expect("it exists")
    }
}

/// An object in memory, with everything a prover could want.
struct Object {
    shards: Vec<Shard>,
    entries: Vec<ShardEntry>,
    root: [u8; 32],
}

impl Object {
    fn new(rng: &mut ChaCha8Rng, lens: &[usize]) -> Self {
        let mut shards = Vec::new();
        let mut entries = Vec::new();
        let mut root = ShardsRootHasher::new();
        for len in lens {
            let mut bytes = vec![0; *len];
            rng.fill(&mut bytes[..]);
            let (shard, entry) = Shard::of(bytes);
            root.push(entry.id, entry.shard_len);
            shards.push(shard);
            entries.push(entry);
        }
        Self { shards, entries, root: root.finish() }
    }

    fn question(&self, slot: usize, seed: [u8; 32], chunk_count: u8) -> Question {
        let slot_count = self.entries.len() as u64;
        Question { shards_root: self.root, slot_count, slot: slot as u64, seed, chunk_count }
    }

    fn answer(&self, question: &Question) -> AuditProof {
        let slot = usize::try_from(question.slot).expect("small");
        let entry = self.entries[slot];
        let drawn =
            drawn_chunks(&question.seed, chunk_count(entry.shard_len), question.chunk_count);
        let chunks = drawn.map(|chunk| self.shards[slot].show(chunk)).collect();
        AuditProof { entry, place: prove_entry(&self.entries, slot).expect("it exists"), chunks }
    }
}

/// All that an attempt may draw from.
struct Case<'a> {
    object: &'a Object,
    other: &'a Object,
    question: Question,
    honest: AuditProof,
}

/// A forger turns the honest proof into another one; `None` where the case has no such forgery.
type Forger = fn(&mut ChaCha8Rng, &Case<'_>) -> Option<Vec<u8>>;

const FORGERS: [(&str, Forger); 11] = [
    ("an inner node as a leaf", inner_node_as_leaf),
    ("an inner node as a chunk of a shorter shard", inner_node_of_a_shorter_shard),
    ("a path that is too short", short_path),
    ("a path that is too long", long_path),
    ("siblings of another shard", siblings_of_another_shard),
    ("a truncated length", truncated_length),
    ("the answer to an older audit", older_audit),
    ("the right bytes of another slot", another_slot),
    ("another object's proof", another_object),
    ("chunks in another order, or left out", shuffled_chunks),
    ("flipped bits", flipped_bits),
];

fn pick(rng: &mut ChaCha8Rng, count: usize) -> usize {
    rng.random_range(0..count)
}

/// The 64 bytes of a stored parent where a chunk is asked for, padded or alone, with the path cut
/// at its level: what a prover who keeps only the outboard would send.
fn inner_node_as_leaf(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let slot = usize::try_from(case.question.slot).expect("small");
    let outboard = &case.object.shards[slot].outboard;
    let parents: Vec<_> = outboard.chunks(64).collect();
    let parent = parents.choose(rng)?;
    let mut proof = case.honest.clone();
    let at = pick(rng, proof.chunks.len());
    let chunk = &mut proof.chunks[at];
    let padded = rng.random_bool(0.5);
    chunk.chunk = parent.to_vec();
    if padded {
        chunk.chunk.resize(CHUNK_BYTES, 0);
    }
    let keep = pick(rng, chunk.path.len() + 1);
    chunk.path.truncate(keep);
    Some(proof.encode())
}

/// The same, under an entry that says the shard is as short as the bytes at hand.
fn inner_node_of_a_shorter_shard(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let slot = usize::try_from(case.question.slot).expect("small");
    let root = case.object.shards[slot].outboard.get(..64)?;
    let mut proof = case.honest.clone();
    proof.entry.shard_len = if rng.random_bool(0.5) { 64 } else { 128 };
    for chunk in &mut proof.chunks {
        *chunk = ChunkProof { chunk: root.to_vec(), path: Vec::new() };
    }
    Some(proof.encode())
}

fn short_path(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let mut proof = case.honest.clone();
    let at = pick(rng, proof.chunks.len());
    let in_entry = rng.random_bool(0.3);
    let path = if in_entry { &mut proof.place.path } else { &mut proof.chunks[at].path };
    if path.is_empty() {
        return None;
    }
    let gone = pick(rng, path.len());
    if rng.random_bool(0.5) {
        path.remove(gone);
    } else {
        path.truncate(gone);
    }
    Some(proof.encode())
}

fn long_path(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let mut proof = case.honest.clone();
    let at = pick(rng, proof.chunks.len());
    let in_entry = rng.random_bool(0.3);
    let path = if in_entry { &mut proof.place.path } else { &mut proof.chunks[at].path };
    let place = pick(rng, path.len() + 1);
    let extra = match path.first() {
        Some(known) if rng.random_bool(0.5) => *known,
        _ => rng.random(),
    };
    path.insert(place, extra);
    Some(proof.encode())
}

fn siblings_of_another_shard(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let slot = usize::try_from(case.question.slot).expect("small");
    let from = pick(rng, case.object.shards.len());
    let same_shape = case.object.entries[from].shard_len == case.honest.entry.shard_len;
    if from == slot || !same_shape {
        return None;
    }
    let mut proof = case.honest.clone();
    let count = proof.chunks.len();
    let drawn = drawn_chunks(
        &case.question.seed,
        chunk_count(proof.entry.shard_len),
        case.question.chunk_count,
    );
    let at = pick(rng, count);
    let chunk = drawn.into_iter().nth(at).expect("one of the drawn");
    let theirs = case.object.shards[from].show(chunk).path;
    let ours = &mut proof.chunks[at].path;
    if ours.is_empty() {
        return None;
    }
    let first = pick(rng, ours.len());
    ours[first..].copy_from_slice(&theirs[first..]);
    Some(proof.encode())
}

/// Claims a shorter shard, whose few chunks are then proven.
fn truncated_length(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let slot = usize::try_from(case.question.slot).expect("small");
    let len = case.honest.entry.shard_len;
    let shorter = rng.random_range(0..len);
    let mut proof = case.honest.clone();
    proof.entry.shard_len = shorter;
    if rng.random_bool(0.5) {
        // A consistent lie: the entry of the shard that ends there, and its chunks.
        let cut = usize::try_from(shorter).expect("small");
        let (shard, entry) = Shard::of(case.object.shards[slot].bytes[..cut].to_vec());
        proof.entry = entry;
        let drawn =
            drawn_chunks(&case.question.seed, chunk_count(shorter), case.question.chunk_count);
        proof.chunks = drawn.map(|chunk| shard.show(chunk)).collect();
    }
    Some(proof.encode())
}

fn older_audit(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let older = Question { seed: rng.random(), ..case.question };
    Some(case.object.answer(&older).encode())
}

/// Another slot's honest proof, whole or with the entry, the place or the chunks of this one.
fn another_slot(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let slot = pick(rng, case.object.shards.len()) as u64;
    if slot == case.question.slot {
        return None;
    }
    let mut proof = case.object.answer(&Question { slot, ..case.question });
    match pick(rng, 3) {
        0 => {}
        1 => {
            proof.entry = case.honest.entry;
            proof.place = case.honest.place.clone();
        }
        _ => proof.place = case.honest.place.clone(),
    }
    Some(proof.encode())
}

fn another_object(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let slot_count = case.other.entries.len() as u64;
    let slot = case.question.slot.min(slot_count - 1);
    let question = Question { shards_root: case.other.root, slot_count, slot, ..case.question };
    let mut proof = case.other.answer(&question);
    if rng.random_bool(0.5) {
        proof.place = case.honest.place.clone();
    }
    Some(proof.encode())
}

fn shuffled_chunks(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let mut proof = case.honest.clone();
    let count = proof.chunks.len();
    let (one, two) = (pick(rng, count), pick(rng, count));
    match pick(rng, 4) {
        0 => proof.chunks.swap(one, two),
        1 => proof.chunks[one] = proof.chunks[two].clone(),
        2 => drop(proof.chunks.remove(one)),
        _ => proof.chunks.push(proof.chunks[one].clone()),
    }
    Some(proof.encode())
}

fn flipped_bits(rng: &mut ChaCha8Rng, case: &Case<'_>) -> Option<Vec<u8>> {
    let mut bytes = case.honest.encode();
    for _ in 0..rng.random_range(1..=3) {
        let at = pick(rng, bytes.len());
        bytes[at] ^= 1 << pick(rng, 8);
    }
    Some(bytes)
}

fn objects(rng: &mut ChaCha8Rng) -> Vec<Object> {
    // One slot, one chunk of entries, several; shards of one chunk, one group, several; and
    // slots of different lengths in one object.
    let shapes: [&[usize]; 5] = [
        &[4096],
        &[64; 14],
        &[40_960; 14],
        &[1024, 1025, 16_384, 16_385, 70_000, 64, 2048, 100_032],
        &[20_480; 42],
    ];
    shapes.into_iter().map(|lens| Object::new(rng, lens)).collect()
}

#[test]
fn a_hundred_thousand_forgeries_are_refused() {
    let seed = env::var("FORGERY_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED);
    let objects = objects(&mut ChaCha8Rng::seed_from_u64(seed));
    let mut tried = [0_u64; FORGERS.len()];
    let mut attempt = 0;
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 1);
    while attempt < ATTEMPTS {
        let object = objects.choose(&mut rng).expect("some objects");
        let other = objects.choose(&mut rng).expect("some objects");
        let slot = pick(&mut rng, object.shards.len());
        let question = object.question(slot, rng.random(), rng.random_range(1..=4));
        let honest = object.answer(&question);
        assert_eq!(verify(&question, &honest), Ok(()), "seed {seed}, attempt {attempt}");
        let case = Case { object, other, question, honest };
        for (class, (name, forge)) in FORGERS.iter().enumerate() {
            let Some(forged) = forge(&mut rng, &case) else { continue };
            // Some draws give the honest answer again: one chunk twice, equal bytes elsewhere.
            if AuditProof::decode(&forged).is_ok_and(|proof| proof == case.honest) {
                continue;
            }
            let judged = AuditProof::decode(&forged).and_then(|it| verify(&case.question, &it));
            assert!(judged.is_err(), "seed {seed}, attempt {attempt}: {name} was accepted");
            tried[class] += 1;
            attempt += 1;
        }
    }
    for (count, (name, _)) in tried.iter().zip(FORGERS) {
        println!("{count:>7} {name}");
        assert!(*count > 1_000, "{name} was tried {count} times only");
    }
}

#[test]
fn a_prover_who_keeps_only_inner_nodes_fails() {
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let object = Object::new(&mut rng, &[1 << 20; 14]);
    let outboards: usize = object.shards.iter().map(|shard| shard.outboard.len()).sum();
    assert!(outboards > 14 * 4_000, "it keeps all {outboards} bytes of inner nodes");
    for round in 0..200 {
        let question = object.question(pick(&mut rng, 14), rng.random(), 4);
        let honest = object.answer(&question);
        assert_eq!(verify(&question, &honest), Ok(()));
        let slot = usize::try_from(question.slot).expect("small");
        let parents: Vec<_> = object.shards[slot].outboard.chunks(64).collect();
        // Every path above the groups is at hand; what is not are the bytes, and the nodes
        // inside a group. All that can be put in their place is tried.
        let mut proof = honest.clone();
        for chunk in &mut proof.chunks {
            let parent = parents.choose(&mut rng).expect("64 groups");
            chunk.chunk = match round % 3 {
                0 => parent.to_vec(),
                1 => parent.repeat(CHUNK_BYTES / 64),
                _ => vec![0; CHUNK_BYTES],
            };
            // With the whole path for free the chunk alone must already give it away.
            if round % 2 == 0 {
                chunk.path.truncate(6);
            }
        }
        let error = verify(&question, &proof).expect_err("no bytes, no proof");
        assert!(matches!(error, AuditError::Chunk { draw: 0, .. }), "{error}");
    }
}
