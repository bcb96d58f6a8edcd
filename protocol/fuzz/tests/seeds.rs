// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seeds of every fuzz target: made from the vectors that the protocol's document and tests
//! show, and valid. `UPDATE_SEEDS=1` writes them anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use libp2p_identity::Keypair;
use serde::Serialize;
use serde_json::Value;
use supernode_fuzz::{Flip, audits, frames, manifests, ranges, records, spans};
use supernode_protocol::capability::{Capability, ClientClass, Scope};
use supernode_protocol::ids::{NodeId, ShardId};
use supernode_protocol::signed::Signed;
use supernode_protocol::tree::ShardEntry;
use supernode_protocol::wire::{
    FRAME_PREFIX_BYTES, Part, Request, Response, Want, decode_frame, encode_frame,
};

/// By target and name.
type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits");
    (0..text.len()).step_by(2).map(digit).collect()
}

fn body<T: Serialize>(message: &T) -> Vec<u8> {
    encode_frame(message).expect("a short message")[FRAME_PREFIX_BYTES..].to_vec()
}

/// The frames that the document shows.
fn of_the_document(seeds: &mut Seeds) {
    let text = fs::read_to_string(folder().join("../../docs/PROTOCOL.md")).expect("committed");
    let start = text.find("<!-- frames -->").expect("the document shows frames");
    let mut lines = text[start..].lines().take_while(|line| !line.starts_with("<!-- end"));
    while let Some(line) = lines.next() {
        let Some((kind, name)) = line.split_once(' ') else { continue };
        let target = match kind {
            "request" => "request",
            "response" => "response",
            _ => continue,
        };
        let name = name.to_lowercase().replace([' ', ','], "-");
        let frame = unhex(lines.next().expect("a frame follows its name"));
        let bytes = frame[FRAME_PREFIX_BYTES..].to_vec();
        if target == "response" {
            of_a_response(seeds, &decode_frame(&bytes).expect("a frame of the document"));
        }
        seeds.insert((target, name), bytes);
    }
}

/// What stands on its own inside an answer.
fn of_a_response(seeds: &mut Seeds, response: &Response) {
    let (target, bytes) = match response {
        Response::Welcome { node, .. } => ("node_record", node.encode()),
        Response::Group { placement, .. } => ("placement", placement.encode()),
        Response::Receipt(receipt) => ("receipt", body(receipt)),
        _ => return,
    };
    seeds.insert((target, "of-the-document".to_owned()), bytes);
}

/// What is newer than the frames of the document.
fn of_batches(seeds: &mut Seeds) {
    let Request::PutShard { upload, slot, shard, len } =
        decode_frame(&seeds[&("request", "putshard".to_owned())]).expect("a frame of the document")
    else {
        panic!("the document's put is no put")
    };
    let parts = vec![Part { slot, shard, len }; 3];
    let put = Request::PutMany { upload, parts };
    seeds.insert(("request", "putmany".to_owned()), body(&put));
    let parts = vec![Want { shard, range: None }; 3];
    let get = Request::GetMany { parts };
    seeds.insert(("request", "getmany".to_owned()), body(&get));
    let many = Response::Many { parts: 3 };
    seeds.insert(("response", "many".to_owned()), body(&many));
    let Ok(Response::Stored(ack)) = decode_frame(&seeds[&("response", "stored".to_owned())]) else {
        panic!("the document's answer to a put is none")
    };
    let Ok(Response::Error(error)) = decode_frame(&seeds[&("response", "error--busy".to_owned())])
    else {
        panic!("the document's error is none")
    };
    let stored = Response::StoredMany { results: vec![Ok(ack), Err(error)] };
    seeds.insert(("response", "storedmany".to_owned()), body(&stored));
}

fn of_a_capability(seeds: &mut Seeds) {
    let key = Keypair::ed25519_from_bytes([1; 32]).expect("32 bytes");
    for class in ClientClass::ALL {
        let grant = Capability {
            issuer: NodeId::from_public(&key.public()).expect("Ed25519"),
            audience: NodeId::from_bytes([7; 32]),
            network: "main".to_owned(),
            class,
            scope: Scope { read: true, write: class == ClientClass::Gateway },
            bytes: 1 << 40,
            expires_at: 2_000_000_000,
        };
        let bytes = Signed::sign(grant, &key).expect("own key").encode();
        let hello = Request::Hello {
            network: "main".to_owned(),
            agent: "example/1".to_owned(),
            capability: Some(bytes.clone().into()),
        };
        seeds.insert(("request", format!("hello-{}", class.name())), body(&hello));
        seeds.insert(("capability", class.name().to_owned()), bytes);
    }
}

/// Every hex string under one of these names, wherever it stands.
fn collect(value: &Value, name: &str, into: &mut Vec<Vec<u8>>) {
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                match field.as_str() {
                    Some(text) if key == name => into.push(unhex(text)),
                    _ => collect(field, name, into),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, name, into)),
        _ => {}
    }
}

fn vectors(file: &str) -> Value {
    let text = fs::read_to_string(folder().join("../tests/vectors").join(file));
    serde_json::from_str(&text.expect("committed")).expect("JSON")
}

fn of_objects(seeds: &mut Seeds) {
    let objects = vectors("objects.json");
    for (target, name) in [("manifest_root", "root_block_hex"), ("manifest_page", "block_hex")] {
        let mut blocks = Vec::new();
        collect(&objects, name, &mut blocks);
        assert!(!blocks.is_empty(), "the vectors have no {name}");
        for (number, block) in blocks.into_iter().enumerate() {
            seeds.insert((target, format!("vector-{number:02}")), block);
        }
    }
}

fn of_names(seeds: &mut Seeds) {
    let text = fs::read_to_string(folder().join("../../docs/PROTOCOL.md")).expect("committed");
    let start = text.find("<!-- ids -->").expect("the document shows ids");
    let lines = text[start..].lines().take_while(|line| !line.starts_with("<!-- end"));
    for line in lines {
        if let Some((name, id)) = line.split_once(": ") {
            seeds.insert(("names", name.replace([' ', ','], "-")), id.as_bytes().to_vec());
        }
    }
}

fn of_proofs(seeds: &mut Seeds) {
    let flip = |at, with| Flip { at, with };
    let changes = [
        ranges::Change::Nothing,
        ranges::Change::Proof(flip(70, 1)),
        ranges::Change::Data(flip(9, 0x80)),
        ranges::Change::Id(flip(31, 4)),
        ranges::Change::ProofCut(64),
        ranges::Change::DataMore(vec![0]),
    ];
    let shards = (0..30).map(|number| (number, number % 10));
    for ((number, shard), change) in shards.zip(changes.iter().cycle()) {
        let case = ranges::Case::Changed { shard, start: 0, end: 1, change: change.clone() };
        let name = format!("shard-{shard}-{number}");
        if shard != 0 {
            seeds.insert(("range", name), body(&case));
        }
    }
    let (id, data) = ([1; 32], vec![3; 100]);
    let case = ranges::Case::Foreign { id, len: 100, start: 0, end: 100, proof: vec![], data };
    seeds.insert(("range", "foreign".to_owned()), body(&case));

    let entry = ShardEntry { id: ShardId::of(b"shard"), shard_len: 64 };
    for (object, group) in [(0, 0), (1, 1), (2, 2), (3, 1), (4, 0), (4, 2), (5, 4)] {
        for flip in [flip(0, 0), flip(5, 1), flip(100, 0x80)] {
            let case = spans::Case::Changed { object, group, flip };
            let name = format!("object-{object}-{group}-{}", flip.at);
            seeds.insert(("span", name), body(&case));
        }
    }
    let Ok(Request::KeepSpan { span, .. }) =
        decode_frame(&seeds[&("request", "keepspan".to_owned())])
    else {
        panic!("the document's span is none")
    };
    let case = spans::Case::Foreign {
        root: [0; 32],
        slot_count: 100,
        first: 17,
        entries: vec![entry; 4],
        proof: span.encode(),
        position: 18,
    };
    seeds.insert(("span", "foreign".to_owned()), body(&case));

    for audit in 0..6 {
        for flip in [flip(0, 0), flip(40, 1), flip(1000, 0x80)] {
            let case = audits::Case::Changed { audit, flip };
            seeds.insert(("audit", format!("audit-{audit}-{}", flip.at)), body(&case));
        }
    }
    let mut proofs = Vec::new();
    collect(&vectors("chain.json")["audits"], "proof", &mut proofs);
    for (number, proof) in proofs.into_iter().enumerate() {
        let (shards_root, slot_count, slot) = ([0; 32], 28, 17);
        let case = audits::Case::Foreign { shards_root, slot_count, slot, chunk_count: 2, proof };
        seeds.insert(("audit", format!("vector-{number}")), body(&case));
    }
}

fn judge(target: &str, bytes: &[u8]) -> bool {
    match target {
        "request" => frames::request(bytes),
        "response" => frames::response(bytes),
        "receipt" => frames::receipt(bytes),
        "capability" => records::capability(bytes),
        "node_record" => records::node_record(bytes),
        "placement" => records::placement(bytes),
        "names" => records::names(bytes),
        "manifest_root" => manifests::root(bytes),
        "manifest_page" => manifests::page(bytes),
        "range" => ranges::judge(bytes),
        "span" => spans::judge(bytes),
        "audit" => audits::judge(bytes),
        other => panic!("no target {other}"),
    }
}

#[test]
fn seeds_are_valid_and_those_that_are_committed() {
    let mut seeds = Seeds::new();
    of_the_document(&mut seeds);
    of_batches(&mut seeds);
    of_a_capability(&mut seeds);
    of_objects(&mut seeds);
    of_names(&mut seeds);
    of_proofs(&mut seeds);
    let is_update = std::env::var_os("UPDATE_SEEDS").is_some();
    for ((target, name), bytes) in &seeds {
        assert!(judge(target, bytes), "seed {name} of {target} is not valid");
        let path = folder().join("seeds").join(target).join(name);
        if is_update {
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(&path, bytes).expect("a seed");
        }
        let committed = fs::read(&path).unwrap_or_default();
        assert_eq!(committed, *bytes, "seed {name} of {target}: run with UPDATE_SEEDS=1");
    }
    for target in fs::read_dir(folder().join("seeds")).expect("seeds").flatten() {
        let of = target.file_name().into_string().expect("plain names");
        for seed in fs::read_dir(target.path()).expect("a folder").flatten() {
            let name = seed.file_name().into_string().expect("plain names");
            let is_made = seeds.keys().any(|(target, seed)| *target == of && *seed == name);
            assert!(is_made, "seed {name} of {of} is made by nothing: remove it");
        }
    }
    for target in fs::read_dir(folder().join("fuzz_targets")).expect("targets").flatten() {
        let name = target.file_name().into_string().expect("plain names");
        let name = name.trim_end_matches(".rs");
        assert!(seeds.keys().any(|(target, _)| *target == name), "{name} has no seed");
    }
}
