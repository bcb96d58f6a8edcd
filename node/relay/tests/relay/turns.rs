// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients take turns, for permits, memory and bandwidth, and limits change while they do.

use std::time::Duration;

use supernode_client::Keypair;
use supernode_protocol::ids::ShardId;
use supernode_protocol::tree::proof_len;
use supernode_protocol::wire::{ErrorCode, Request, Response};
use supernode_relay::Reason;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::eventually::pass;
use crate::raw::{Raw, message};
use crate::setup::{Setup, bytes_of, client, eventually, id_of, put_of};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_request_that_finds_no_permit_waits_for_its_turn() {
    let setup = Setup::with(|config| {
        config.requests_max = 1;
        config.queue_wait_ms = 60_000;
    });
    let peer = setup.peer();
    let (one, two) = (setup.writer(), setup.stranger());
    setup.backend.is_held.send_replace(true);
    let meanwhile = async {
        setup.backend.inside(1).await;
        eventually("one waits", || setup.relay.metrics().requests_waiting == 1).await;
        // Longer than the timer's own grain, which no wait at all would take as well.
        pass(Duration::from_millis(100)).await;
        setup.backend.is_held.send_replace(false);
    };
    let (first, second, ()) = tokio::join!(one.status(&peer), two.status(&peer), meanwhile);
    first.expect("served");
    second.expect("served in its turn");
    assert_eq!(setup.relay.metrics().requests_waiting, 0);
}

#[tokio::test]
async fn a_hog_with_hundreds_of_requests_in_line_delays_others_by_one_turn() {
    const HOGGED: usize = 300;
    let hog_keys: Vec<Keypair> = vec![Keypair::generate_ed25519()];
    let honest_keys: Vec<Keypair> = (0..5).map(|_| Keypair::generate_ed25519()).collect();
    let setup = Setup::with(|config| {
        config.requests_max = 1;
        config.queue_wait_ms = 60_000;
        config.streams_per_connection_max = 256;
        config.connections_per_client_max = 16;
        config.class.relay.requests_max = 256;
        config.members.relay = hog_keys.iter().chain(&honest_keys).map(id_of).collect();
    });
    let hog = &hog_keys[0];
    let blocker = Raw::greeted(&setup, &setup.writer_key).await;
    let whole = message(&Request::Leases { after: None }, &[]);
    let mut connections = Vec::new();
    setup.backend.is_held.send_replace(true);
    let held = blocker.open_whole(&message(&Request::Status, &[])).await;
    setup.backend.inside(1).await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let raw = Raw::greeted(&setup, hog).await;
        for _ in 0..HOGGED / 2 {
            streams.push(raw.open_whole(&whole).await);
        }
        connections.push(raw);
    }
    let waiting = || usize::try_from(setup.relay.metrics().requests_waiting).expect("few");
    eventually("the hog is in line", || waiting() == HOGGED).await;
    for key in &honest_keys {
        let raw = Raw::greeted(&setup, key).await;
        streams.push(raw.open_whole(&whole).await);
        connections.push(raw);
    }
    let honest = honest_keys.len();
    eventually("all are in line", || waiting() == HOGGED + honest).await;
    setup.backend.is_held.send_replace(false);
    let all = || setup.backend.lessees.lock().len() == HOGGED + honest;
    eventually("all are served", all).await;
    let order = setup.backend.lessees.lock().clone();
    let last = order.iter().rposition(|it| *it != id_of(hog)).expect("the honest are in it");
    // One turn of the hog, and one of each other before the last of them.
    assert!(last <= honest, "the last honest request came after {last} others: {order:?}");
    drop(held);
}

#[tokio::test]
async fn strangers_of_all_prefixes_together_have_a_share() {
    let setup = Setup::with(|config| {
        config.all_strangers.requests_max = 1;
        config.queue_wait_ms = 50;
    });
    let peer = setup.peer();
    let (one, two) = (setup.stranger_at([127, 1, 1, 1]), setup.stranger_at([127, 2, 2, 2]));
    setup.backend.is_held.send_replace(true);
    let meanwhile = async {
        setup.backend.inside(1).await;
        let error = two.status(&peer).await.expect_err("the strangers' only permit is taken");
        assert_eq!(error.code(), Some(ErrorCode::Busy), "{error}");
        setup.writer().members(&peer, None).await.expect("others are not touched");
        setup.backend.is_held.send_replace(false);
    };
    let (first, ()) = tokio::join!(one.status(&peer), meanwhile);
    first.expect("served");
    assert_eq!(setup.relay.metrics().rejected(Reason::StrangersBusy), 1);
    two.status(&peer).await.expect("there is room again");
}

#[tokio::test]
async fn a_full_line_is_busy_at_once() {
    let setup = Setup::with(|config| {
        config.requests_max = 1;
        config.queue_total_max = 1;
        config.queue_wait_ms = 60_000;
    });
    let peer = setup.peer();
    let (one, two, three) = (setup.writer(), setup.stranger(), setup.stranger());
    setup.backend.is_held.send_replace(true);
    let meanwhile = async {
        eventually("one waits", || setup.relay.metrics().requests_waiting == 1).await;
        let error = timeout(SOON, three.status(&peer)).await.expect("at once");
        let error = error.expect_err("no place in line");
        assert_eq!(error.code(), Some(ErrorCode::Busy), "{error}");
        assert!(error.retry_after().is_some(), "{error}");
        setup.backend.is_held.send_replace(false);
    };
    let (first, second, ()) = tokio::join!(one.status(&peer), two.status(&peer), meanwhile);
    first.and(second).expect("served in turn");
    assert_eq!(setup.relay.metrics().rejected(Reason::QueueFull), 1);
}

#[tokio::test]
async fn a_reader_that_does_not_read_pins_its_share_of_the_memory_and_no_more() {
    let setup = Setup::with(|config| {
        config.class.gateway.in_flight_bytes_max = 3 * MIB;
        config.progress_grace_ms = 60_000;
        config.request_timeout_ms = 60_000;
    });
    let bytes = bytes_of(48 << 20);
    let shard = ShardId::of(&bytes);
    setup.backend.content.lock().shards.insert(shard, bytes);
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let whole = message(&Request::GetShard { shard, range: None }, &[]);
    let mut streams = Vec::new();
    for _ in 0..6 {
        streams.push(raw.open_whole(&whole).await);
    }
    let in_flight = || setup.relay.metrics().body_bytes_in_flight;
    // Its windows are 4 MiB a stream and 16 MiB in all: what does not fit in there stays here.
    eventually("its share is used", || in_flight() == 3 * MIB).await;
    eventually("the rest waits", || setup.relay.metrics().budget_waiting > 0).await;
    let other = setup.stranger();
    let small = bytes_of(100_000);
    setup.backend.content.lock().shards.insert(ShardId::of(&small), small.clone());
    let got = other.shard(&setup.peer(), ShardId::of(&small), 100_000).await;
    assert_eq!(got.expect("others have theirs"), small);
    assert!(in_flight() <= 3 * MIB + 100_000, "{}", in_flight());
    drop((streams, raw));
    eventually("all of it is back", || in_flight() == 0).await;
    eventually("nobody waits", || setup.relay.metrics().budget_waiting == 0).await;
}

#[tokio::test]
async fn a_put_that_finds_no_memory_is_busy() {
    let setup = Setup::with(|config| {
        config.body_bytes_in_flight_max = MIB;
        config.queue_wait_ms = 50;
    });
    let peer = setup.peer();
    let bytes = bytes_of(100_000);
    let put = put_of(&bytes);
    let request =
        Request::PutShard { upload: put.upload, slot: put.slot, shard: put.shard, len: 60 * MIB };
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    // It holds what it announced, alone, until it ends.
    let (mut send, _recv) = raw.open(&message(&request, &bytes)).await;
    let in_flight = || setup.relay.metrics().body_bytes_in_flight;
    eventually("it holds its memory", || in_flight() == 60 * MIB).await;
    let error = setup.writer().put_shard(&peer, put.clone()).await.expect_err("no memory");
    assert_eq!(error.code(), Some(ErrorCode::Busy), "{error}");
    assert_eq!(setup.relay.metrics().rejected(Reason::Budget), 1);
    send.reset(1_u32.into()).expect("an open stream");
    eventually("it is back", || in_flight() == 0).await;
    setup.writer().put_shard(&peer, put).await.expect("there is memory again");
}

#[tokio::test]
async fn a_body_longer_than_the_burst_is_slowed_and_not_refused() {
    let setup = Setup::with(|config| {
        config.class.gateway.burst_bytes = 8 * MIB;
        config.class.gateway.bytes_per_sec = MIB;
        config.progress_grace_ms = 5_000;
    });
    let (client, peer) = (setup.writer(), setup.peer());
    let bytes = bytes_of(11 << 20);
    client.put_shard(&peer, put_of(&bytes)).await.expect("slowed");
    let metrics = setup.relay.metrics();
    // What is longer than the bucket takes three seconds, less what the bucket took.
    assert!(metrics.paced > Duration::from_millis(100), "{:?}", metrics.paced);
    assert_eq!(metrics.body_bytes_received, 11 * MIB);
    let error = client.shard(&peer, ShardId::of(&bytes), 11 << 20).await.expect_err("too soon");
    let wait = error.retry_after().expect("busy says when");
    assert!(wait <= Duration::from_secs(8), "until the first burst is there: {wait:?}");
}

#[tokio::test]
async fn the_nodes_own_rate_is_shared_by_all_and_cuts_nobody() {
    let setup = Setup::with(|config| {
        config.egress_bytes_per_sec_max = 8 * MIB;
        config.ingress_bytes_per_sec_max = 16 * MIB;
        config.progress_grace_ms = 5_000;
    });
    let bytes = bytes_of(2 << 20);
    let shard = ShardId::of(&bytes);
    setup.writer().put_shard(&setup.peer(), put_of(&bytes)).await.expect("a put");
    let mut reads = JoinSet::new();
    for net in 1..=4 {
        let (reader, peer) = (setup.stranger_at([127, 3, net, 1]), setup.peer());
        reads.spawn(async move { reader.shard(&peer, shard, 2 << 20).await });
    }
    while let Some(read) = reads.join_next().await {
        assert_eq!(read.expect("no panic").expect("slowed, and served"), bytes);
    }
    let metrics = setup.relay.metrics();
    let proof_bytes = proof_len(2 * MIB, 0..2 * MIB).expect("within the shard");
    let sent = 4 * (2 * MIB + proof_bytes);
    assert_eq!((metrics.body_bytes_sent, metrics.link_waiting), (sent, 0));
    assert!(metrics.paced > Duration::from_millis(300), "{:?}", metrics.paced);
}

#[tokio::test]
async fn limits_change_while_requests_wait() {
    let setup = Setup::with(|config| {
        config.requests_max = 1;
        config.queue_wait_ms = 60_000;
    });
    let peer = setup.peer();
    let (one, two) = (setup.writer(), setup.stranger());
    setup.backend.is_held.send_replace(true);
    let meanwhile = async {
        eventually("one waits", || setup.relay.metrics().requests_waiting == 1).await;
        let mut limits = setup.relay.limits();
        limits.requests_max = 0;
        let error = setup.relay.set_limits(&limits).expect_err("out of range");
        assert_eq!(error.setting, "requests_max");
        limits.requests_max = 2;
        limits.network = "other".to_owned();
        limits.class.stranger.requests_per_sec = 1;
        limits.class.stranger.requests_burst = 1;
        setup.relay.set_limits(&limits).expect("in range");
        setup.backend.inside(2).await;
        setup.backend.is_held.send_replace(false);
    };
    let (first, second, ()) = tokio::join!(one.status(&peer), two.status(&peer), meanwhile);
    first.and(second).expect("served");
    let limits = setup.relay.limits();
    assert_eq!((limits.requests_max, limits.network.as_str()), (2, crate::setup::NETWORK));
    two.status(&peer).await.expect("the bucket is a new one");
    let error = two.status(&peer).await.expect_err("one a second now");
    assert_eq!(error.code(), Some(ErrorCode::Busy), "{error}");
}

#[tokio::test]
async fn connections_of_one_client_are_counted() {
    let setup = Setup::with(|config| config.connections_per_client_max = 1);
    let key = Keypair::generate_ed25519();
    let first = Raw::greeted(&setup, &key).await;
    let second = Raw::connect(&setup, &key).await;
    let response = second.ask(&crate::raw::hello(crate::setup::NETWORK), &[]).await;
    let Response::Error(error) = &response else { panic!("{response:?}") };
    assert_eq!(error.code, ErrorCode::Busy, "{error}");
    assert!(error.retry_after_ms.is_some(), "{error}");
    assert_eq!(setup.relay.metrics().rejected(Reason::ClientConnections), 1);
    setup.stranger().status(&setup.peer()).await.expect("another client");
    drop(first);
    eventually("its place is free", || setup.relay.metrics().connections <= 1).await;
    Raw::greeted(&setup, &key).await;
}

#[tokio::test]
async fn too_many_handshakes_a_second_prove_their_address_and_are_then_refused() {
    let setup = Setup::with(|config| {
        config.handshakes_per_prefix_per_sec = 1;
        config.connections_per_prefix_max = 1000;
    });
    let refused = async {
        loop {
            let client = client(&Keypair::generate_ed25519(), |_| {});
            if client.status(&setup.peer()).await.is_err() {
                return;
            }
        }
    };
    timeout(SOON, refused).await.expect("faster than one a second");
    let metrics = setup.relay.metrics();
    assert!(metrics.rejected(Reason::HandshakeRate) > 0, "{metrics:?}");
    assert!(metrics.retries_total > 0, "{metrics:?}");
    let elsewhere = setup.stranger_at([127, 9, 9, 9]);
    elsewhere.status(&setup.peer()).await.expect("another prefix has a bucket of its own");
    pass(Duration::from_millis(1100)).await;
    setup.stranger().status(&setup.peer()).await.expect("a second later");
}
