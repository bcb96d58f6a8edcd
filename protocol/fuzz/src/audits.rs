// SPDX-License-Identifier: MIT OR Apache-2.0
//! Audit proofs: of all answers exactly the honest one is taken.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use supernode_protocol::audit::{AuditProof, Question, drawn_chunks, verify};
use supernode_protocol::ids::ShardId;
use supernode_protocol::limits::CHUNKS_PER_AUDIT_MAX;
use supernode_protocol::tree::{
    GROUP_BYTES, ShardEntry, ShardsRootHasher, chunk_count, prove_chunk, prove_entry,
};
use supernode_protocol::wire::decode_frame;

use crate::{Flip, Shard};

/// Slot, length of its shard, chunks asked for.
const AUDITS: [(usize, usize, u8); 6] = [
    (0, 64, 1),
    (3, 1025, 4),
    (16, 16_384, 2),
    (17, 16_385, 4),
    (27, 100_000, CHUNKS_PER_AUDIT_MAX),
    (19, 262_145, 8),
];
const SLOTS: usize = 28;

struct Asked {
    question: Question,
    honest: AuditProof,
    encoded: Vec<u8>,
}

static MADE: LazyLock<Vec<Asked>> = LazyLock::new(|| AUDITS.map(Asked::of).into());

impl Asked {
    fn of((slot, len, count): (usize, usize, u8)) -> Self {
        let shard = Shard::of(len);
        let entries: Vec<ShardEntry> = (0..SLOTS)
            .map(|at| ShardEntry { id: ShardId::of(&at.to_le_bytes()), shard_len: 64 })
            .enumerate()
            .map(|(at, other)| match at == slot {
                true => ShardEntry { id: shard.id, shard_len: shard.len() },
                false => other,
            })
            .collect();
        let mut root = ShardsRootHasher::new();
        entries.iter().for_each(|entry| root.push(entry.id, entry.shard_len));
        let seed = [count; 32];
        let question = Question {
            shards_root: root.finish(),
            slot_count: SLOTS as u64,
            slot: slot as u64,
            seed,
            chunk_count: count,
        };
        let chunks = drawn_chunks(&seed, chunk_count(shard.len()), count).map(|chunk| {
            let start = usize::try_from(chunk / 16).expect("small") * GROUP_BYTES;
            let group = &shard.bytes[start..len.min(start + GROUP_BYTES)];
            prove_chunk(group, &shard.outboard, shard.len(), chunk).expect("a chunk of the shard")
        });
        let honest = AuditProof {
            entry: entries[slot],
            place: prove_entry(&entries, slot).expect("a slot of the object"),
            chunks: chunks.collect(),
        };
        Self { question, encoded: honest.encode(), honest }
    }
}

/// What the target's bytes are an encoding of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Case {
    /// An honest answer with at most one byte turned.
    Changed {
        /// Which of the six audits.
        audit: u8,
        /// Turned in the proof's encoding.
        flip: Flip,
    },
    /// Everything is made up.
    Foreign {
        /// The root.
        shards_root: [u8; 32],
        /// Slots of the object.
        slot_count: u64,
        /// The slot asked for.
        slot: u64,
        /// Chunks asked for.
        chunk_count: u8,
        /// The proof's encoding.
        proof: Vec<u8>,
    },
}

/// Runs a case.
pub fn judge(bytes: &[u8]) -> bool {
    match decode_frame::<Case>(bytes) {
        Ok(Case::Changed { audit, flip }) => {
            let Asked { question, honest, encoded } = &MADE[usize::from(audit) % AUDITS.len()];
            let mut changed = encoded.clone();
            flip.apply(&mut changed);
            let Ok(proof) = AuditProof::decode(&changed) else { return true };
            let verdict = verify(question, &proof);
            assert_eq!(verdict.is_ok(), proof == *honest, "{verdict:?}");
            true
        }
        Ok(Case::Foreign { shards_root, slot_count, slot, chunk_count, proof }) => {
            let Ok(proof) = AuditProof::decode(&proof) else { return false };
            let seed = [7; 32];
            let question = Question { shards_root, slot_count, slot, seed, chunk_count };
            let _ = verify(&question, &proof);
            true
        }
        Err(_) => false,
    }
}
