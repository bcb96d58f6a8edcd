// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ends and beginnings that fail.

use libp2p::identity::Keypair;
use supernode_dht::{Dht, DhtConfig, DhtError};
use supernode_protocol::ids::Cid;

use crate::network::{address, server, start};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_stop_every_call_says_so_and_the_port_is_free() {
    let node = start(server(&[])).await;
    let listen = address(&node).await;
    let other = node.clone();
    node.stop().await;
    node.stop().await;
    other.stopped().await;
    assert_eq!(other.announce(Cid::of(b"x")).await, Err(DhtError::Stopped));
    assert_eq!(other.manifest(Cid::of(b"x")).await, Err(DhtError::Stopped));
    assert_eq!(other.listen_addresses().await, Err(DhtError::Stopped));
    let (bound, _) = listen.split_once("/p2p/").expect("it names the peer");
    let config = DhtConfig { listen: vec![bound.into()], ..server(&[]) };
    Dht::start(config, Keypair::generate_ed25519()).await.expect("the port is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_an_error_that_names_it() {
    let node = start(server(&[])).await;
    let listen = address(&node).await;
    let (bound, _) = listen.split_once("/p2p/").expect("it names the peer");
    let config = DhtConfig { listen: vec![bound.into()], ..server(&[]) };
    let error = Dht::start(config, Keypair::generate_ed25519()).await.expect_err("taken");
    assert!(matches!(&error, DhtError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(bound), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusable_settings_are_refused_before_anything_starts() {
    let config = DhtConfig { bootstrap: vec!["nowhere".into()], ..server(&[]) };
    let error = Dht::start(config, Keypair::generate_ed25519()).await.expect_err("no address");
    assert!(error.to_string().contains("bootstrap"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_takes_the_actor_with_it() {
    let node = start(server(&[])).await;
    let figures = node.watch_metrics();
    drop(node);
    let mut figures = figures;
    let ended = async { while figures.changed().await.is_ok() {} };
    tokio::time::timeout(crate::eventually::PATIENCE, ended).await.expect("it ends");
}
