// SPDX-License-Identifier: MIT OR Apache-2.0
//! How large is a proof beside the chunks it shows, and what does judging it cost a chain beside
//! hashing its bytes?
//!
//! The baseline hash runs wide over the whole encoding, as BLAKE3 likes best. A verifier cannot:
//! it hashes single chunks and climbs from each, one parent after another.

use std::hint::black_box;

use serde_json::json;
use supernode_benches::{Figure, Scale, interleaved, median, seeded, timed};
use supernode_protocol::audit::{AuditProof, Question, drawn_chunks, verify};
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::{
    CHUNK_BYTES, GROUP_BYTES, ShardEntry, ShardsRootHasher, TreeHasher, chunk_count, prove_chunk,
    prove_entry,
};

/// A shard of a full stripe at 10+4.
const SHARD_BYTES: usize = 6_713_344;
const WIDTH: usize = 14;
const CHUNKS: u8 = 8;
const BYTES_QUESTION: &str = "bytes of an encoded proof of 8 chunks against those of its chunks, \
                              10+4, 64 MiB stripes; ours is the object of 32768 stripes (2 TiB)";
const RATE_QUESTION: &str = "proofs decoded and verified per second as the pallet does it, one \
                             core, against hashing the same bytes whole with BLAKE3";

/// A shard in memory, and an object of many stripes that has it in the middle.
struct Prover {
    bytes: Vec<u8>,
    outboard: Vec<u8>,
    entries: Vec<ShardEntry>,
    slot: usize,
    shards_root: [u8; 32],
}

impl Prover {
    fn new(stripe_count: usize) -> Self {
        let bytes = seeded(SHARD_BYTES);
        let mut hasher = TreeHasher::new(SHARD_BYTES as u64);
        hasher.update(&bytes);
        let (id, outboard) = hasher.finish().expect("the announced length");
        let slot = stripe_count / 2 * WIDTH + 3;
        let shard_len = SHARD_BYTES as u64;
        let entry = |number: usize| {
            let other = || ShardId::of(&number.to_le_bytes());
            ShardEntry { id: if number == slot { id } else { other() }, shard_len }
        };
        let entries: Vec<_> = (0..stripe_count * WIDTH).map(entry).collect();
        let mut root = ShardsRootHasher::new();
        entries.iter().for_each(|entry| root.push(entry.id, entry.shard_len));
        Self { bytes, outboard, entries, slot, shards_root: root.finish() }
    }

    fn question(&self, seed: u8) -> Question {
        Question {
            shards_root: self.shards_root,
            slot_count: self.entries.len() as u64,
            slot: self.slot as u64,
            seed: [seed; 32],
            chunk_count: CHUNKS,
        }
    }

    fn answer(&self, question: &Question) -> AuditProof {
        let len = SHARD_BYTES as u64;
        let show = |chunk: u64| {
            let chunks_per_group = (GROUP_BYTES / CHUNK_BYTES) as u64;
            let group = usize::try_from(chunk / chunks_per_group).expect("within the shard");
            let start = group * GROUP_BYTES;
            let group = &self.bytes[start..SHARD_BYTES.min(start + GROUP_BYTES)];
            prove_chunk(group, &self.outboard, len, chunk).expect("it exists")
        };
        let chunks = drawn_chunks(&question.seed, chunk_count(len), CHUNKS).map(show).collect();
        let place = prove_entry(&self.entries, self.slot).expect("it exists");
        AuditProof { entry: self.entries[self.slot], place, chunks }
    }
}

/// `chain.proof.bytes`.
pub fn bytes(_: Scale) -> Figure {
    let sizes: Vec<(usize, usize)> = [1, 64, 32_768]
        .into_iter()
        .map(|stripe_count| {
            let prover = Prover::new(stripe_count);
            let question = prover.question(1);
            let proof = prover.answer(&question);
            verify(&question, &proof).expect("an honest proof");
            (stripe_count, proof.encode().len())
        })
        .collect();
    let (_, largest) = sizes[sizes.len() - 1];
    let chunks = usize::from(CHUNKS) * CHUNK_BYTES;
    let raw = json!({ "stripes_and_bytes": sizes, "chunk_bytes": chunks });
    let both = (largest as f64, chunks as f64);
    Figure::new(("chain.proof.bytes", BYTES_QUESTION), both, "bytes", raw)
}

/// `chain.verify`.
pub fn rate(scale: Scale) -> Figure {
    let (rounds, repeats) = scale.pick((40, 20), (2, 1));
    let prover = Prover::new(64);
    let cases: Vec<(Question, Vec<u8>)> = (0..64)
        .map(|seed| {
            let question = prover.question(seed);
            let bytes = prover.answer(&question).encode();
            (question, bytes)
        })
        .collect();
    let per_second = |work: &dyn Fn(&Question, &[u8])| {
        let (took, ()) = timed(|| {
            for _ in 0..repeats {
                cases.iter().for_each(|(question, bytes)| work(question, bytes));
            }
        });
        f64::from(repeats) * cases.len() as f64 / took.as_secs_f64()
    };
    let judge = |question: &Question, bytes: &[u8]| {
        let proof = AuditProof::decode(black_box(bytes)).expect("an honest proof");
        verify(question, &proof).expect("an honest proof");
    };
    let hash = |_: &Question, bytes: &[u8]| {
        black_box(blake3::hash(black_box(bytes)));
    };
    let (ours, against) = interleaved(rounds, |_| per_second(&judge), |_| per_second(&hash));
    let raw = json!({
        "proofs": cases.len(), "bytes": cases[0].1.len(), "chunks": CHUNKS, "stripes": 64,
        "ours_rounds": ours, "against_rounds": against,
    });
    let both = (median(&ours), median(&against));
    Figure::new(("chain.verify", RATE_QUESTION), both, "proofs/s", raw)
}
