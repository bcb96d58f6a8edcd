// SPDX-License-Identifier: MIT OR Apache-2.0
//! Span proofs: with one a group's holder proves what the owner of the whole list would, and
//! nothing but the one right proof is accepted.
//!
//! Lists and splits are random; the seed of a failure is printed and `SPAN_SEED` replays it.

use std::env;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use supernode_protocol::ids::ShardId;
use supernode_protocol::limits::{
    PAGE_EXTENTS_MAX, PAGES_MAX, SPAN_PROOF_BYTES_MAX, STRIPE_WIDTH_MAX,
};
use supernode_protocol::tree::{
    ProofError, ShardEntry, ShardsRootHasher, ShardsTree, SpanProof, prove_entry,
    prove_entry_in_span, verify_entry, verify_span,
};

const SEED: u64 = 0x5eed_59a4;

fn seed() -> u64 {
    env::var("SPAN_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED)
}

fn random_entries(rng: &mut ChaCha8Rng, count: usize) -> Vec<ShardEntry> {
    let entry = |rng: &mut ChaCha8Rng| ShardEntry {
        id: ShardId::from_bytes(rng.random()),
        shard_len: rng.random_range(0..1 << 26),
    };
    (0..count).map(|_| entry(rng)).collect()
}

/// A group: its first slot, its entries and what its holder was given.
struct Group<'a> {
    first: u64,
    entries: &'a [ShardEntry],
    proof: SpanProof,
}

impl Group<'_> {
    fn verify(&self, list: &List, proof: &SpanProof) -> Result<(), ProofError> {
        verify_span(&list.root, list.slots(), self.first, self.entries, proof)
    }
}

struct List {
    entries: Vec<ShardEntry>,
    root: [u8; 32],
    /// The first slot of every group.
    starts: Vec<usize>,
    tree: ShardsTree,
}

impl List {
    fn new(entries: Vec<ShardEntry>, starts: Vec<usize>) -> Self {
        let (mut hasher, mut tree) = (ShardsRootHasher::new(), ShardsTree::new());
        for (slot, entry) in entries.iter().enumerate() {
            starts.iter().filter(|start| **start == slot).for_each(|_| tree.start_group());
            hasher.push(entry.id, entry.shard_len);
            tree.push(entry.id, entry.shard_len);
        }
        assert_eq!((tree.count(), tree.root()), (hasher.count(), hasher.finish()));
        Self { root: hasher.finish(), entries, starts, tree }
    }

    /// A list with groups of random sizes, small ones among them.
    fn random(rng: &mut ChaCha8Rng, count: usize) -> Self {
        let entries = random_entries(rng, count);
        let longest = [3, 20, 100, count][rng.random_range(0..4)].max(1);
        let mut starts = vec![0];
        loop {
            let next = starts.last().expect("never empty") + rng.random_range(1..=longest);
            if next >= count {
                return Self::new(entries, starts);
            }
            starts.push(next);
        }
    }

    fn slots(&self) -> u64 {
        self.entries.len() as u64
    }

    fn groups(&self) -> impl Iterator<Item = Group<'_>> {
        self.starts.iter().enumerate().map(|(number, first)| {
            let end = self.starts.get(number + 1).copied().unwrap_or(self.entries.len());
            Group {
                first: *first as u64,
                entries: &self.entries[*first..end],
                proof: self.tree.span(number).expect("it has slots"),
            }
        })
    }
}

#[test]
fn a_holder_with_a_span_proves_what_the_whole_list_would() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let edges = [1, 2, 15, 16, 17, 31, 32, 33, 48, 49, 64, 65, 127, 128, 129, 256, 257, 1000];
    let random = (0..40).map(|_| rng.random_range(1..600)).collect::<Vec<_>>();
    for count in edges.into_iter().chain(random) {
        let list = List::random(&mut rng, count);
        for group in list.groups() {
            let what =
                format!("seed {seed}: {} of {count} from {}", group.entries.len(), group.first);
            assert_eq!(group.verify(&list, &group.proof), Ok(()), "{what}");
            let encoded = group.proof.encode();
            assert_eq!(SpanProof::decode(&encoded).as_ref(), Ok(&group.proof), "{what}");
            for (slot, entry) in (group.first..).zip(group.entries) {
                let (first, proof) = (group.first, &group.proof);
                let proven = prove_entry_in_span(list.slots(), first, group.entries, proof, slot);
                let whole = prove_entry(&list.entries, usize::try_from(slot).expect("small"));
                assert_eq!(proven, whole, "{what}: slot {slot}");
                let proven = proven.expect("equal to one that is");
                let verdict = verify_entry(&list.root, list.slots(), slot, entry, &proven);
                assert_eq!(verdict, Ok(()), "{what}: slot {slot}");
            }
        }
    }
}

#[test]
fn the_span_of_all_slots_needs_no_proof() {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    for count in [1, 14, 16, 17, 896] {
        let list = List::new(random_entries(&mut rng, count), vec![0]);
        let group = list.groups().next().expect("one group");
        assert_eq!(group.proof, SpanProof::default(), "{count} slots");
        assert_eq!(group.verify(&list, &group.proof), Ok(()));
    }
    // Groups without slots have no span, and neither has one that does not exist.
    let mut tree = ShardsTree::new();
    tree.start_group();
    assert_eq!((tree.span(0), tree.span(1)), (None, None));
    assert_eq!(tree.root(), ShardsRootHasher::new().finish());
}

#[test]
fn no_flipped_bit_of_a_proof_is_accepted() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut tried = 0;
    for (count, starts) in [(42, vec![0, 14, 28]), (300, vec![0, 33, 75, 290]), (64, vec![0, 32])] {
        let list = List::new(random_entries(&mut rng, count), starts);
        for group in list.groups() {
            assert_eq!(group.verify(&list, &group.proof), Ok(()));
            let honest = group.proof.encode();
            for place in 0..honest.len() * 8 {
                let mut forged = honest.clone();
                forged[place / 8] ^= 1 << (place % 8);
                let verdict = SpanProof::decode(&forged).and_then(|it| group.verify(&list, &it));
                let first = group.first;
                assert!(verdict.is_err(), "seed {seed}: bit {place}, {count} slots from {first}");
                tried += 1;
            }
        }
    }
    assert!(tried > 10_000, "only {tried} bits were tried");
}

#[test]
fn proofs_of_another_shape_are_refused_before_they_are_hashed() {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let list = List::new(random_entries(&mut rng, 200), vec![0, 20, 60]);
    let group = list.groups().nth(1).expect("three groups");
    let SpanProof { before, after, siblings } = &group.proof;
    assert_eq!((before.len(), after.len(), siblings.len()), (4, 4, 3));
    let judge = |change: fn(&mut SpanProof)| {
        let mut forged = group.proof.clone();
        change(&mut forged);
        let verdict = group.verify(&list, &forged);
        let proven =
            prove_entry_in_span(list.slots(), group.first, group.entries, &forged, group.first);
        assert_eq!(proven.map(|_| ()), verdict, "who proves refuses the same");
        verdict
    };
    let neighbours = |have| Err(ProofError::Neighbours { have, need: 4 });
    assert_eq!(judge(|proof| proof.before.truncate(3)), neighbours(3));
    assert_eq!(judge(|proof| proof.before.push(proof.after[0])), neighbours(5));
    assert_eq!(judge(|proof| proof.after.clear()), neighbours(0));
    assert_eq!(judge(|proof| proof.after.push(proof.before[0])), neighbours(5));
    let siblings = |have| Err(ProofError::Siblings { have, need: 3 });
    assert_eq!(judge(|proof| proof.siblings.truncate(2)), siblings(2));
    assert_eq!(judge(|proof| proof.siblings.push([0; 32])), siblings(4));
    assert_eq!(judge(|proof| proof.siblings.clear()), siblings(0));
    assert_eq!(
        judge(|proof| proof.siblings = vec![[0; 32]; 1 << 16]),
        Err(ProofError::Siblings { have: 1 << 16, need: 3 })
    );
}

#[test]
fn values_in_another_order_lead_elsewhere() {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let list = List::new(random_entries(&mut rng, 100), vec![0, 20, 60]);
    let group = list.groups().nth(1).expect("three groups");
    let judge = |change: fn(&mut SpanProof)| {
        let mut forged = group.proof.clone();
        change(&mut forged);
        group.verify(&list, &forged)
    };
    assert_eq!(judge(|_| ()), Ok(()));
    assert_eq!(judge(|proof| proof.siblings.swap(0, 1)), Err(ProofError::Root));
    assert_eq!(judge(|proof| proof.siblings.rotate_left(1)), Err(ProofError::Root));
    assert_eq!(judge(|proof| proof.before.swap(0, 3)), Err(ProofError::Root));
    let exchange = |proof: &mut SpanProof| core::mem::swap(&mut proof.before, &mut proof.after);
    assert_eq!(judge(exchange), Err(ProofError::Root));
}

#[test]
fn the_span_of_another_group_object_or_place_is_refused() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Groups of equal size, so that many proofs have the same shape.
    let starts: Vec<usize> = (0..16).map(|group| group * 32).collect();
    let list = List::new(random_entries(&mut rng, 512), starts.clone());
    let other = List::new(random_entries(&mut rng, 512), starts);
    for (number, group) in list.groups().enumerate() {
        assert_eq!(group.verify(&list, &group.proof), Ok(()));
        for (at, theirs) in list.groups().enumerate().filter(|(at, _)| *at != number) {
            let verdict = group.verify(&list, &theirs.proof);
            assert_eq!(verdict, Err(ProofError::Root), "seed {seed}: {at} for {number}");
            let moved = verify_span(&list.root, 512, theirs.first, group.entries, &group.proof);
            assert_eq!(moved, Err(ProofError::Root), "seed {seed}: {number} at {at}");
            let swapped = verify_span(&list.root, 512, group.first, theirs.entries, &group.proof);
            assert_eq!(swapped, Err(ProofError::Root), "seed {seed}: {at}'s at {number}");
        }
        let theirs = other.groups().nth(number).expect("as many groups");
        assert_eq!(group.verify(&list, &theirs.proof), Err(ProofError::Root));
        assert_eq!(group.verify(&other, &group.proof), Err(ProofError::Root));
        assert_eq!(theirs.verify(&list, &theirs.proof), Err(ProofError::Root));
    }
}

#[test]
fn spans_that_are_no_part_of_the_object_are_refused() {
    let mut rng = ChaCha8Rng::seed_from_u64(seed());
    let list = List::new(random_entries(&mut rng, 100), vec![0, 20, 60]);
    let group = list.groups().nth(1).expect("three groups");
    let at = |slot_count, first, count: usize| {
        let entries = &list.entries[..count];
        (
            verify_span(&list.root, slot_count, first, entries, &group.proof),
            ProofError::Span { first, count: count as u64, slot_count },
        )
    };
    for (slot_count, first, count) in [
        (100, 20, 0),
        (100, 100, 0),
        (100, 61, 40),
        (100, 100, 1),
        (100, u64::MAX, 40),
        (0, 0, 1),
        // More slots than anybody can have hashed do not overflow.
        (u64::MAX, 20, 40),
        (u64::MAX / 64 + 1, 20, 40),
    ] {
        let (verdict, refusal) = at(slot_count, first, count);
        assert_eq!(verdict, Err(refusal), "{count} from {first} of {slot_count}");
    }
    assert!(at(u64::MAX / 64, 20, 40).0.is_err(), "the deepest tree there is");
    for position in [0, 19, 60, 100, u64::MAX] {
        let refusal = ProofError::Index { what: "slot of the span", index: position, count: 40 };
        let proven = prove_entry_in_span(100, 20, group.entries, &group.proof, position);
        assert_eq!(proven.map(|_| ()), Err(refusal));
    }
}

#[test]
fn the_largest_proof_of_any_object_is_within_the_limit() {
    let seed = seed();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let slots = (PAGES_MAX * PAGE_EXTENTS_MAX * STRIPE_WIDTH_MAX) as u64;
    let entry = ShardEntry { id: ShardId::from_bytes([0xff; 32]), shard_len: u64::MAX };
    let mut most = 0;
    for _ in 0..2000 {
        let slot_count = slots - rng.random_range(0..100);
        let first = rng.random_range(0..slot_count);
        // The refusal names how many siblings belong to a span of one slot.
        let (before, after) = (first % 16, (15 - first % 16).min(slot_count - first - 1));
        let count = |count: u64| usize::try_from(count).expect("at most 15");
        let proof = SpanProof {
            before: vec![entry; count(before)],
            after: vec![entry; count(after)],
            siblings: vec![[0xff; 32]; 1000],
        };
        match verify_span(&[0; 32], slot_count, first, &[entry], &proof) {
            Err(ProofError::Siblings { need, .. }) => most = most.max(need),
            other => panic!("seed {seed}: {other:?}"),
        }
    }
    // A span of several chunks has two such paths beside it at most, and two borders.
    assert_eq!(most, 25);
    let neighbours = vec![entry; 15];
    let siblings = vec![[0xff; 32]; 50];
    let largest = SpanProof { before: neighbours.clone(), after: neighbours, siblings };
    let encoded = largest.encode();
    assert!(encoded.len() <= SPAN_PROOF_BYTES_MAX, "{} bytes", encoded.len());
    assert_eq!(SpanProof::decode(&encoded), Ok(largest.clone()));
    let longer = SpanProof { siblings: vec![[0; 32]; 100], ..largest };
    assert!(longer.encode().len() > SPAN_PROOF_BYTES_MAX);
    assert_eq!(SpanProof::decode(&longer.encode()), Err(ProofError::Encoding));
    assert_eq!(SpanProof::decode(&[encoded, vec![0]].concat()), Err(ProofError::Encoding));
    assert_eq!(SpanProof::decode(&[]), Err(ProofError::Encoding));
}
