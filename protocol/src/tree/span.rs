// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a holder of one group must have of the rest of the object's list of shards, so that it can
//! prove each of its entries up to `shards_root` by itself.
//!
//! - The group's own entries are in its manifest page. The **span proof** adds the entries of
//!   other groups that share the span's first and last chunk, and the chaining values of the
//!   largest subtrees outside the span: about two for each level, whatever the object's size.
//! - Its shape follows from the object's slot count and the span's place and length, all of which
//!   a holder has from the manifest. Another shape is refused before anything is hashed, and
//!   nothing is allocated for it.
//! - The writer, who alone sees the whole list, makes it: see [`super::ShardsTree`].

use alloc::vec::Vec;
use core::ops::Range;
use core::slice;

use blake3::hazmat::HasherExt as _;
use serde::{Deserialize, Serialize};

use super::audit::ProofError;
use super::entries::{ENTRIES_PER_CHUNK, ENTRY_BYTES, EntryProof, ShardEntry};
use super::shape::{Node, chunk_count};
use super::{CHUNK_BYTES, ChainingValue, join};
use crate::limits::SPAN_PROOF_BYTES_MAX;

/// One span's way to `shards_root`. Empty for the span of all slots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanProof {
    /// Entries before the span that share its first chunk, in slot order.
    pub before: Vec<ShardEntry>,
    /// Entries after the span that share its last chunk, in slot order.
    pub after: Vec<ShardEntry>,
    /// The largest subtrees outside the span's chunks, from the first slot to the last.
    pub siblings: Vec<[u8; 32]>,
}

impl SpanProof {
    /// The proof as a holder keeps it.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("plain lists in memory")
    }

    /// Decodes a proof, all of its bytes. Whether it proves anything is for [`verify_span`].
    ///
    /// # Errors
    /// [`ProofError::Encoding`], also for more bytes than any object's proof has.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > SPAN_PROOF_BYTES_MAX {
            return Err(ProofError::Encoding);
        }
        match postcard::take_from_bytes(bytes) {
            Ok((proof, [])) => Ok(proof),
            _ => Err(ProofError::Encoding),
        }
    }
}

/// Verifies that `entries` are the slots from `first` on of an object with `slot_count` slots.
///
/// `root`, `slot_count`, `first` and `entries` must come from a manifest.
///
/// # Errors
/// A [`ProofError`] for anything but the one right proof.
pub fn verify_span(
    root: &[u8; 32],
    slot_count: u64,
    first: u64,
    entries: &[ShardEntry],
    proof: &SpanProof,
) -> Result<(), ProofError> {
    let span = Span::open(slot_count, first, entries, proof)?;
    let value = span.value(span.shape.root(), &mut proof.siblings.iter(), true);
    if value == *root { Ok(()) } else { Err(ProofError::Root) }
}

/// Proves the entry of slot `position`, counted over the whole object, from the span it is in and
/// a proof that [`verify_span`] accepted. It is the proof that the whole list would give.
///
/// # Errors
/// [`ProofError`] if the slot is not in the span, or the proof does not fit the span.
pub fn prove_entry_in_span(
    slot_count: u64,
    first: u64,
    entries: &[ShardEntry],
    proof: &SpanProof,
    position: u64,
) -> Result<EntryProof, ProofError> {
    let span = Span::open(slot_count, first, entries, proof)?;
    if !span.shape.slots.contains(&position) {
        let count = entries.len() as u64;
        return Err(ProofError::Index { what: "slot of the span", index: position, count });
    }
    let chunk_index = position / ENTRIES_PER_CHUNK as u64;
    let mut path = Vec::new();
    let mut node = span.shape.root();
    let mut siblings = &proof.siblings[..];
    while !node.is_leaf() {
        let (left, _) = node.split();
        let (of_left, of_right) = siblings.split_at(span.shape.outside_count(left));
        let (towards, other, is_left) = node.step_towards(chunk_index);
        let (below, beside) = if is_left { (of_left, of_right) } else { (of_right, of_left) };
        path.push(span.value(other, &mut beside.iter(), false));
        (node, siblings) = (towards, below);
    }
    let start = chunk_index * ENTRIES_PER_CHUNK as u64;
    let chunk = (start..).zip(span.entries_under(node));
    let neighbours = chunk.filter(|(slot, _)| *slot != position).map(|(_, entry)| *entry);
    Ok(EntryProof { neighbours: neighbours.collect(), path })
}

/// Where a span lies in the list and how its proof must therefore look. Arithmetic only, the same
/// for who makes a proof and who checks it.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    slot_count: u64,
    slots: Range<u64>,
    /// The chunks of the list that hold at least one of the slots.
    chunks: Range<u64>,
}

impl Shape {
    /// # Errors
    /// [`ProofError::Span`] for a span that is empty or leaves the object, and for a slot count
    /// that nobody can have hashed.
    pub(super) fn new(slot_count: u64, first: u64, count: u64) -> Result<Self, ProofError> {
        let refused = ProofError::Span { first, count, slot_count };
        let end = first.checked_add(count).filter(|end| count > 0 && *end <= slot_count);
        match (end, slot_count.checked_mul(ENTRY_BYTES as u64)) {
            (Some(end), Some(_)) => {
                let per_chunk = ENTRIES_PER_CHUNK as u64;
                let chunks = first / per_chunk..end.div_ceil(per_chunk);
                Ok(Self { slot_count, slots: first..end, chunks })
            }
            _ => Err(refused),
        }
    }

    /// The whole list as a tree over its chunks.
    pub(super) fn root(&self) -> Node {
        Node::root(chunk_count(self.slot_count * ENTRY_BYTES as u64))
    }

    /// The slots before the span in its first chunk.
    pub(super) fn before(&self) -> Range<u64> {
        self.chunks.start * ENTRIES_PER_CHUNK as u64..self.slots.start
    }

    /// The slots after the span in its last chunk.
    pub(super) fn after(&self) -> Range<u64> {
        self.slots.end..(self.chunks.end * ENTRIES_PER_CHUNK as u64).min(self.slot_count)
    }

    /// Visits the largest subtrees of `node` outside the span, from left to right.
    pub(super) fn outside<F: FnMut(Node)>(&self, node: Node, visit: &mut F) {
        if !node.touches(&self.chunks) {
            visit(node);
        } else if !node.is_within(&self.chunks) {
            let (left, right) = node.split();
            self.outside(left, visit);
            self.outside(right, visit);
        }
    }

    fn outside_count(&self, node: Node) -> usize {
        let mut count = 0;
        self.outside(node, &mut |_| count += 1);
        count
    }

    fn check(&self, proof: &SpanProof) -> Result<(), ProofError> {
        for (given, slots) in [(&proof.before, self.before()), (&proof.after, self.after())] {
            let (have, need) = (given.len() as u64, slots.end - slots.start);
            if have != need {
                return Err(ProofError::Neighbours { have, need });
            }
        }
        let have = proof.siblings.len() as u64;
        let need = self.outside_count(self.root()) as u64;
        if have == need { Ok(()) } else { Err(ProofError::Siblings { have, need }) }
    }
}

/// A span's entries with a proof whose shape is right.
struct Span<'a> {
    shape: Shape,
    entries: &'a [ShardEntry],
    proof: &'a SpanProof,
}

impl<'a> Span<'a> {
    fn open(
        slot_count: u64,
        first: u64,
        entries: &'a [ShardEntry],
        proof: &'a SpanProof,
    ) -> Result<Self, ProofError> {
        let shape = Shape::new(slot_count, first, entries.len() as u64)?;
        shape.check(proof)?;
        Ok(Self { shape, entries, proof })
    }

    /// The value of a subtree, taking what is outside the span from `siblings`.
    fn value(
        &self,
        node: Node,
        siblings: &mut slice::Iter<'_, ChainingValue>,
        is_root: bool,
    ) -> ChainingValue {
        if !node.touches(&self.shape.chunks) {
            return *siblings.next().expect("the siblings were counted");
        }
        if !node.is_within(&self.shape.chunks) {
            let (left, right) = node.split();
            let left = self.value(left, siblings, false);
            let right = self.value(right, siblings, false);
            return join(&left, &right, is_root);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(node.first * CHUNK_BYTES as u64);
        for entry in self.entries_under(node) {
            hasher.update(&entry.to_bytes());
        }
        if is_root { *hasher.finalize().as_bytes() } else { hasher.finalize_non_root() }
    }

    /// The entries of a subtree within the span's chunks, in slot order.
    fn entries_under(&self, node: Node) -> impl Iterator<Item = &'a ShardEntry> {
        let count = |chunks: u64| {
            usize::try_from(chunks).expect("the span is in memory") * ENTRIES_PER_CHUNK
        };
        let SpanProof { before, after, .. } = self.proof;
        let all = before.iter().chain(self.entries).chain(after);
        all.skip(count(node.first - self.shape.chunks.start)).take(count(node.count))
    }
}
