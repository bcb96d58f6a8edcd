// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a client is told at its start: settings are checked, and a capability is shown in every
//! hello.

use supernode_client::{Client, ClientConfig, Keypair};
use supernode_protocol::capability::{Capability, ClientClass, Scope};
use supernode_protocol::ids::NodeId;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::{NodeStatus, Request, Response};

use crate::node::{NETWORK, id_of, loopback, node};

fn grant(audience: NodeId, network: &str) -> Signed<Capability> {
    let issuer = Keypair::generate_ed25519();
    let capability = Capability {
        issuer: id_of(&issuer),
        audience,
        network: network.to_owned(),
        class: ClientClass::Relay,
        scope: Scope { read: true, write: false },
        bytes: 1 << 40,
        expires_at: 2_000_000_000,
    };
    Signed::sign(capability, &issuer).expect("own key")
}

#[tokio::test]
async fn a_capability_is_shown_in_every_hello() {
    let status = NodeStatus {
        shard_count: 0,
        slot_count: 0,
        live_bytes: 0,
        capacity_bytes: 0,
        uptime_secs: 0,
    };
    let node = node(move |ask| {
        let status = status.clone();
        async move { ask.say(&Response::Status(status)).await }
    });
    let key = Keypair::generate_ed25519();
    let grant = grant(id_of(&key), NETWORK);
    let mut config = ClientConfig::new(key, NETWORK);
    config.bind = loopback();
    config.capability = Some(grant.clone());
    let client = Client::new(config).expect("its own capability");
    client.status(&node.peer).await.expect("served");
    let hellos = node.hellos.lock().clone();
    let [Request::Hello { capability, .. }] = &hellos[..] else { panic!("{hellos:?}") };
    assert_eq!(capability.as_deref(), Some(&grant.encode()[..]));
}

#[tokio::test]
async fn a_capability_that_no_node_would_take_is_refused_at_the_start() {
    let key = Keypair::generate_ed25519();
    let other = id_of(&Keypair::generate_ed25519());
    let own = id_of(&key);
    let long = "x".repeat(2000);
    for grant in [grant(other, NETWORK), grant(own, "elsewhere"), grant(own, &long)] {
        let mut config = ClientConfig::new(key.clone(), NETWORK);
        config.capability = Some(grant);
        let error = config.validate().expect_err("worth nothing");
        assert_eq!(error.setting, "capability");
    }
}

#[tokio::test]
async fn settings_out_of_range_and_wrong_keys_are_named() {
    let mut config = ClientConfig::new(Keypair::generate_ed25519(), "");
    let error = Client::new(config.clone()).expect_err("no network");
    assert!(error.to_string().contains("network"), "{error}");
    config.network = NETWORK.to_owned();
    config.connections_max = 0;
    let error = Client::new(config).expect_err("no connections");
    assert!(error.to_string().contains("connections_max"), "{error}");
    assert_eq!(error.node(), None);
}
