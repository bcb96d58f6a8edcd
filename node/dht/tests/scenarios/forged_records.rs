// SPDX-License-Identifier: MIT OR Apache-2.0
//! A live node is sent every kind of forged record: it stores none and counts each.

use libp2p::identity::Keypair;
use libp2p::kad::RecordKey;
use supernode_dht::{Dht, Rejection, VALUE_BYTES_MAX};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;

use crate::attacker::Attacker;
use crate::eventually;
use crate::network::{record, server, start};

fn content_key(cid: Cid) -> RecordKey {
    RecordKey::from(cid.to_ipld().to_bytes())
}

fn node_key(node: NodeId) -> RecordKey {
    RecordKey::from(node.peer_id().to_bytes())
}

fn signed(body: NodeRecord, key: &Keypair) -> Vec<u8> {
    Signed::sign(body, key).expect("its own key").encode()
}

/// Runs the attacker's loop until the victim has counted `count` rejections for `reason`.
async fn refused(attacker: &mut Attacker, victim: &Dht, reason: Rejection, count: u64) {
    let wait = eventually::figures(victim, reason.name(), |m| m.rejected_total(reason) == count);
    attacker.while_answering(wait).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_values_are_counted_and_not_kept() {
    let victim = start(server(&[])).await;
    let mut attacker = Attacker::of(&victim).await;
    let own = attacker.key.clone();
    let other = Keypair::generate_ed25519();
    let node = NodeId::from_public(&own.public()).expect("an Ed25519 key");
    let theirs = NodeId::from_public(&other.public()).expect("an Ed25519 key");
    let long = vec![7; VALUE_BYTES_MAX + 1];
    let mut tampered = signed(record(&own, 1), &own);
    tampered[40] ^= 1;
    let elsewhere = NodeRecord { network: "elsewhere".into(), ..record(&own, 1) };
    let crowded = NodeRecord { libp2p: vec![String::new(); 9], ..record(&own, 1) };

    for (key, value, reason) in [
        (content_key(Cid::of(b"true")), b"false".to_vec(), Rejection::Hash),
        (content_key(Cid::of(&long)), long, Rejection::Oversize),
        (RecordKey::from(b"anything".to_vec()), b"x".to_vec(), Rejection::Key),
        (node_key(node), tampered, Rejection::Signature),
        (node_key(node), b"no record".to_vec(), Rejection::Malformed),
        (node_key(theirs), signed(record(&other, 1), &other), Rejection::Source),
        (node_key(node), signed(elsewhere, &own), Rejection::Network),
    ] {
        attacker.put(key, value).await;
        refused(&mut attacker, &victim, reason, 1).await;
    }
    attacker.put(node_key(theirs), signed(record(&own, 1), &own)).await;
    refused(&mut attacker, &victim, Rejection::Signature, 2).await;
    attacker.put(node_key(node), signed(crowded, &own)).await;
    refused(&mut attacker, &victim, Rejection::Malformed, 2).await;

    let figures = victim.metrics();
    assert_eq!((figures.manifests, figures.node_records, figures.providers), (0, 0, 0));
    assert_eq!(figures.records_accepted_total, 0);
    attacker.put(content_key(Cid::of(b"true")), b"true".to_vec()).await;
    let kept = eventually::figures(&victim, "a true one is kept", |m| m.manifests == 1);
    attacker.while_answering(kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_record_of_the_same_node_is_a_rollback() {
    let victim = start(server(&[])).await;
    let mut attacker = Attacker::of(&victim).await;
    let own = attacker.key.clone();
    let node = NodeId::from_public(&own.public()).expect("an Ed25519 key");
    attacker.put(node_key(node), signed(record(&own, 9), &own)).await;
    let kept = eventually::figures(&victim, "kept", |m| m.node_records == 1);
    attacker.while_answering(kept).await;
    attacker.put(node_key(node), signed(record(&own, 8), &own)).await;
    refused(&mut attacker, &victim, Rejection::Rollback, 1).await;
    let twin = NodeRecord { capacity_bytes: 3, ..record(&own, 9) };
    attacker.put(node_key(node), signed(twin, &own)).await;
    refused(&mut attacker, &victim, Rejection::Rollback, 2).await;
    let held = attacker.while_answering(victim.node(node)).await.expect("ready");
    assert_eq!(held.expect("the first one").body_unverified().sequence, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lying_neighbour_cannot_pass_off_a_false_manifest() {
    let victim = start(server(&[])).await;
    let mut attacker = Attacker::of(&victim).await;
    let cid = Cid::of(b"true");
    attacker.serve(content_key(cid), b"false".to_vec());
    let known = eventually::figures(&victim, "it is asked", |m| m.routing_peers == 1);
    attacker.while_answering(known).await;
    let answer = attacker.while_answering(victim.manifest(cid)).await;
    assert_eq!(answer, Ok(None));
    assert_eq!(victim.metrics().rejected_total(Rejection::Hash), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_announces_for_somebody_else() {
    let victim = start(server(&[])).await;
    let framed = Keypair::generate_ed25519().public().to_peer_id();
    let key = Keypair::generate_ed25519();
    let mut attacker = Attacker::posing_as(framed, key, &victim).await;
    attacker.provide(content_key(Cid::of(b"framed"))).await;
    // The library drops such a record before anybody could count it. What is sent after it shows
    // that it has been through.
    for block in [&b"first"[..], b"second", b"third"] {
        attacker.put(content_key(Cid::of(block)), block.to_vec()).await;
    }
    let through = eventually::figures(&victim, "through", |m| m.manifests == 3);
    attacker.while_answering(through).await;
    assert_eq!((victim.metrics().providers, victim.metrics().provider_keys), (0, 0));
}
