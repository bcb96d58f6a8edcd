// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's connections: shared, replaced when dead, and only ever to the node that was meant.

use std::sync::Arc;
use std::time::Duration;

use supernode_client::{ClientError, Keypair, Peer};
use supernode_relay::Relay;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::backend::MemoryBackend;
use crate::eventually::pass;
use crate::proxy::Proxy;
use crate::raw::Raw;
use crate::setup::{Setup, bytes_of, client, config, eventually, loopback, put_of};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_thousand_requests_share_one_dial_and_a_few_streams() {
    let setup = Setup::with(|config| {
        config.streams_per_connection_max = 4;
        config.class.gateway.requests_max = 4;
    });
    let (client, peer) = (setup.writer(), setup.peer());
    let mut requests = JoinSet::new();
    for _ in 0..1000 {
        let (client, peer) = (client.clone(), peer.clone());
        requests.spawn(async move { client.status(&peer).await });
    }
    while let Some(outcome) = requests.join_next().await {
        outcome.expect("no panic").expect("a stream is waited for, never over-drawn");
    }
    let metrics = setup.relay.metrics();
    assert_eq!(metrics.connections_total, 1);
    assert_eq!(metrics.rejected_total.iter().map(|(_, count)| count).sum::<u64>(), 0);
}

#[tokio::test]
async fn a_client_may_open_more_streams_as_it_uses_more() {
    let setup = Setup::new();
    let raw = Raw::connect(&setup, &setup.writer_key).await;
    let mut silent = Vec::new();
    // What is allowed was said in the handshake, so nothing is waited for.
    while let Ok(stream) = timeout(Duration::ZERO, raw.connection.open_bi()).await {
        silent.push(stream.expect("the connection is open"));
    }
    assert_eq!(silent.len(), 4, "each costs the node memory, used or not");

    let raw = Raw::connect(&setup, &setup.writer_key).await.greet().await;
    let mut begun = Vec::new();
    for number in 0..64 {
        let stream = timeout(SOON, raw.open(&[0])).await;
        begun.push(stream.unwrap_or_else(|_| panic!("stream {number} is not allowed")));
    }
}

#[tokio::test]
async fn somebody_else_at_the_address_is_a_bad_peer() {
    let (meant, other) = (Setup::new(), Setup::new());
    let client = meant.writer();
    let peer = Peer { node: meant.peer().node, addresses: other.peer().addresses };
    let error = client.status(&peer).await.expect_err("another node");
    assert!(matches!(error, ClientError::BadPeer { .. }), "{error}");
    assert!(error.to_string().contains(&other.peer().node.to_string()), "{error}");
    assert!(!error.retryable());
    eventually("no connection is kept", || other.relay.metrics().connections == 0).await;
    // One wrong address does not spoil the right one.
    let addresses = [other.peer().addresses, meant.peer().addresses].concat();
    let peer = Peer { node: meant.peer().node, addresses };
    client.status(&peer).await.expect("the second address is right");
}

#[tokio::test]
async fn a_silent_address_does_not_hold_up_the_next() {
    let setup = Setup::new();
    let silent = std::net::UdpSocket::bind(loopback(0)).expect("a free port");
    let mut peer = setup.peer();
    peer.addresses.insert(0, silent.local_addr().expect("bound"));
    let client = client(&setup.writer_key, |config| {
        config.connect_timeout = Duration::from_secs(3600);
        config.request_timeout = Duration::from_secs(3600);
    });
    timeout(SOON, client.status(&peer)).await.expect("long before the time-out").expect("served");
}

#[tokio::test]
async fn a_waiter_with_a_better_address_is_not_failed_by_the_dial_of_another() {
    let setup = Setup::new();
    let silent = std::net::UdpSocket::bind(loopback(0)).expect("a free port");
    let stale =
        Peer { node: setup.peer().node, addresses: vec![silent.local_addr().expect("bound")] };
    let client = client(&setup.writer_key, |config| {
        config.connect_timeout = Duration::from_millis(500);
    });
    let peer = setup.peer();
    let (failed, served) = tokio::join!(client.status(&stale), client.status(&peer));
    assert!(matches!(failed, Err(ClientError::Unreachable { .. })), "{failed:?}");
    served.expect("its own address is tried");
}

#[tokio::test]
async fn a_connection_that_the_node_closed_is_replaced() {
    let setup = Setup::new();
    let (client, peer) = (setup.writer(), setup.peer());
    client.status(&peer).await.expect("the first node");
    let address = setup.relay.local_addr();
    setup.relay.stop(Duration::from_secs(5)).await;
    drop(setup.relay);
    let again = config(&setup.writer_key, |config| config.listen = address);
    let backend = Arc::new(MemoryBackend::new(&setup.node_key));
    let relay =
        start_when_free(|| (again.clone(), setup.node_key.clone(), Arc::clone(&backend))).await;
    client.status(&peer).await.expect("the node that came back");
    assert_eq!(relay.metrics().connections_total, 1);
    assert_eq!(client.connection_count(), 1);
}

/// The old socket is closed by a task of its own; its port is free a moment later.
async fn start_when_free(
    parts: impl Fn() -> (supernode_relay::RelayConfig, Keypair, Arc<MemoryBackend>),
) -> Relay {
    let attempts = async {
        loop {
            let (config, key, backend) = parts();
            match Relay::start(config, &key, backend, CancellationToken::new()) {
                Ok(relay) => return relay,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(SOON, attempts).await.expect("the port gets free")
}

#[tokio::test]
async fn a_node_that_was_killed_and_came_back_is_noticed_without_waiting() {
    let setup = Setup::new();
    let proxy = Proxy::to(setup.relay.local_addr()).await;
    let peer = Peer { node: setup.peer().node, addresses: vec![proxy.address] };
    // Patient enough that only a stateless reset can explain a quick answer.
    let client = client(&setup.writer_key, |config| {
        config.connect_timeout = Duration::from_secs(60);
        config.request_timeout = Duration::from_secs(60);
        config.idle_timeout = Duration::from_secs(60);
    });
    client.status(&peer).await.expect("before");
    // A process with the same identity and no memory of the connection, at the same address.
    let reborn = Arc::new(MemoryBackend::new(&setup.node_key));
    let config = config(&setup.writer_key, |_| {});
    let relay = Relay::start(config, &setup.node_key, reborn, CancellationToken::new())
        .expect("a free port");
    proxy.lead_to(relay.local_addr());
    timeout(SOON, client.status(&peer)).await.expect("no time-out was waited for").expect("after");
    assert_eq!(relay.metrics().connections_total, 1);
}

#[tokio::test]
async fn a_node_that_was_killed_is_given_up_after_the_contact_time() {
    let setup = Setup::new();
    let proxy = Proxy::to(setup.relay.local_addr()).await;
    let peer = Peer { node: setup.peer().node, addresses: vec![proxy.address] };
    let client = client(&setup.writer_key, |config| {
        config.connect_timeout = Duration::from_secs(1);
        config.request_timeout = Duration::from_secs(60);
    });
    client.status(&peer).await.expect("before");
    proxy.drop_requests(true);
    let put = client.put_shard(&peer, put_of(&bytes_of(20 << 20)));
    let (status, put) = timeout(SOON, async { tokio::join!(client.status(&peer), put) })
        .await
        .expect("long before the request's own time-out");
    for error in [status.expect_err("killed"), put.expect_err("killed")] {
        assert!(error.retryable(), "{error}");
    }
    assert_eq!(client.connection_count(), 0);
    proxy.drop_requests(false);
    client.status(&peer).await.expect("the path is back");
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_when_the_request_arrived() {
    let setup = Setup::new();
    let client = client(&setup.writer_key, |config| {
        config.connect_timeout = Duration::from_millis(100);
        config.request_timeout = Duration::from_secs(60);
    });
    let peer = setup.peer();
    let connected = async { while client.connect(&peer).await.is_err() {} };
    timeout(SOON, connected).await.expect("a handshake within 100 ms, some time");
    setup.backend.is_held.send_replace(true);
    let many_contact_times = async {
        setup.backend.inside(1).await;
        pass(Duration::from_secs(1)).await;
        setup.backend.is_held.send_replace(false);
    };
    let (status, ()) = tokio::join!(client.status(&peer), many_contact_times);
    status.expect("a node that acknowledged the request is alive");
    assert_eq!(setup.relay.metrics().connections_total, 1);
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_another_node() {
    let nodes = [Setup::new(), Setup::new(), Setup::new()];
    let client = client(&nodes[0].writer_key, |config| config.connections_max = 2);
    for node in nodes.iter().chain(&nodes) {
        client.status(&node.peer()).await.expect("room is made");
        assert!(client.connection_count() <= 2);
    }
    let open = || nodes.iter().map(|node| node.relay.metrics().connections).sum::<u64>();
    eventually("the nodes see it too", || open() == 2).await;
}

#[tokio::test]
async fn large_packets_work_when_both_ends_allow_them() {
    let setup = Setup::with(|config| config.transport.mtu_bytes_max = 65_527);
    let client = client(&setup.writer_key, |config| config.transport.mtu_bytes_max = 65_527);
    let peer = setup.peer();
    let bytes = bytes_of(8 << 20);
    client.put_shard(&peer, put_of(&bytes)).await.expect("a put");
    let shard = supernode_protocol::ids::ShardId::of(&bytes);
    assert_eq!(client.shard(&peer, shard, 8 << 20).await.expect("a get"), bytes);
}
