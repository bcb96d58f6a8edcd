// SPDX-License-Identifier: MIT OR Apache-2.0
//! Nodes that send bytes that are not the shard's: found in the group they are told in, named,
//! and not asked again.

use bytes::{Bytes, BytesMut};
use supernode_client::{ClientError, ShardReader};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::node::{Answer, Ask, GROUP, Node, SOON, Shard, client, honest, node};

const LEN: usize = 20 * 16_384 + 777;

/// A node whose answers `spoil` changes before they are sent.
fn liar(shard: &Shard, spoil: impl Fn(&mut Answer) + Send + Sync + 'static) -> Node {
    let shard = shard.clone();
    node(move |mut ask: Ask| {
        let mut answer = shard.answer(ask.range());
        spoil(&mut answer);
        async move {
            ask.write(answer.to_bytes()).await;
            ask.end().await;
        }
    })
}

fn flip(bytes: &mut Bytes, position: usize) {
    let mut changed = BytesMut::from(&bytes[..]);
    changed[position] ^= 1;
    *bytes = changed.freeze();
}

/// What a reader hands out before it fails, and how it fails.
async fn until_error(mut reader: ShardReader) -> (Bytes, ClientError) {
    let mut got = BytesMut::new();
    loop {
        match reader.next().await {
            Ok(Some(bytes)) => got.extend_from_slice(&bytes),
            Ok(None) => panic!("{} bytes and no error", got.len()),
            Err(error) => return (got.freeze(), error),
        }
    }
}

#[tokio::test]
async fn a_wrong_byte_is_found_in_its_group_and_all_before_it_is_right() {
    let shard = Shard::new("truth", LEN);
    let client = client();
    for group in [0, 1, 7, 8, 13, 20] {
        let position = usize::try_from(group * GROUP).expect("small") + 5;
        let node = liar(&shard, move |answer| flip(&mut answer.bytes, position));
        let reader =
            client.read_shard(std::slice::from_ref(&node.peer), shard.wanted()).expect("a read");
        let (got, error) = until_error(reader).await;
        assert!(matches!(error, ClientError::Lied { .. }), "{error}");
        assert_eq!(error.node(), Some(node.peer.node));
        assert!(error.to_string().contains(&node.peer.node.to_string()), "{error}");
        assert_eq!(got.len() as u64, group * GROUP, "all groups before the lie, none after");
        assert_eq!(got, shard.bytes[..got.len()]);
        assert_eq!(node.requests.lock().len(), 1, "a liar is not asked again");
    }
    assert_eq!(client.statistics().lies, 6);
}

#[tokio::test]
async fn whole_shards_and_ranges_that_are_not_the_shards_are_refused() {
    let (shard, other) = (Shard::new("truth", LEN), Shard::new("another slot", LEN));
    let client = client();
    type Spoil = Box<dyn Fn(&mut Answer) + Send + Sync>;
    let lies: Vec<(&str, Spoil)> = vec![
        ("wrong proof", Box::new(|answer| flip(&mut answer.proof, 70))),
        ("wrong first proof entry", Box::new(|answer| flip(&mut answer.proof, 0))),
        ("short", Box::new(|answer| answer.bytes.truncate(answer.bytes.len() - 1))),
        ("shifted", Box::new(|answer| answer.bytes = answer.bytes.slice(1..))),
        ("nothing", Box::new(|answer| answer.bytes.clear())),
        ("another slot", Box::new(move |answer| *answer = other.answer(other.whole()))),
    ];
    for (lie, spoil) in lies {
        let node = liar(&shard, spoil);
        let (peer, len) = (&node.peer, shard.len());
        for read in [
            client.shard(peer, shard.id, len).await,
            client.shard_range(peer, shard.id, len, 20_000..len).await,
        ] {
            let error = read.expect_err(lie);
            assert!(matches!(error, ClientError::Lied { .. }), "{lie}: {error}");
            assert_eq!(error.node(), Some(peer.node), "{lie}");
            assert!(!error.retryable());
        }
    }
}

#[tokio::test]
async fn a_node_that_never_stops_sending_is_stopped() {
    let shard = Shard::new("truth", LEN);
    let (stopped, mut was_stopped) = mpsc::channel(1);
    let served = shard.clone();
    let node = node(move |mut ask| {
        let (shard, stopped) = (served.clone(), stopped.clone());
        async move {
            ask.write(shard.answer(ask.range()).to_bytes()).await;
            // More than any window holds: only a client that stops the stream ends this.
            while ask.send.write_chunk(Bytes::from_static(&[0; 65_536])).await.is_ok() {}
            let _ = stopped.send(ask.given_up().await).await;
        }
    });
    let client = client();
    let read = timeout(SOON, client.shard(&node.peer, shard.id, shard.len())).await;
    let error = read.expect("long before any time-out").expect_err("too much");
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    assert_eq!(error.node(), Some(node.peer.node));
    let code = timeout(SOON, was_stopped.recv()).await.expect("the node sees it").expect("sent");
    assert_eq!(code, Some(supernode_tls::codes::CloseCode::Cancelled.to_varint()));
}

#[tokio::test]
async fn another_holder_goes_on_where_a_liar_began_to_lie() {
    let shard = Shard::new("truth", LEN);
    let bad = liar(&shard, |answer| flip(&mut answer.bytes, 9 * 16_384));
    let good = honest(&shard);
    let holders = [bad.peer.clone(), good.peer.clone()];
    let client = client();
    let reader = client.read_shard(&holders, shard.wanted()).expect("a read");
    assert_eq!(reader.rest().await.expect("one is honest"), shard.bytes);
    assert_eq!(bad.offsets(), [0]);
    assert_eq!(good.offsets(), [9 * GROUP], "verified bytes are not fetched again");
    let statistics = client.statistics();
    assert_eq!((statistics.lies, statistics.resumes), (1, 1));
    assert!(client.health(bad.peer.node).failures_in_a_row == 1);
    // Whoever lied is asked last from now on.
    let reader = client.read_shard(&holders, shard.wanted()).expect("a read");
    assert_eq!(reader.rest().await.expect("one is honest"), shard.bytes);
    assert_eq!(bad.requests.lock().len(), 1);
}

#[tokio::test]
async fn every_range_of_an_honest_node_comes_back_exactly() {
    let shard = Shard::new("truth", LEN);
    let node = honest(&shard);
    let client = client();
    for (start, end) in
        [(0, 1), (0, LEN), (5, 16_384), (16_383, 16_385), (16_384, LEN), (LEN - 1, LEN)]
    {
        let range = start as u64..end as u64;
        let read = client.shard_range(&node.peer, shard.id, shard.len(), range).await;
        assert_eq!(read.expect("the truth"), shard.bytes[start..end], "{start}..{end}");
    }
    let small = Shard::new("small", 100);
    let node = honest(&small);
    assert_eq!(client.shard(&node.peer, small.id, 100).await.expect("the truth"), small.bytes);
    let part = client.shard_range(&node.peer, small.id, 100, 7..9).await.expect("the truth");
    assert_eq!(part, small.bytes[7..9]);
}
