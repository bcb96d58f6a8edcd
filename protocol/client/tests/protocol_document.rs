// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeps the frames and limits in `docs/PROTOCOL.md` true.
//!
//! `UPDATE_VECTORS=1 cargo test -p supernode-client --test protocol_document` writes them anew; a
//! changed line in review is a break of the protocol.

use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use serde::Serialize;
use supernode_client::Keypair;
use supernode_protocol::capability::{Capability, ClientClass, Scope};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind, LeaseTerms};
use supernode_protocol::limits;
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::repair::Repair;
use supernode_protocol::signed::Signed;
use supernode_protocol::tree::{ShardEntry, SpanProof};
use supernode_protocol::wire::{
    Ack, ByteRange, ErrorCode, HeldIndexes, LeaseEntry, NodeStatus, Part, Receipt, Request,
    Response, Want, WireError, encode_frame,
};

const UPLOAD: UploadId = UploadId::from_bytes([0x11; 16]);
const LEASE: LeaseId = LeaseId::from_bytes([0x22; 16]);
const SLOT: Slot = Slot { stripe: 300, index: 13 };

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The identity whose Ed25519 seed is 32 times the byte 0x01.
fn key() -> Keypair {
    Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes")
}

fn node() -> NodeId {
    NodeId::from_public(&key().public()).expect("Ed25519")
}

fn node_record() -> Signed<NodeRecord> {
    let record = NodeRecord {
        node: node(),
        sequence: 7,
        network: "main".to_owned(),
        region: "EU-WEST".to_owned(),
        capacity_bytes: 1 << 40,
        quic: vec![
            "192.0.2.1:9002".parse().expect("an address"),
            "[2001:db8::1]:9002".parse().expect("an address"),
        ],
        libp2p: vec!["/ip4/192.0.2.1/tcp/30333".to_owned()],
    };
    Signed::sign(record, &key()).expect("own key")
}

fn placement() -> Signed<PlacementRecord> {
    placement_of(0)
}

fn placement_of(epoch: u64) -> Signed<PlacementRecord> {
    let record = PlacementRecord {
        object: Cid::of(b"object"),
        group: 2,
        epoch,
        nodes: vec![node(), node()],
        writer: node(),
    };
    Signed::sign(record, &key()).expect("own key")
}

fn capability() -> Signed<Capability> {
    let capability = Capability {
        issuer: node(),
        audience: node(),
        network: "main".to_owned(),
        class: ClientClass::Relay,
        scope: Scope { read: true, write: false },
        bytes: 1 << 40,
        expires_at: 2_000_000_000,
    };
    Signed::sign(capability, &key()).expect("own key")
}

/// All of a shard, one that is absent, and the middle of the first.
fn wants() -> Vec<Want> {
    let shard = ShardId::of(b"shard");
    vec![
        Want { shard, range: None },
        Want { shard: ShardId::of(b"absent"), range: None },
        Want { shard, range: Some(ByteRange { offset: 1, len: 3 }) },
    ]
}

/// The same shard at two slots.
fn puts() -> Vec<Part> {
    let part = |index| Part { slot: Slot { index, ..SLOT }, shard: ShardId::of(b"shard"), len: 5 };
    vec![part(13), part(14)]
}

fn not_found() -> WireError {
    let message = "no such shard".to_owned();
    WireError { code: ErrorCode::NotFound, message, retry_after_ms: None }
}

fn stored_many() -> Response {
    let message = "no room".to_owned();
    let full = WireError { code: ErrorCode::Full, message, retry_after_ms: None };
    Response::StoredMany { results: vec![Ok(Ack { sequence: 1000 }), Err(full)] }
}

fn commit() -> Commit {
    Commit {
        upload: UPLOAD,
        object: Cid::of(b"object"),
        group: 2,
        page: Some(Cid::of(b"page")),
        stripe_first: 128,
        stripe_count: 64,
        terms: terms(),
        placement: placement(),
        missing: vec![SLOT],
    }
}

fn terms() -> LeaseTerms {
    LeaseTerms {
        lease: LEASE,
        owner: node(),
        kind: LeaseKind::Pin,
        expiry: Expiry::RunningSeconds(86_400),
    }
}

fn repair() -> Request {
    let repair = Repair { terms: terms(), warrant: placement(), placement: placement_of(1) };
    Request::Repair { repair: Box::new(repair), root_len: 400, page_len: 30_000 }
}

fn held() -> HeldIndexes {
    HeldIndexes { group: 2, stripe_first: 128, stripe_count: 64, indexes: vec![3, 10] }
}

fn requests() -> Vec<(&'static str, Request)> {
    let (object, shard) = (Cid::of(b"object"), ShardId::of(b"shard"));
    let range = Some(ByteRange { offset: 20_000, len: 1000 });
    vec![
        (
            "Hello",
            Request::Hello {
                network: "main".to_owned(),
                agent: "example/1".to_owned(),
                capability: None,
            },
        ),
        (
            "Hello with a capability",
            Request::Hello {
                network: "main".to_owned(),
                agent: String::new(),
                capability: Some(Bytes::from(capability().encode())),
            },
        ),
        ("PutShard", Request::PutShard { upload: UPLOAD, slot: SLOT, shard, len: 6_713_344 }),
        ("PutBlock", Request::PutBlock { upload: UPLOAD, cid: object, len: 500 }),
        ("Commit", Request::Commit(Box::new(commit()))),
        ("GetShard, whole", Request::GetShard { shard, range: None }),
        ("GetShard, 1000 bytes from 20000", Request::GetShard { shard, range }),
        ("Group", Request::Group { object, group: 2, with_root: true }),
        ("Stat", Request::Stat { object, group: 2 }),
        ("Leases from the first", Request::Leases { after: None }),
        ("Leases after an entry", Request::Leases { after: Some((LEASE, object, 2)) }),
        ("Release", Request::Release { lease: LEASE }),
        ("Renew", Request::Renew { lease: LEASE, expiry: Expiry::FinalisedHeight(1000) }),
        ("Members", Request::Members { after: Some(node()) }),
        ("Status", Request::Status),
        ("Receipt", Request::Receipt { lease: LEASE, object, wanted: vec![held()] }),
        ("KeepSpan", Request::KeepSpan { object, group: 2, span: Box::new(span()) }),
        ("GetMany", Request::GetMany { parts: wants() }),
        ("PutMany", Request::PutMany { upload: UPLOAD, parts: puts() }),
        ("Repair", repair()),
    ]
}

fn span() -> SpanProof {
    let entry = ShardEntry { id: ShardId::of(b"shard"), shard_len: 6_713_344 };
    SpanProof { before: vec![entry], after: Vec::new(), siblings: vec![[0x44; 32], [0x55; 32]] }
}

fn responses() -> Vec<(&'static str, Response)> {
    let busy =
        WireError { code: ErrorCode::Busy, message: "later".to_owned(), retry_after_ms: Some(250) };
    let entry = LeaseEntry {
        lease: LEASE,
        kind: LeaseKind::Pin,
        remaining: Expiry::RunningSeconds(60),
        object: Cid::of(b"object"),
        group: 2,
        object_bytes: 1 << 32,
    };
    let status = NodeStatus {
        shard_count: 1,
        slot_count: 2,
        live_bytes: 300,
        capacity_bytes: 1 << 40,
        uptime_secs: 5,
    };
    let ack = Ack { sequence: 1000 };
    let receipt = Receipt {
        shards_root: *ShardId::of(b"list").as_bytes(),
        bytes: 128 * 6_713_344,
        held: vec![held()],
        signature: vec![0x33; 64],
    };
    let range = ByteRange { offset: 16_384, len: 16_384 };
    let node = || Box::new(node_record());
    vec![
        ("Error, busy", Response::Error(busy)),
        (
            "Welcome",
            Response::Welcome {
                node: node(),
                agent: "supernode/0.1.0".to_owned(),
                streams_max: 64,
            },
        ),
        ("Stored", Response::Stored(ack)),
        ("Committed", Response::Committed { ack, slot_count: 128 }),
        ("Shard", Response::Shard { shard_len: 100_000, range, proof_len: 192 }),
        (
            "Group",
            Response::Group { root_len: 400, page_len: 30_000, placement: Box::new(placement()) },
        ),
        ("Held", Response::Held { slots: vec![(SLOT, ShardId::of(b"shard"))] }),
        ("Leases", Response::Leases { entries: vec![entry] }),
        ("Released", Response::Released(ack)),
        ("Renewed", Response::Renewed(ack)),
        ("Members", Response::Members { nodes: vec![*node()] }),
        ("Status", Response::Status(status)),
        ("Receipt", Response::Receipt(receipt)),
        ("Many", Response::Many { parts: 3 }),
        ("StoredMany", stored_many()),
    ]
}

/// Both sides of the streams of a batch, from the first byte to the last.
fn streams() -> Vec<(&'static str, String)> {
    // The range is widened to the only group, so both answers are the same.
    let range = ByteRange { offset: 0, len: 5 };
    let shard = frame(&Response::Shard { shard_len: 5, range, proof_len: 0 });
    let many = [
        frame(&Response::Many { parts: 3 }),
        shard.clone(),
        hex(b"shard"),
        frame(&Response::Error(not_found())),
        shard,
        hex(b"shard"),
    ];
    let put = Request::PutMany { upload: UPLOAD, parts: puts() };
    vec![
        ("GetMany, asked", frame(&Request::GetMany { parts: wants() })),
        ("GetMany, answered", many.concat()),
        ("PutMany, asked", [frame(&put), hex(b"shard"), hex(b"shard")].concat()),
        ("PutMany, answered", frame(&stored_many())),
    ]
}

fn frame<T: Serialize>(message: &T) -> String {
    hex(&encode_frame(message).expect("a short frame"))
}

fn ids_block() -> String {
    let mut text = String::from("```text\n");
    for (name, value) in [
        ("node id", hex(node().as_bytes())),
        ("peer id", node().to_string()),
        ("shard id", ShardId::of(b"shard").to_string()),
        ("object, hash", hex(Cid::of(b"object").as_bytes())),
        ("object, CID", Cid::of(b"object").to_string()),
    ] {
        writeln!(text, "{name}: {value}").expect("into memory");
    }
    text + "```\n"
}

fn frames_block() -> String {
    let mut text = String::from("```text\n");
    for (name, request) in requests() {
        writeln!(text, "request {name}\n{}\n", frame(&request)).expect("into memory");
    }
    for (name, response) in responses() {
        writeln!(text, "response {name}\n{}\n", frame(&response)).expect("into memory");
    }
    writeln!(text, "capability\n{}\n", hex(&capability().encode())).expect("into memory");
    writeln!(text, "capability as a token\n{}\n", capability().token()).expect("into memory");
    for (name, bytes) in streams() {
        writeln!(text, "stream {name}\n{bytes}\n").expect("into memory");
    }
    text.truncate(text.trim_end().len());
    text + "\n```\n"
}

fn limits_block() -> String {
    let mut text = String::from("| limit | value |\n|---|---|\n");
    for (name, value) in [
        ("bytes of a frame, its length not counted", limits::FRAME_BYTES_MAX as u64),
        ("object bytes in a stripe", limits::STRIPE_BYTES_MAX),
        ("bytes of a shard", limits::SHARD_BYTES_MAX),
        ("shards of a stripe", limits::STRIPE_WIDTH_MAX as u64),
        ("extents of a page", limits::PAGE_EXTENTS_MAX as u64),
        ("pages of an object, page 0 included", limits::PAGES_MAX as u64),
        ("bytes of an inline extent", limits::INLINE_BYTES_MAX as u64),
        ("encoded bytes of a page", limits::PAGE_BLOCK_BYTES_MAX as u64),
        ("encoded bytes of a root", limits::ROOT_BLOCK_BYTES_MAX as u64),
        ("depth of slices", limits::SLICE_DEPTH_MAX as u64),
        ("bytes of a network's name", limits::NETWORK_NAME_BYTES_MAX as u64),
        ("bytes of a region's name", limits::REGION_NAME_BYTES_MAX as u64),
        ("addresses of one kind in a node record", limits::NODE_ADDRESSES_MAX as u64),
        ("entries in a page of a listing", limits::LISTING_ENTRIES_MAX as u64),
        ("encoded bytes of a span proof", limits::SPAN_PROOF_BYTES_MAX as u64),
        ("parts of a batch", limits::BATCH_PARTS_MAX as u64),
        ("bytes of the bodies of a batch of puts", limits::BATCH_BYTES_MAX),
        ("encoded bytes of a signed capability", limits::CAPABILITY_BYTES_MAX as u64),
        ("seconds of a pin", limits::PIN_SECONDS_MAX),
    ] {
        writeln!(text, "| {name} | {value} |").expect("into memory");
    }
    text
}

/// Puts `made` between the markers of `name`, and returns what was there.
fn replace(document: &mut String, name: &str, made: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let start = document.find(&begin).expect("the document has the marker") + begin.len();
    let stop = start + document[start..].find(&end).expect("the block ends");
    let found = document[start..stop].to_owned();
    document.replace_range(start..stop, made);
    found
}

#[test]
fn the_document_shows_the_frames_and_limits_there_are() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/PROTOCOL.md");
    let mut document = std::fs::read_to_string(&path).expect("the document is committed");
    let blocks = [("ids", ids_block()), ("frames", frames_block()), ("limits", limits_block())];
    let found: Vec<_> =
        blocks.iter().map(|(name, made)| replace(&mut document, name, made)).collect();
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(&path, document).expect("the document can be written");
        return;
    }
    for ((name, made), found) in blocks.iter().zip(found) {
        assert_eq!(*made, found, "the {name} in docs/PROTOCOL.md are out of date");
    }
}
