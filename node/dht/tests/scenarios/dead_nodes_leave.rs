// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that dies leaves the member tables; one that comes back enters them again.

use libp2p::identity::Keypair;
use supernode_dht::{Dht, DhtConfig};
use supernode_protocol::ids::Cid;
use tokio::runtime::Runtime;

use crate::eventually;
use crate::network::{address, free_port, network, record, server, start, start_as};

/// A node with a runtime of its own: shutting the runtime down is as sudden as a kill.
fn on_its_own(config: DhtConfig, key: Keypair) -> (Runtime, Dht) {
    std::thread::spawn(move || {
        let runtime = Runtime::new().expect("threads");
        let dht = runtime.block_on(start_as(config, key));
        (runtime, dht)
    })
    .join()
    .expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_provider_disappears_from_the_members() {
    let nodes = network(3).await;
    let bootstrap = [address(&nodes[0]).await];
    let (runtime, victim) = on_its_own(server(&bootstrap), Keypair::generate_ed25519());
    let all: Vec<_> = nodes.iter().collect();
    eventually::members(&all, 4).await;
    let cid = Cid::of(b"held by two");
    victim.announce(cid).await.expect("a server");
    nodes[1].announce(cid).await.expect("a server");

    runtime.shutdown_background();
    eventually::members(&all, 3).await;
    let gone = victim.local();
    assert!(nodes.iter().all(|n| n.members().iter().all(|m| m.body_unverified().node != gone)));
    assert_eq!(victim.announce(cid).await, Err(supernode_dht::DhtError::Stopped));

    // Its provider records outlive it, so the living come first.
    let found = nodes[2].providers(cid).await.expect("ready");
    assert_eq!(found.first(), Some(&nodes[1].local()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_enters_again_with_its_new_record() {
    let nodes = network(3).await;
    let bootstrap = [address(&nodes[0]).await];
    let key = Keypair::generate_ed25519();
    let config = DhtConfig {
        listen: vec![format!("/ip4/127.0.0.1/tcp/{}", free_port())],
        ..server(&bootstrap)
    };
    let (runtime, _before) = on_its_own(config.clone(), key.clone());
    let all: Vec<_> = nodes.iter().collect();
    eventually::members(&all, 4).await;
    runtime.shutdown_background();
    eventually::members(&all, 3).await;

    let back = Dht::start(config, key.clone()).await.expect("its old port");
    back.present(record(&key, 7)).await.expect("a higher sequence");
    eventually::members(&all, 4).await;
    for node in &nodes {
        let seen = node.node(back.local()).await.expect("ready").expect("a member");
        assert_eq!(seen.body_unverified().sequence, 7);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_in_good_order_leaves_as_well() {
    let nodes = network(4).await;
    nodes[3].stop().await;
    eventually::members(&[&nodes[0], &nodes[1], &nodes[2]], 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network_outlives_its_bootstrap_node() {
    let nodes = network(4).await;
    nodes[0].stop().await;
    eventually::members(&[&nodes[1], &nodes[2], &nodes[3]], 3).await;
    let late = start(server(&[address(&nodes[1]).await])).await;
    eventually::members(&[&nodes[1], &nodes[2], &nodes[3], &late], 4).await;
}
