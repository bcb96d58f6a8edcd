// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the client remembers of nodes, and how that changes whom it asks.

use std::time::Duration;

use supernode_client::{Client, Keypair, Peer};
use tokio::time::timeout;

use crate::node::{Node, SOON, Shard, client, client_with, honest, id_of, loopback};

/// A node nobody runs, at an address where nobody answers.
fn dead() -> (std::net::UdpSocket, Peer) {
    let silent = std::net::UdpSocket::bind(loopback()).expect("a free port");
    let addresses = vec![silent.local_addr().expect("bound")];
    (silent, Peer { node: id_of(&Keypair::generate_ed25519()), addresses })
}

fn hasty() -> Client {
    client_with(|config| config.connect_timeout = Duration::from_millis(600))
}

/// A handshake that is in time, if not the first then another.
async fn connect(client: &Client, node: &Node) {
    let connected = async { while client.connect(&node.peer).await.is_err() {} };
    timeout(SOON, connected).await.expect("some time");
}

#[tokio::test]
async fn what_was_served_is_measured() {
    let shard = Shard::new("healthy", 500_000);
    let node = honest(&shard);
    let client = client();
    assert_eq!(client.health(node.peer.node), supernode_client::Health::default());
    for _ in 0..8 {
        client.shard(&node.peer, shard.id, shard.len()).await.expect("served");
    }
    let health = client.health(node.peer.node);
    assert!(health.first_byte.is_some() && health.bytes_per_sec.is_some(), "{health:?}");
    assert!(health.first_byte_p95.is_some(), "eight are enough");
    assert!(health.avoided_for.is_zero() && health.busy_for.is_zero());
    let statistics = client.statistics();
    assert_eq!((statistics.requests, statistics.connections_opened), (8, 1));
    assert!(statistics.body_bytes_received >= 8 * shard.len());
    assert_eq!((statistics.retries, statistics.lies, statistics.hedges), (0, 0, 0));
}

#[tokio::test]
async fn a_node_that_failed_is_asked_last_but_asked_if_it_is_the_only_one() {
    let shard = Shard::new("healthy", 500_000);
    let good = honest(&shard);
    let (_silent, dead) = dead();
    let client = hasty();
    connect(&client, &good).await;
    let dials = 5;
    for round in 1..=dials {
        client.shard(&dead, shard.id, shard.len()).await.expect_err("nobody is there");
        let health = client.health(dead.node);
        assert_eq!(health.failures_in_a_row, round, "it was dialled although it failed");
        assert!(!health.avoided_for.is_zero());
    }
    let holders = [dead.clone(), good.peer.clone()];
    let reader = client.read_shard(&holders, shard.wanted()).expect("a read");
    assert_eq!(reader.rest().await.expect("the good one"), shard.bytes);
    assert_eq!(client.health(dead.node).failures_in_a_row, dials, "it was not even dialled");
    assert_eq!(client.warm(&holders).await, 1);
    assert_eq!(client.health(dead.node).failures_in_a_row, dials, "nor ahead of need");
}

#[tokio::test]
async fn warmed_nodes_are_connected_before_they_are_needed() {
    let shard = Shard::new("healthy", 100);
    let nodes: Vec<Node> = (0..5).map(|_| honest(&shard)).collect();
    let (_silent, dead) = dead();
    let mut peers: Vec<Peer> = nodes.iter().map(|node| node.peer.clone()).collect();
    peers.push(dead);
    let client = client_with(|config| config.connect_timeout = Duration::from_secs(3));
    assert_eq!(client.warm(&peers).await, 5);
    assert_eq!(client.connection_count(), 5);
    for node in &nodes {
        client.shard(&node.peer, shard.id, shard.len()).await.expect("served");
        assert_eq!(node.hellos.lock().len(), 1);
    }
    assert_eq!(client.statistics().connections_opened, 5);
    assert_eq!(client.warm(&[]).await, 0);
}
