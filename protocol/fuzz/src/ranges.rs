// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges of a shard: of all proofs and bytes exactly the shard's own are taken.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::{align_to_groups, proof_len, range_proof, verify_range};
use supernode_protocol::wire::decode_frame;

use crate::{Flip, Shard};

/// Around every edge of a tree.
const LENGTHS: [usize; 10] = [0, 1, 1024, 1025, 16_384, 16_385, 32_768, 49_153, 100_000, 262_145];

static SHARDS: LazyLock<Vec<Shard>> = LazyLock::new(|| LENGTHS.map(Shard::of).into());

/// What the target's bytes are an encoding of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Case {
    /// An honest answer with at most one change.
    Changed {
        /// Which of the ten shards.
        shard: u8,
        /// First byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
        /// What is wrong with the answer.
        change: Change,
    },
    /// Everything is made up.
    Foreign {
        /// The id.
        id: [u8; 32],
        /// The length of the shard.
        len: u64,
        /// First byte asked for.
        start: u64,
        /// The byte after the last one asked for.
        end: u64,
        /// The proof.
        proof: Vec<u8>,
        /// The bytes.
        data: Vec<u8>,
    },
}

/// What an answer has wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// A byte of the proof.
    Proof(Flip),
    /// A byte of the data.
    Data(Flip),
    /// A byte of the id.
    Id(Flip),
    /// So many bytes of the proof are missing at its end.
    ProofCut(u16),
    /// So many bytes of the data are missing at its end.
    DataCut(u16),
    /// Bytes after the proof.
    ProofMore(Vec<u8>),
    /// Bytes after the data.
    DataMore(Vec<u8>),
}

/// Runs a case.
pub fn judge(bytes: &[u8]) -> bool {
    match decode_frame::<Case>(bytes) {
        Ok(Case::Changed { shard, start, end, change }) => {
            let shard = &SHARDS[usize::from(shard) % LENGTHS.len()];
            changed(shard, start..end, change)
        }
        Ok(Case::Foreign { id, len, start, end, proof, data }) => {
            let _ = verify_range(&ShardId::from_bytes(id), len, start..end, &proof, &data);
            let _ = proof_len(len, start..end);
            true
        }
        Err(_) => false,
    }
}

fn changed(shard: &Shard, range: std::ops::Range<u64>, change: Change) -> bool {
    let len = shard.len();
    let Ok(aligned) = align_to_groups(range.clone(), len) else {
        let refused = verify_range(&shard.id, len, range, &[], &[]);
        assert!(refused.is_err(), "a range outside the shard was proven");
        return false;
    };
    let honest = range_proof(&shard.outboard, len, range.clone()).expect("a range of the shard");
    let place = |at: u64| usize::try_from(at).expect("in memory");
    let own = &shard.bytes[place(aligned.start)..place(aligned.end)];
    let (mut id, mut proof, mut data) = (*shard.id.as_bytes(), honest.clone(), own.to_vec());
    match change {
        Change::Nothing => {}
        Change::Proof(flip) => flip.apply(&mut proof),
        Change::Data(flip) => flip.apply(&mut data),
        Change::Id(flip) => flip.apply(&mut id),
        Change::ProofCut(bytes) => proof.truncate(proof.len().saturating_sub(bytes.into())),
        Change::DataCut(bytes) => data.truncate(data.len().saturating_sub(bytes.into())),
        Change::ProofMore(more) => proof.extend(more),
        Change::DataMore(more) => data.extend(more),
    }
    let is_honest = id == *shard.id.as_bytes() && proof == honest && data == own;
    let verdict = verify_range(&ShardId::from_bytes(id), len, range, &proof, &data);
    assert_eq!(verdict.is_ok(), is_honest, "{verdict:?}");
    true
}
