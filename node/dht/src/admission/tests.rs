// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every way to forge a record, and that the true one passes.

use libp2p::PeerId;
use libp2p::identity::Keypair;
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;

use super::{Proven, Rejection, VALUE_BYTES_MAX, arriving_provider, arriving_value, succeeds};
use crate::keys::{content_key, node_key};

const NETWORK: &str = "test";

fn record(key: &Keypair, sequence: u64) -> NodeRecord {
    NodeRecord {
        node: NodeId::from_public(&key.public()).expect("an Ed25519 key"),
        sequence,
        network: NETWORK.into(),
        region: "APAC".into(),
        capacity_bytes: 1,
        quic: vec![],
        libp2p: vec![],
    }
}

fn judge_node(node: NodeId, value: &[u8], source: &PeerId) -> Result<Proven, Rejection> {
    arriving_value(node_key(node).as_ref(), value, source, NETWORK)
}

#[test]
fn a_manifest_proves_itself_by_its_hash() {
    let source = PeerId::random();
    let key = content_key(Cid::of(b"block"));
    let judge = |value: &[u8]| arriving_value(key.as_ref(), value, &source, NETWORK);
    assert_eq!(judge(b"block"), Ok(Proven::Manifest(Cid::of(b"block"))));
    assert_eq!(judge(b"Block"), Err(Rejection::Hash));
    assert_eq!(judge(b""), Err(Rejection::Hash));
    let long = vec![0; VALUE_BYTES_MAX + 1];
    let key = content_key(Cid::of(&long));
    assert_eq!(arriving_value(key.as_ref(), &long, &source, NETWORK), Err(Rejection::Oversize));
    let largest = &long[1..];
    let key = content_key(Cid::of(largest));
    assert!(arriving_value(key.as_ref(), largest, &source, NETWORK).is_ok());
}

#[test]
fn keys_of_other_forms_are_refused() {
    let source = PeerId::random();
    for key in [&b""[..], b"x", &[0x01, 0x71, 0x1e, 0x20], &[0xff; 64]] {
        assert_eq!(arriving_value(key, b"x", &source, NETWORK), Err(Rejection::Key));
        assert_eq!(arriving_provider(key, &source), Err(Rejection::Key));
    }
}

#[test]
fn a_node_record_proves_itself_by_its_signature() {
    let key = Keypair::generate_ed25519();
    let other = Keypair::generate_ed25519();
    let body = record(&key, 1);
    let node = body.node;
    let own = key.public().to_peer_id();
    let good = Signed::sign(body.clone(), &key).expect("own key");
    assert_eq!(judge_node(node, &good.encode(), &own), Ok(Proven::Node(good.clone())));

    let stranger = other.public().to_peer_id();
    assert_eq!(judge_node(node, &good.encode(), &stranger), Err(Rejection::Source));
    let theirs = NodeId::from_public(&other.public()).expect("an Ed25519 key");
    assert_eq!(judge_node(theirs, &good.encode(), &stranger), Err(Rejection::Signature));

    let bytes = good.encode();
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(judge_node(node, &flipped, &own).is_err(), "byte {at}");
        assert!(judge_node(node, &bytes[..at], &own).is_err(), "cut at {at}");
    }
    let longer = [bytes, vec![0]].concat();
    assert_eq!(judge_node(node, &longer, &own), Err(Rejection::Malformed));
}

#[test]
fn node_records_of_other_networks_or_beyond_the_limits_are_refused() {
    let key = Keypair::generate_ed25519();
    let own = key.public().to_peer_id();
    let foreign = NodeRecord { network: "other".into(), ..record(&key, 1) };
    let huge = NodeRecord { libp2p: vec!["/ip4/8.8.8.8/tcp/1".into(); 9], ..record(&key, 1) };
    let judge = |body: NodeRecord| {
        let node = body.node;
        let signed = Signed::sign(body, &key).expect("own key");
        judge_node(node, &signed.encode(), &own)
    };
    assert_eq!(judge(foreign), Err(Rejection::Network));
    assert_eq!(judge(huge), Err(Rejection::Malformed));
}

#[test]
fn only_a_higher_sequence_succeeds() {
    let key = Keypair::generate_ed25519();
    let sign = |body| Signed::sign(body, &key).expect("own key");
    let held = sign(record(&key, 5));
    assert!(succeeds(&held, &held));
    assert!(succeeds(&held, &sign(record(&key, 6))));
    assert!(!succeeds(&held, &sign(record(&key, 4))));
    let twin = NodeRecord { capacity_bytes: 2, ..record(&key, 5) };
    assert!(!succeeds(&held, &sign(twin)), "same sequence, other content");
}

#[test]
fn a_provider_needs_a_cid_and_a_key_that_names_it() {
    let key = content_key(Cid::of(b"block"));
    let provider = Keypair::generate_ed25519().public().to_peer_id();
    assert_eq!(arriving_provider(key.as_ref(), &provider), Ok(Cid::of(b"block")));
    assert_eq!(arriving_provider(key.as_ref(), &PeerId::random()), Err(Rejection::Source));
}
