// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes of two networks on one machine stay apart even if they are pointed at each other.

use libp2p::identity::Keypair;
use supernode_dht::{Dht, DhtConfig};
use supernode_protocol::ids::Cid;

use crate::eventually;
use crate::network::{address, client, network, server, start};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_network_is_turned_away() {
    let ours = network(2).await;
    let cid = Cid::of(b"ours");
    ours[0].announce(cid).await.expect("a server");

    let bootstrap = [address(&ours[0]).await];
    let stranger = start(DhtConfig { network: "elsewhere".into(), ..server(&bootstrap) }).await;
    // Whoever hears of the other first hangs up; the other may not even learn why.
    tokio::select! {
        () = eventually::figures(&ours[0], "turned away", |m| m.other_network_total > 0) => {}
        () = eventually::figures(&stranger, "turned away", |m| m.other_network_total > 0) => {}
    }
    assert!(!stranger.ready());
    assert_eq!((stranger.metrics().routing_peers, stranger.members().len()), (0, 1));
    assert_eq!((ours[0].metrics().routing_peers, ours[0].members().len()), (1, 2));

    let config =
        DhtConfig { network: "elsewhere".into(), query_timeout_secs: 1, ..client(&bootstrap) };
    let reader = Dht::start(config, Keypair::generate_ed25519()).await.expect("a client");
    let error = reader.providers(cid).await.expect_err("nobody of its network");
    assert!(error.to_string().contains("network name"), "{error}");
}
