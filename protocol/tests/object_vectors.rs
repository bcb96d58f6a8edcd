// SPDX-License-Identifier: MIT OR Apache-2.0
//! Golden vectors of whole objects: from bytes to CID. Whoever implements the protocol elsewhere
//! checks against `vectors/objects.json`; `UPDATE_VECTORS=1` rewrites it after a deliberate change
//! of the format, which the diff then shows.

use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};
use supernode_protocol::erasure::{Code, Codec, Encoder};
use supernode_protocol::geometry::shard_len;
use supernode_protocol::ids::{Cid, ShardId};
use supernode_protocol::limits::STRIPE_BYTES_MAX;
use supernode_protocol::manifest::{Block, Builder, Extent, Page, Root, Stripe};

/// Byte `i` of every test object: the low byte of `(i + 1) * 2654435761 >> 16` in 64 bits.
fn pattern(len: u64) -> Vec<u8> {
    (1..=len).map(|i| (i.wrapping_mul(2_654_435_761) >> 16).to_le_bytes()[0]).collect()
}

fn stripe(bytes: &[u8], data_count: usize, parity_count: usize) -> Stripe {
    let codec = Codec::default_for(data_count, parity_count);
    let code = Code::new(codec, data_count, parity_count).expect("a valid width");
    let len = bytes.len() as u64;
    let shard_len = shard_len(len, data_count);
    let shard_bytes = usize::try_from(shard_len).expect("fits memory");
    let mut padded = bytes.to_vec();
    padded.resize(shard_bytes * data_count, 0);
    let mut parity = vec![vec![0; shard_bytes]; parity_count];
    Encoder::new(code).encode_stripe(&padded, &mut parity).expect("equal shards");
    let data = padded.chunks_exact(shard_bytes).map(ShardId::of);
    let shards = data.chain(parity.iter().map(|shard| ShardId::of(shard))).collect();
    Stripe { len, codec, data_count, parity_count, shard_len, shards }
}

fn stripes(bytes: &[u8], data_count: usize, parity_count: usize) -> Vec<Extent> {
    let full = usize::try_from(STRIPE_BYTES_MAX).expect("fits memory");
    bytes.chunks(full).map(|part| Extent::Stripe(stripe(part, data_count, parity_count))).collect()
}

fn object(name: &str, bytes: &[u8], extents: Vec<Extent>) -> Value {
    let mut builder = Builder::new();
    let mut pages: Vec<Block> = Vec::new();
    for extent in extents {
        pages.extend(builder.push(extent).expect("a valid extent"));
    }
    let content_root = *blake3::hash(bytes).as_bytes();
    let (last, manifest) = builder.finish(content_root).expect("few pages");
    pages.extend(last);
    let root = Root::decode(&manifest.block.bytes).expect("own output");
    let described = |extent: &Extent| match extent {
        Extent::Stripe(stripe) => json!({
            "stripe": {
                "len": stripe.len, "codec": stripe.codec.id(),
                "k": stripe.data_count, "m": stripe.parity_count,
                "shard_len": stripe.shard_len, "shards": stripe.shards,
            }
        }),
        Extent::Zero { len } => json!({ "zero": { "len": len } }),
        Extent::Inline { bytes } => json!({ "inline": { "hex": hex(bytes) } }),
        Extent::Slice { cid, offset, len } => {
            json!({ "slice": { "cid": cid, "offset": offset, "len": len } })
        }
    };
    json!({
        "name": name,
        "size": root.size,
        "content_root": hex(&root.content_root),
        "shards_root": hex(&root.shards_root),
        "page_0": root.page_0.extents.iter().map(described).collect::<Vec<_>>(),
        "root_block_hex": hex(&manifest.block.bytes),
        "cid": manifest.block.cid,
        "pages": pages.iter().map(|page| {
            let extents = Page::decode(&page.bytes).expect("own output").extents;
            json!({ "cid": page.cid, "extents": extents.len(), "block_hex": hex(&page.bytes) })
        }).collect::<Vec<_>>(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn objects_have_the_cids_they_always_had() {
    let full = pattern(STRIPE_BYTES_MAX);
    let more = pattern(STRIPE_BYTES_MAX + 1);
    let zeros = vec![0; 1 << 20];
    let small = pattern(300);
    let source = Cid::of(b"another object");
    let slice = Extent::Slice { cid: source, offset: 4096, len: 300 };
    let inline = Extent::Inline { bytes: Bytes::from(small.clone()) };
    let many = (0..70).map(|n| Extent::Zero { len: n + 1 }).collect();
    let vectors = json!([
        object("empty", b"", vec![]),
        object("one byte", &pattern(1), stripes(&pattern(1), 10, 4)),
        object("a mebibyte of zeros: fourteen equal shards", &zeros, stripes(&zeros, 10, 4)),
        object("exactly one stripe", &full, stripes(&full, 10, 4)),
        object("one stripe and one byte", &more, stripes(&more, 10, 4)),
        object("wide code 29+51", &pattern(100_000), stripes(&pattern(100_000), 29, 51)),
        object("three replicas", &pattern(5000), stripes(&pattern(5000), 1, 2)),
        object("a small object inline", &small, vec![inline]),
        object("a slice of another object", &small, vec![slice]),
        object("seventy zero extents in two pages", &vec![0; 70 * 71 / 2], many),
    ]);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/objects.json");
    let text = serde_json::to_string_pretty(&vectors).expect("plain values") + "\n";
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(&path, &text).expect("the vector file can be written");
    }
    let golden = std::fs::read_to_string(&path).expect("the vector file is committed");
    assert!(golden == text, "objects differ from {}; see `git diff` of it", path.display());
}
