// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes for the scenarios.

use std::net::{Ipv4Addr, TcpListener};

use libp2p::identity::Keypair;
use supernode_dht::{Dht, DhtConfig, Mode};
use supernode_protocol::ids::NodeId;
use supernode_protocol::node_record::NodeRecord;

use crate::eventually::{self, PATIENCE};

pub(crate) const NETWORK: &str = "scenario";

/// A server on a free port that asks `bootstrap` first.
pub(crate) fn server(bootstrap: &[String]) -> DhtConfig {
    DhtConfig {
        network: NETWORK.into(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
        bootstrap: bootstrap.to_vec(),
        mode: Mode::Server,
        allow_private_addresses: true,
        ..DhtConfig::default()
    }
}

pub(crate) fn client(bootstrap: &[String]) -> DhtConfig {
    DhtConfig { listen: vec![], mode: Mode::Client, ..server(bootstrap) }
}

/// What the node `key` says of itself.
pub(crate) fn record(key: &Keypair, sequence: u64) -> NodeRecord {
    NodeRecord {
        node: NodeId::from_public(&key.public()).expect("an Ed25519 key"),
        sequence,
        network: NETWORK.into(),
        region: "EU-WEST".into(),
        capacity_bytes: 1 << 30,
        quic: vec![(Ipv4Addr::LOCALHOST, 9002).into()],
        libp2p: vec![],
    }
}

/// Starts a node with this identity that presents itself.
pub(crate) async fn start_as(config: DhtConfig, key: Keypair) -> Dht {
    let network = config.network.clone();
    let dht = Dht::start(config, key.clone()).await.expect("a free port");
    let libp2p = dht.listen_addresses().await.expect("it runs");
    let presented = NodeRecord { network, libp2p, ..record(&key, 1) };
    dht.present(presented).await.expect("a first record");
    dht
}

pub(crate) async fn start(config: DhtConfig) -> Dht {
    start_as(config, Keypair::generate_ed25519()).await
}

/// Where others reach it.
pub(crate) async fn address(dht: &Dht) -> String {
    let all = dht.listen_addresses().await.expect("it runs");
    all.into_iter().next().expect("it listens")
}

/// `count` nodes that know each other; the first is the others' bootstrap.
pub(crate) async fn network(count: usize) -> Vec<Dht> {
    let mut nodes = vec![start(server(&[])).await];
    let bootstrap = [address(&nodes[0]).await];
    for _ in 1..count {
        nodes.push(start(server(&bootstrap)).await);
    }
    let all: Vec<_> = nodes.iter().collect();
    eventually::members(&all, count).await;
    nodes
}

pub(crate) async fn start_client(bootstrap: &Dht) -> Dht {
    let bootstrap = [address(bootstrap).await];
    let dht = Dht::start(client(&bootstrap), Keypair::generate_ed25519()).await.expect("a client");
    dht.wait_ready(PATIENCE).await.expect("its bootstrap peer answers");
    dht
}

/// A port that is free now: for nodes whose address must be known before they start.
pub(crate) fn free_port() -> u16 {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("bound").port()
}
