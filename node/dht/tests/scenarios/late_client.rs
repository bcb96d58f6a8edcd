// SPDX-License-Identifier: MIT OR Apache-2.0
//! A client that knows only a node that came after everything was published finds all of it.

use bytes::Bytes;
use libp2p::identity::Keypair;
use supernode_dht::{Dht, DhtError};
use supernode_protocol::ids::{Cid, NodeId};

use crate::eventually::{self, PATIENCE};
use crate::network::{address, client, network, record, server, start, start_client};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_the_eighth_node_finds_providers_manifest_and_records() {
    let nodes = network(7).await;
    let block = Bytes::from_static(b"a small manifest block");
    let cid = Cid::of(&block);
    for holder in &nodes[2..5] {
        holder.announce(cid).await.expect("a server");
    }
    nodes[2].publish_manifest(cid, block.clone()).await.expect("its own hash");

    let bootstrap = [address(&nodes[0]).await];
    let eighth = start(server(&bootstrap)).await;
    eighth.wait_ready(PATIENCE).await.expect("the first node is up");
    let reader = start_client(&eighth).await;

    let mut found = reader.providers(cid).await.expect("ready");
    found.sort();
    let mut holders: Vec<_> = nodes[2..5].iter().map(Dht::local).collect();
    holders.sort();
    assert_eq!(found, holders);
    assert_eq!(reader.manifest(cid).await.expect("ready"), Some(block));
    for holder in holders {
        let record = reader.node(holder).await.expect("ready").expect("it presented itself");
        let body = record.verify().expect("signed");
        assert_eq!((body.node, body.quic.len()), (holder, 1));
    }
    eventually::members(&[&reader], 8).await;
    assert!(reader.members().iter().all(|m| m.body_unverified().node != reader.local()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_nobody_and_not_an_error() {
    let nodes = network(3).await;
    let reader = start_client(&nodes[2]).await;
    let cid = Cid::of(b"nobody has this");
    assert_eq!(reader.providers(cid).await, Ok(vec![]));
    assert_eq!(reader.manifest(cid).await, Ok(None));
    let stranger = Keypair::generate_ed25519();
    let stranger = NodeId::from_public(&stranger.public()).expect("an Ed25519 key");
    assert_eq!(reader.node(stranger).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_publishes_nothing_and_is_nobodys_neighbour() {
    let nodes = network(2).await;
    let key = Keypair::generate_ed25519();
    let config = client(&[address(&nodes[0]).await]);
    let reader = Dht::start(config, key.clone()).await.expect("a client");
    reader.wait_ready(PATIENCE).await.expect("the first node is up");
    let refused = DhtError::ClientMode { operation: "announce" };
    assert_eq!(reader.announce(Cid::of(b"x")).await, Err(refused));
    assert!(reader.present(record(&key, 1)).await.is_err());
    eventually::members(&[&reader], 2).await;
    assert!(nodes.iter().all(|node| node.metrics().routing_peers == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn announcing_before_anybody_is_there_reaches_those_who_come() {
    let first = start(server(&[])).await;
    let cid = Cid::of(b"announced into the void");
    first.announce(cid).await.expect("nobody to wait for");
    let bootstrap = [address(&first).await];
    let second = start(server(&bootstrap)).await;
    let third = start(server(&bootstrap)).await;
    for node in [&second, &third] {
        eventually::figures(node, "it keeps the record", |m| m.providers == 1).await;
    }
}
