// SPDX-License-Identifier: MIT OR Apache-2.0
//! Span proofs: of all proofs exactly the list's own is taken, and it proves every entry.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::{
    ShardEntry, ShardsTree, SpanProof, prove_entry_in_span, verify_entry, verify_span,
};
use supernode_protocol::wire::decode_frame;

use crate::Flip;

/// Slots of the groups of each object.
const OBJECTS: [&[u64]; 6] =
    [&[1], &[16, 16], &[5, 11, 3, 40], &[14, 14, 14], &[896, 896, 20], &[17, 1, 1, 1, 300]];

struct Object {
    tree: ShardsTree,
    entries: Vec<ShardEntry>,
    starts: Vec<usize>,
}

static MADE: LazyLock<Vec<Object>> = LazyLock::new(|| OBJECTS.map(Object::of).into());

impl Object {
    fn of(groups: &[u64]) -> Self {
        let (mut tree, mut entries, mut starts) = (ShardsTree::new(), Vec::new(), Vec::new());
        for slots in groups {
            tree.start_group();
            starts.push(entries.len());
            for _ in 0..*slots {
                let id = ShardId::of(&entries.len().to_le_bytes());
                let shard_len = 64 * (1 + entries.len() as u64 % 7);
                tree.push(id, shard_len);
                entries.push(ShardEntry { id, shard_len });
            }
        }
        starts.push(entries.len());
        Self { tree, entries, starts }
    }
}

/// What the target's bytes are an encoding of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Case {
    /// An honest proof with at most one byte turned.
    Changed {
        /// Which of the six objects.
        object: u8,
        /// Which of its groups.
        group: u8,
        /// Turned in the proof's encoding.
        flip: Flip,
    },
    /// Everything is made up.
    Foreign {
        /// The root.
        root: [u8; 32],
        /// Slots of the object.
        slot_count: u64,
        /// First slot of the span.
        first: u64,
        /// Its entries.
        entries: Vec<ShardEntry>,
        /// The proof's encoding.
        proof: Vec<u8>,
        /// The slot that is asked for afterwards.
        position: u64,
    },
}

/// Runs a case.
pub fn judge(bytes: &[u8]) -> bool {
    match decode_frame::<Case>(bytes) {
        Ok(Case::Changed { object, group, flip }) => {
            let object = &MADE[usize::from(object) % OBJECTS.len()];
            changed(object, usize::from(group) % (object.starts.len() - 1), flip);
            true
        }
        Ok(Case::Foreign { root, slot_count, first, entries, proof, position }) => {
            let Ok(proof) = SpanProof::decode(&proof) else { return false };
            let _ = verify_span(&root, slot_count, first, &entries, &proof);
            let _ = prove_entry_in_span(slot_count, first, &entries, &proof, position);
            true
        }
        Err(_) => false,
    }
}

fn changed(object: &Object, group: usize, flip: Flip) {
    let slots = object.starts[group]..object.starts[group + 1];
    let (root, count) = (object.tree.root(), object.entries.len() as u64);
    let (first, entries) = (slots.start as u64, &object.entries[slots]);
    let honest = object.tree.span(group).expect("the group has slots");
    let mut encoded = honest.encode();
    flip.apply(&mut encoded);
    let Ok(proof) = SpanProof::decode(&encoded) else { return };
    let verdict = verify_span(&root, count, first, entries, &proof);
    assert_eq!(verdict.is_ok(), proof == honest, "{verdict:?}");
    if verdict.is_ok() {
        let position = first + u64::from(flip.at) % entries.len() as u64;
        let place = prove_entry_in_span(count, first, entries, &proof, position);
        let place = place.expect("a slot of the span");
        let entry = &object.entries[usize::try_from(position).expect("in memory")];
        verify_entry(&root, count, position, entry, &place).expect("it leads to the root");
    }
}
