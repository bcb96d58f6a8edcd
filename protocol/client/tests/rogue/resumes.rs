// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transfers that are cut go on from the last verified byte, there or elsewhere, and not for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::VarInt;
use supernode_client::{ClientError, ShardReader};
use supernode_protocol::wire::ErrorCode;
use supernode_tls::codes::CloseCode;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use crate::node::{
    Ask, GROUP, NETWORK, Node, SOON, Shard, client, client_with, frame, honest, node, node_at,
    record_of, welcome,
};

const LEN: usize = 30 * 16_384 + 5;
/// Groups that a reader hands out at a time.
const BATCH: u64 = 8;

/// How a node breaks off.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Connection,
    Stream,
    Silence,
}

/// Sends a batch and a half of groups, and breaks off when told.
async fn break_off(mut ask: Ask, shard: Shard, cut: Cut, told: Arc<Notify>) {
    let bytes = shard.answer(ask.range()).first(BATCH * GROUP + GROUP + GROUP / 2);
    ask.write(bytes).await;
    told.notified().await;
    match cut {
        Cut::Connection => ask.connection.close(CloseCode::Stopping.to_varint(), b""),
        Cut::Stream => {
            let _ = ask.send.reset(VarInt::from_u32(77));
        }
        Cut::Silence => {
            ask.given_up().await;
        }
    }
}

/// Breaks off the first answer and gives all others as it should.
fn breaking(shard: &Shard, cut: Cut, told: &Arc<Notify>) -> Node {
    let (shard, told) = (shard.clone(), Arc::clone(told));
    node(move |mut ask| {
        let (shard, told) = (shard.clone(), Arc::clone(&told));
        async move {
            if ask.number == 0 {
                return break_off(ask, shard, cut, told).await;
            }
            ask.write(shard.answer(ask.range()).to_bytes()).await;
            ask.end().await;
        }
    })
}

async fn read_through(reader: &mut ShardReader, told: &Notify) -> Bytes {
    let mut got = BytesMut::new();
    while let Some(bytes) = reader.next().await.expect("it goes on") {
        got.extend_from_slice(&bytes);
        told.notify_one();
    }
    got.freeze()
}

fn is_where_it_was_cut(offset: u64) -> bool {
    // What was on its way when it was cut may be lost, but what was handed out is not.
    [BATCH * GROUP, (BATCH + 1) * GROUP].contains(&offset)
}

#[tokio::test]
async fn a_transfer_that_is_cut_goes_on_at_the_same_node() {
    let shard = Shard::new("resumed", LEN);
    for cut in [Cut::Connection, Cut::Stream, Cut::Silence] {
        let told = Arc::new(Notify::new());
        let node = breaking(&shard, cut, &told);
        // Only silence has to be waited for.
        let client = match cut {
            Cut::Connection | Cut::Stream => client(),
            Cut::Silence => client_with(|config| config.request_timeout = Duration::from_secs(1)),
        };
        let holders = [node.peer.clone()];
        let mut reader = client.read_shard(&holders, shard.wanted()).expect("a read");
        assert_eq!(read_through(&mut reader, &told).await, shard.bytes, "{cut:?}");
        let offsets = node.offsets();
        assert!(offsets.len() == 2 && is_where_it_was_cut(offsets[1]), "{cut:?}: {offsets:?}");
        let statistics = client.statistics();
        assert_eq!((statistics.resumes, statistics.lies), (1, 0), "{cut:?}");
        let opened = if matches!(cut, Cut::Connection) { 2 } else { 1 };
        assert_eq!(statistics.connections_opened, opened, "{cut:?}");
        // The unverified half of a group, two proofs, and nothing else twice.
        let proofs = 2 * 31 * 64;
        assert!(statistics.body_bytes_received <= shard.len() + proofs + 2 * GROUP, "{cut:?}");
    }
}

#[tokio::test]
async fn a_transfer_goes_on_at_another_holder_when_its_node_dies() {
    let shard = Shard::new("resumed", LEN);
    let told = Arc::new(Notify::new());
    let (dying, other) = (breaking(&shard, Cut::Connection, &told), honest(&shard));
    let client = client();
    let holders = [dying.peer.clone(), other.peer.clone()];
    let mut reader = client.read_shard(&holders, shard.wanted()).expect("a read");
    assert_eq!(read_through(&mut reader, &told).await, shard.bytes);
    assert_eq!(dying.offsets(), [0]);
    assert!(other.offsets().len() == 1 && is_where_it_was_cut(other.offsets()[0]));
    assert_eq!(client.statistics().connections_lost, 1);
}

#[tokio::test]
async fn a_node_that_always_breaks_off_is_given_up_after_a_bounded_number_of_times() {
    let shard = Shard::new("resumed", LEN);
    let served = shard.clone();
    let stingy = node(move |mut ask| {
        let bytes = served.answer(ask.range()).first(GROUP);
        async move {
            ask.write(bytes).await;
            // Sent in full before it is cut, so that every answer gets the client further.
            ask.given_up().await;
        }
    });
    let client = client_with(|config| {
        config.request_timeout = Duration::from_secs(1);
        config.resumes_max = 3;
    });
    let read = client.shard(&stingy.peer, shard.id, shard.len()).await;
    let error = read.expect_err("it never sends more than a group");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert!(error.retryable());
    assert_eq!(stingy.offsets(), [0, GROUP, 2 * GROUP, 3 * GROUP]);
    assert_eq!(client.statistics().resumes, 3);
}

#[tokio::test]
async fn a_node_that_gives_nothing_is_asked_once() {
    let shard = Shard::new("resumed", LEN);
    let barren = node(|ask| async move { ask.say_error(ErrorCode::Unavailable, None).await });
    let good = honest(&shard);
    let client = client();
    let error = client.shard(&barren.peer, shard.id, shard.len()).await.expect_err("nothing");
    assert_eq!(error.code(), Some(ErrorCode::Unavailable));
    assert_eq!(barren.requests.lock().len(), 1);
    let holders = [barren.peer.clone(), good.peer.clone()];
    let reader = client.read_shard(&holders, shard.wanted()).expect("a read");
    assert_eq!(reader.rest().await.expect("the other one"), shard.bytes);
    assert_eq!(client.statistics().resumes, 0, "nothing had begun");
}

#[tokio::test]
async fn a_dropped_future_loses_no_byte() {
    let shard = Shard::new("resumed", LEN);
    // Enough for the first batch, which proves that the answer has begun.
    let told = Arc::new(Semaphore::new(6));
    let (served, gate) = (shard.clone(), Arc::clone(&told));
    let slow = node(move |mut ask| {
        let (answer, gate) = (served.answer(ask.range()), Arc::clone(&gate));
        async move {
            let all = answer.to_bytes();
            for piece in all.chunks(GROUP_AND_A_HALF) {
                ask.write(Bytes::copy_from_slice(piece)).await;
                gate.acquire().await.expect("never closed").forget();
            }
            ask.end().await;
        }
    });
    let client = client();
    let holders = [slow.peer.clone()];
    let mut reader = client.read_shard(&holders, shard.wanted()).expect("a read");
    let first = timeout(SOON, reader.next()).await.expect("soon").expect("served");
    let mut got = BytesMut::from(&first.expect("a batch")[..]);
    let everything = async {
        loop {
            // Most of these are dropped in the middle of a group.
            match timeout(Duration::from_millis(5), reader.next()).await {
                Ok(Ok(Some(bytes))) => got.extend_from_slice(&bytes),
                Ok(Ok(None)) => break,
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => told.add_permits(1),
            }
        }
    };
    timeout(SOON, everything).await.expect("it goes on");
    assert_eq!(got, shard.bytes);
    assert_eq!(slow.offsets(), [0], "nothing was asked for twice");
}

const GROUP_AND_A_HALF: usize = 24_576;

#[tokio::test]
async fn a_reader_that_is_dropped_releases_its_stream_on_both_sides() {
    let shard = Shard::new("dropped", LEN);
    let released = Arc::new(Notify::new());
    let (served, tell) = (shard.clone(), Arc::clone(&released));
    let node = node(move |mut ask| {
        let (bytes, tell) = (served.answer(ask.range()).first(10 * GROUP), Arc::clone(&tell));
        async move {
            ask.write(bytes).await;
            assert_eq!(ask.given_up().await, Some(CloseCode::Cancelled.to_varint()));
            tell.notify_one();
        }
    });
    let client = client_with(|config| config.streams_per_connection_max = 1);
    for _ in 0..3 {
        // With one stream, a leak would block the next round.
        let holders = [node.peer.clone()];
        let mut reader = client.read_shard(&holders, shard.wanted()).expect("a read");
        let first = timeout(SOON, reader.next()).await.expect("soon").expect("served");
        assert_eq!(first.expect("a batch"), shard.bytes[..131_072]);
        drop(reader);
        timeout(SOON, released.notified()).await.expect("the node sees the stream end");
    }
}

#[tokio::test]
async fn a_node_that_restarts_under_a_pooled_client_serves_on() {
    let shard = Shard::new("restart", LEN);
    let first = honest(&shard);
    let (key, peer) = (first.key.clone(), first.peer.clone());
    let client = client();
    assert_eq!(client.shard(&peer, shard.id, shard.len()).await.expect("before"), shard.bytes);
    first.endpoint.close(CloseCode::Stopping.to_varint(), b"");
    first.endpoint.wait_idle().await;
    drop(first);
    let hello = frame(&welcome(record_of(&key, NETWORK), 64));
    let reborn = async {
        loop {
            let shard = shard.clone();
            let answer = move |mut ask: Ask| {
                let answer = shard.answer(ask.range());
                async move {
                    ask.write(answer.to_bytes()).await;
                    ask.end().await;
                }
            };
            // The old socket is closed by a task of its own.
            match node_at(&key, peer.addresses[0], hello.clone(), answer) {
                Ok(node) => return node,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let reborn = timeout(SOON, reborn).await.expect("the port gets free");
    assert_eq!(client.shard(&peer, shard.id, shard.len()).await.expect("after"), shard.bytes);
    assert_eq!(reborn.offsets(), [0]);
    assert_eq!(client.connection_count(), 1);
}
