// SPDX-License-Identifier: MIT OR Apache-2.0
//! Seven nodes that start at the same instant, some bootstrap peers not up yet, find each other.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::future::join_all;
use libp2p::identity::Keypair;
use supernode_dht::DhtConfig;

use crate::eventually;
use crate::network::{free_port, server, start, start_as};

fn fixed(port: u16, bootstrap: &[String]) -> DhtConfig {
    DhtConfig { listen: vec![format!("/ip4/127.0.0.1/tcp/{port}")], ..server(bootstrap) }
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_nodes_that_start_together_all_know_each_other() {
    let identities: Vec<_> = (0..7).map(|_| (Keypair::generate_ed25519(), free_port())).collect();
    let bootstrap: Vec<_> = identities[..2]
        .iter()
        .map(|(key, port)| format!("/ip4/127.0.0.1/tcp/{port}/p2p/{}", key.public().to_peer_id()))
        .collect();
    let begun = Instant::now();
    let starts =
        identities.iter().map(|(key, port)| start_as(fixed(*port, &bootstrap), key.clone()));
    let nodes = join_all(starts).await;
    let all: Vec<_> = nodes.iter().collect();
    eventually::members(&all, 7).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());

    let everybody: BTreeSet<_> = nodes.iter().map(|node| node.local()).collect();
    for node in &nodes {
        let known: BTreeSet<_> =
            node.members().iter().map(|m| m.verify().expect("signed").node).collect();
        assert_eq!(known, everybody);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_wait_for_a_bootstrap_peer_that_comes_up_later() {
    let (key, port) = (Keypair::generate_ed25519(), free_port());
    let peer = key.public().to_peer_id();
    let bootstrap = [format!("/ip4/127.0.0.1/tcp/{port}/p2p/{peer}")];
    let early = [start(server(&bootstrap)).await, start(server(&bootstrap)).await];
    for node in &early {
        let error = node.wait_ready(Duration::from_millis(300)).await.expect_err("nobody is up");
        assert!(error.to_string().contains("bootstrap"), "{error}");
        assert!(!node.ready());
    }
    let seed = start_as(fixed(port, &[]), key).await;
    eventually::members(&[&early[0], &early[1], &seed], 3).await;
    assert!(early.iter().all(supernode_dht::Dht::ready));
}
