// SPDX-License-Identifier: MIT OR Apache-2.0
//! Audits: what a chain asks of a holder, and how it judges the answer.
//!
//! A [`Question`] names one slot of an object and a seed. The seed draws chunks over the **whole**
//! shard; an [`AuditProof`] shows those chunks, proves each to the shard's id, and proves the id
//! to the `shards_root` that the chain keeps. Nothing the prover says is believed: the path to the
//! entry has the length that the slot count dictates, the paths to the chunks the length that the
//! *proven* `shard_len` dictates, and BLAKE3 separates chunks from inner nodes and the root from
//! the rest.
//!
//! # What an audit notices
//!
//! An audit of `c` chunks notices damage to a fraction `p` of a shard's chunks with probability
//! `1 - (1 - p)^c`; `r` audits with independent seeds with `1 - (1 - p)^(c * r)`. Chunks are drawn
//! with repetition, which is what makes this exact.
//!
//! | damaged fraction | 4 chunks | 8 chunks | 32 chunks | 10 audits of 32 |
//! |---|---|---|---|---|
//! | everything | 1 | 1 | 1 | 1 |
//! | a half | 0.938 | 0.996 | 1 - 2e-10 | 1 - 5e-97 |
//! | a tenth | 0.344 | 0.570 | 0.966 | 1 - 2e-15 |
//! | a hundredth | 0.039 | 0.077 | 0.275 | 0.960 |
//! | a thousandth | 0.004 | 0.008 | 0.032 | 0.274 |
//!
//! Small damage is the business of the node's own scrub; what an audit finds soon is a node that
//! keeps too little to be paid for.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::limits::{AUDIT_PROOF_BYTES_MAX, CHUNKS_PER_AUDIT_MAX, SHARD_BYTES_MAX};
use crate::tree::{
    ChunkProof, EntryProof, ProofError, ShardEntry, chunk_count, verify_chunk, verify_entry,
};

/// Separates the draw of chunks from every other use of a seed.
const DRAW_DOMAIN: &[u8] = b"supernode/audit-chunks/1";

/// One audit, as the chain knows it. All of it comes from the chain's own storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The root over the object's shards.
    pub shards_root: [u8; 32],
    /// Slots of the object: stripes times width.
    pub slot_count: u64,
    /// The slot asked for: stripe times width plus index.
    pub slot: u64,
    /// What the chunks are drawn from. Fresh for each audit: that is what makes replays useless.
    pub seed: [u8; 32],
    /// Chunks to show, 1 to [`CHUNKS_PER_AUDIT_MAX`].
    pub chunk_count: u8,
}

/// The chunks that `seed` draws from a shard of `chunks_in_shard` chunks, in the order in which a
/// proof shows them. The same chunk may come more than once.
///
/// Draw `n` is the `n`-th little-endian u64 of BLAKE3's extended output, keyed by the seed, over
/// the bytes `supernode/audit-chunks/1`, multiplied by the count and cut to its upper 64 bits. The
/// odds of two chunks differ by less than 2^-40 of themselves for every shard up to 2^24 chunks.
pub fn drawn_chunks(
    seed: &[u8; 32],
    chunks_in_shard: u64,
    count: u8,
) -> impl Iterator<Item = u64> + use<> {
    let mut output = blake3::Hasher::new_keyed(seed).update(DRAW_DOMAIN).finalize_xof();
    (0..count).map(move |_| {
        let mut word = [0; 8];
        output.fill(&mut word);
        let product = u128::from(u64::from_le_bytes(word)) * u128::from(chunks_in_shard);
        u64::try_from(product >> 64).expect("the upper half of 128 bits")
    })
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditProof {
    /// What the object's list of shards says of the slot.
    pub entry: ShardEntry,
    /// The entry's way to `shards_root`.
    pub place: EntryProof,
    /// The drawn chunks, in order, each with its way to the entry's shard id.
    pub chunks: Vec<ChunkProof>,
}

/// Why an audit proof was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// More bytes than any honest proof has.
    #[error("the proof has {have} bytes, at most {max} make sense: send what was asked for")]
    TooLong {
        /// Bytes that came.
        have: usize,
        /// [`AUDIT_PROOF_BYTES_MAX`].
        max: usize,
    },
    /// Bytes that are no encoding of a proof, or that go on behind one.
    #[error("these bytes are no audit proof: encode it with this version's protocol")]
    Malformed,
    /// A question that asks for no chunk, or for too many to answer.
    #[error("the audit asks for {count} chunks, 1 to {max} can be asked for: correct the chain")]
    Question {
        /// Chunks asked for.
        count: u8,
        /// [`CHUNKS_PER_AUDIT_MAX`].
        max: u8,
    },
    /// More or fewer chunks than were asked for.
    #[error("the proof shows {have} chunks where {need} were asked for: show each, in order")]
    ChunkCount {
        /// Chunks in the proof.
        have: usize,
        /// Chunks asked for.
        need: u8,
    },
    /// An entry that is not the one of this slot.
    #[error("the entry does not lead to the object's shards_root: prove the slot asked for")]
    Entry(#[source] ProofError),
    /// An entry that names a length no shard can have.
    #[error("the slot's shard has {len} bytes, at most {max} are possible: the deal is broken")]
    ShardLen {
        /// The proven length.
        len: u64,
        /// [`SHARD_BYTES_MAX`].
        max: u64,
    },
    /// A chunk that does not lead to the slot's shard.
    #[error("draw {draw}, chunk {chunk}, does not lead to the shard id: show the stored bytes")]
    Chunk {
        /// Which of the drawn chunks, from 0.
        draw: usize,
        /// Its place in the shard.
        chunk: u64,
        /// What is wrong with it.
        #[source]
        source: ProofError,
    },
}

impl AuditProof {
    /// The canonical encoding, as sent to the chain.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("a proof in memory has an encoding")
    }

    /// Decodes one proof; says nothing about whether it holds. Trailing bytes are an error.
    ///
    /// # Errors
    /// [`AuditError::TooLong`], [`AuditError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, AuditError> {
        let (have, max) = (bytes.len(), AUDIT_PROOF_BYTES_MAX);
        if have > max {
            return Err(AuditError::TooLong { have, max });
        }
        match postcard::take_from_bytes(bytes) {
            Ok((proof, [])) => Ok(proof),
            Ok(_) | Err(_) => Err(AuditError::Malformed),
        }
    }
}

/// Judges an answer. Allocates nothing; its work is bounded by the proof's bytes.
///
/// # Errors
/// An [`AuditError`] for anything but the one right answer.
pub fn verify(question: &Question, proof: &AuditProof) -> Result<(), AuditError> {
    let (count, max) = (question.chunk_count, CHUNKS_PER_AUDIT_MAX);
    if !(1..=max).contains(&count) {
        return Err(AuditError::Question { count, max });
    }
    if proof.chunks.len() != usize::from(count) {
        return Err(AuditError::ChunkCount { have: proof.chunks.len(), need: count });
    }
    let Question { shards_root, slot_count, slot, seed, .. } = question;
    let entry = &proof.entry;
    verify_entry(shards_root, *slot_count, *slot, entry, &proof.place)
        .map_err(AuditError::Entry)?;
    if entry.shard_len > SHARD_BYTES_MAX {
        return Err(AuditError::ShardLen { len: entry.shard_len, max: SHARD_BYTES_MAX });
    }
    let drawn = drawn_chunks(seed, chunk_count(entry.shard_len), count);
    for (draw, (chunk, shown)) in drawn.zip(&proof.chunks).enumerate() {
        verify_chunk(&entry.id, entry.shard_len, chunk, shown)
            .map_err(|source| AuditError::Chunk { draw, chunk, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
