// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden vectors of parity shards, hash trees, and what chain and nodes say to each other: what
//! they say today they say for ever, because bytes on disks and on a chain depend on it.
//!
//! `UPDATE_VECTORS=1 cargo test -p supernode-protocol --test golden_shards` writes the files anew;
//! a difference in review is a break of the format. Inputs are made from BLAKE3 alone, so that an
//! implementation in any language can use the files: `n` bytes of seed `s` are the first `n` bytes
//! of BLAKE3's extended output for the UTF-8 bytes of `s`.

use std::env;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use supernode_protocol::audit::{AuditProof, Question, drawn_chunks, verify};
use supernode_protocol::deal::{DealId, HeldDigest, ReceiptClaim, lease_of, registration_message};
use supernode_protocol::erasure::{Code, Codec, Encoder};
use supernode_protocol::geometry::shard_len;
use supernode_protocol::ids::{Cid, NodeId, ShardId};
use supernode_protocol::tree::{
    ShardEntry, ShardsRootHasher, ShardsTree, TreeHasher, align_to_groups, prove_chunk,
    prove_entry, range_proof, verify_chunk, verify_entry, verify_range, verify_span,
};

const INPUT: &str = "input: the first n bytes of the extended BLAKE3 output for the seed's bytes";

fn seeded(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn index(place: u64) -> usize {
    usize::try_from(place).expect("vectors are small")
}

/// Compares with the committed file, or writes it when asked to.
fn compare(name: &str, made: &Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
    if env::var_os("UPDATE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(made).expect("plain values") + "\n";
        fs::write(&path, text).expect("the vectors' folder is writable");
        return;
    }
    let text =
        fs::read_to_string(&path).expect("vectors are committed; UPDATE_VECTORS=1 makes them");
    let committed: Value = serde_json::from_str(&text).expect("vectors are JSON");
    let (Some(made), Some(committed)) = (made.as_object(), committed.as_object()) else {
        panic!("{name} is not an object");
    };
    assert_eq!(made.keys().collect::<Vec<_>>(), committed.keys().collect::<Vec<_>>(), "{name}");
    for (list, made) in made {
        let (made, committed) = (made.as_array(), committed[list].as_array());
        let pairs = made.into_iter().flatten().zip(committed.into_iter().flatten());
        assert_eq!(made.map(Vec::len), committed.map(Vec::len), "{name}: {list}");
        for (position, (made, committed)) in pairs.enumerate() {
            assert_eq!(made, committed, "{name}: {list}[{position}]");
        }
    }
}

fn stripe_case(codec: Codec, k: usize, m: usize, seed: Option<&str>, stripe_bytes: usize) -> Value {
    let len = index(shard_len(stripe_bytes as u64, k));
    let mut stripe = seed.map_or_else(|| vec![0; stripe_bytes], |seed| seeded(seed, stripe_bytes));
    stripe.resize(k * len, 0);
    let code = Code::new(codec, k, m).expect("widths within the limit");
    let mut parity = vec![vec![0; len]; m];
    Encoder::new(code).encode_stripe(&stripe, &mut parity).expect("lengths fit");
    let shards = stripe.chunks(len).chain(parity.iter().map(Vec::as_slice));
    json!({
        "codec": codec.id(),
        "codec_name": codec.name(),
        "data_count": k,
        "parity_count": m,
        "seed": seed,
        "stripe_bytes": stripe_bytes,
        "shard_len": len,
        "shard_ids": shards.map(|shard| ShardId::of(shard).to_string()).collect::<Vec<_>>(),
    })
}

#[test]
fn parity_shards_are_what_they_always_were() {
    let mut stripes = Vec::new();
    for (k, m) in [(1, 1), (1, 2), (2, 2), (4, 2), (10, 4), (20, 10), (29, 51), (200, 56)] {
        for codec in Codec::ALL {
            stripes.push(stripe_case(codec, k, m, Some("supernode stripe"), 100_000));
        }
    }
    let high = Codec::Leopard16High;
    for bytes in [1, 640, 641, 655_360, 655_361, 1_000_000, 64 << 20] {
        stripes.push(stripe_case(high, 10, 4, Some("supernode 10+4"), bytes));
    }
    stripes.push(stripe_case(high, 10, 4, None, 1_000_000));
    stripes.push(stripe_case(high, 3, 0, Some("supernode without parity"), 1000));
    compare("erasure.json", &json!({ "about": [INPUT, "no seed: zeros"], "stripes": stripes }));
}

struct Tree {
    bytes: Vec<u8>,
    id: ShardId,
    outboard: Vec<u8>,
}

fn tree(len: usize) -> Tree {
    let bytes = seeded("supernode tree", len);
    let mut hasher = TreeHasher::new(len as u64);
    hasher.update(&bytes);
    let (id, outboard) = hasher.finish().expect("the length is right");
    Tree { bytes, id, outboard }
}

fn tree_cases() -> Vec<Value> {
    let lengths =
        [0, 1, 64, 1024, 1025, 16_384, 16_385, 32_768, 32_769, 100_000, 131_072, 6_713_344];
    let case = |len| {
        let tree = tree(len);
        json!({
            "len": len,
            "shard_id": tree.id.to_string(),
            "outboard_blake3": blake3::hash(&tree.outboard).to_hex().as_str(),
            "outboard": (tree.outboard.len() <= 512).then(|| hex(&tree.outboard)),
        })
    };
    lengths.into_iter().map(case).collect()
}

fn range_cases() -> Vec<Value> {
    let tree = tree(100_000);
    let len = tree.bytes.len() as u64;
    let case = |(start, end)| {
        let aligned = align_to_groups(start..end, len).expect("within");
        let proof = range_proof(&tree.outboard, len, start..end).expect("within");
        let data = &tree.bytes[index(aligned.start)..index(aligned.end)];
        verify_range(&tree.id, len, start..end, &proof, data).expect("honest");
        json!({
            "len": len, "start": start, "end": end,
            "aligned_start": aligned.start, "aligned_end": aligned.end,
            "proof": hex(&proof),
        })
    };
    [(0, 1), (16_383, 16_385), (40_000, 70_000), (99_999, 100_000)].map(case).to_vec()
}

fn chunk_cases() -> Vec<Value> {
    let case = |(len, chunk): (u64, u64)| {
        let tree = tree(index(len));
        let start = chunk / 16 * 16_384;
        let group = &tree.bytes[index(start)..index((start + 16_384).min(len))];
        let proof = prove_chunk(group, &tree.outboard, len, chunk).expect("it exists");
        verify_chunk(&tree.id, len, chunk, &proof).expect("honest");
        json!({
            "len": len,
            "chunk_index": chunk,
            "chunk_blake3": blake3::hash(&proof.chunk).to_hex().as_str(),
            "path": proof.path.iter().map(|value| hex(value)).collect::<Vec<_>>(),
        })
    };
    [(64, 0), (1025, 0), (1025, 1), (100_000, 0), (100_000, 50), (100_000, 97)].map(case).to_vec()
}

fn entries(count: usize) -> Vec<ShardEntry> {
    let entry = |n: u64| ShardEntry { id: ShardId::of(&n.to_le_bytes()), shard_len: 64 * (n + 1) };
    (0..count as u64).map(entry).collect()
}

fn shards_root_cases() -> Vec<Value> {
    let case = |count: usize| {
        let entries = entries(count);
        let mut hasher = ShardsRootHasher::new();
        entries.iter().for_each(|entry| hasher.push(entry.id, entry.shard_len));
        let (root, last) = (hasher.finish(), count.checked_sub(1));
        let path = last.map(|last| {
            let proof = prove_entry(&entries, last).expect("it exists");
            verify_entry(&root, count as u64, last as u64, &entries[last], &proof).expect("honest");
            proof.path.iter().map(|value| hex(value)).collect::<Vec<_>>()
        });
        json!({ "slot_count": count, "shards_root": hex(&root), "path_of_last_slot": path })
    };
    [0, 1, 14, 16, 17, 140, 1000].map(case).to_vec()
}

/// Every span of a list that is cut at `starts`.
fn span_cases() -> Vec<Value> {
    let cases = |(count, starts): (usize, &[usize])| {
        let entries = entries(count);
        let mut tree = ShardsTree::new();
        for (slot, entry) in entries.iter().enumerate() {
            if starts.contains(&slot) {
                tree.start_group();
            }
            tree.push(entry.id, entry.shard_len);
        }
        let ends = starts.iter().skip(1).copied().chain([count]);
        let case = |(group, (first, end)): (usize, (&usize, usize))| {
            let (proof, slots) = (tree.span(group).expect("it has slots"), count as u64);
            let span = &entries[*first..end];
            verify_span(&tree.root(), slots, *first as u64, span, &proof).expect("honest");
            json!({
                "slot_count": count, "first": first, "end": end,
                "shards_root": hex(&tree.root()),
                "before": proof.before.len(), "after": proof.after.len(),
                "siblings": proof.siblings.iter().map(|value| hex(value)).collect::<Vec<_>>(),
                "encoded_blake3": blake3::hash(&proof.encode()).to_hex().as_str(),
            })
        };
        starts.iter().zip(ends).enumerate().map(case).collect::<Vec<_>>()
    };
    let lists: [(usize, &[usize]); 3] =
        [(28, &[0, 14]), (42, &[0, 14, 28]), (1000, &[0, 448, 896])];
    lists.into_iter().flat_map(cases).collect()
}

#[test]
fn hash_trees_are_what_they_always_were() {
    let about = json!([
        INPUT,
        "trees, ranges and chunks use the seed \"supernode tree\"",
        "slot n of a shards_root holds the BLAKE3 of n as u64 little-endian, of 64 * (n + 1) bytes",
        "spans are slots first..end of such a list; before and after count neighbouring entries",
    ]);
    compare(
        "tree.json",
        &json!({
            "about": about,
            "trees": tree_cases(),
            "ranges": range_cases(),
            "chunks": chunk_cases(),
            "shards_roots": shards_root_cases(),
            "spans": span_cases(),
        }),
    );
}

fn fixed(seed: &str) -> [u8; 32] {
    *blake3::hash(seed.as_bytes()).as_bytes()
}

fn lease_cases() -> Vec<Value> {
    let case = |deal| {
        let genesis = fixed("genesis");
        let lease = lease_of(&genesis, DealId(deal));
        json!({ "genesis": hex(&genesis), "deal": deal, "lease": lease.to_string() })
    };
    [1, 2, 1_000_000].map(case).to_vec()
}

fn message_cases() -> Vec<Value> {
    let genesis = fixed("genesis");
    let (owner, operator) = (fixed("owner"), fixed("operator"));
    let registration = registration_message(&genesis, &owner, &operator);
    let runs = [(0, 0, 64, 3), (0, 0, 64, 9), (2, 64, 5, 3)];
    let mut held = HeldDigest::new();
    runs.iter().for_each(|run| held.push(run.0, run.1, run.2, run.3));
    let claim = ReceiptClaim {
        genesis,
        deal: DealId(7),
        object: Cid::from_bytes(fixed("object")),
        shards_root: fixed("shards_root"),
        width: 14,
        stripe_count: 69,
        node: NodeId::from_bytes(fixed("node")),
        bytes: 123_456_789,
        held: held.finish(),
    };
    vec![
        json!({
            "kind": "registration",
            "genesis": hex(&genesis), "owner": hex(&owner), "operator": hex(&operator),
            "message": hex(&registration),
        }),
        json!({
            "kind": "receipt",
            "runs": runs, "held": hex(&claim.held),
            "genesis": hex(&genesis), "deal": 7, "object": hex(claim.object.as_bytes()),
            "shards_root": hex(&claim.shards_root), "width": claim.width,
            "stripe_count": claim.stripe_count, "node": hex(claim.node.as_bytes()),
            "bytes": claim.bytes, "message": hex(&claim.message()),
        }),
    ]
}

fn draw_cases() -> Vec<Value> {
    let case = |(chunks, count): (u64, u8)| {
        let drawn = drawn_chunks(&fixed("seed"), chunks, count).collect::<Vec<_>>();
        json!({ "seed": hex(&fixed("seed")), "chunks": chunks, "drawn": drawn })
    };
    [(1, 2), (98, 8), (6556, 8), (65_536, 32)].map(case).to_vec()
}

fn audit_cases() -> Vec<Value> {
    let tree = tree(100_000);
    let audited = ShardEntry { id: tree.id, shard_len: 100_000 };
    let other = |n: u64| ShardEntry { id: ShardId::of(&n.to_le_bytes()), shard_len: 64 };
    let entries: Vec<_> = (0..28).map(|n| if n == 17 { audited } else { other(n) }).collect();
    let mut root = ShardsRootHasher::new();
    entries.iter().for_each(|entry| root.push(entry.id, entry.shard_len));
    let (shards_root, seed) = (root.finish(), fixed("seed"));
    let question = Question { shards_root, slot_count: 28, slot: 17, seed, chunk_count: 2 };
    let show = |chunk: u64| {
        let start = chunk / 16 * 16_384;
        let group = &tree.bytes[index(start)..index((start + 16_384).min(100_000))];
        prove_chunk(group, &tree.outboard, 100_000, chunk).expect("it exists")
    };
    let chunks = drawn_chunks(&seed, 98, 2).map(show).collect();
    let place = prove_entry(&entries, 17).expect("it exists");
    let proof = AuditProof { entry: audited, place, chunks };
    verify(&question, &proof).expect("honest");
    let (len, encoded) = (100_000, hex(&proof.encode()));
    vec![json!({
        "shards_root": hex(&shards_root), "slot_count": 28, "slot": 17, "shard_len": len,
        "seed": hex(&seed), "chunk_count": 2, "proof": encoded,
    })]
}

#[test]
fn chain_and_nodes_say_what_they_always_said() {
    let about = json!([
        "every 32-byte value but held and shards_root of the audit is the BLAKE3 of its name",
        "the audited shard has the seed \"supernode tree\", slot n else the BLAKE3 of n as u64",
        "a run of a receipt is group, first stripe, stripes, index",
    ]);
    compare(
        "chain.json",
        &json!({
            "about": about,
            "leases": lease_cases(),
            "messages": message_cases(),
            "draws": draw_cases(),
            "audits": audit_cases(),
        }),
    );
}
