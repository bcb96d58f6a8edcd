// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that breaks the protocol itself: what it answers is scripted byte by byte.

use std::time::Duration;

use bytes::Bytes;
use supernode_client::{Client, ClientError, Keypair};
use supernode_protocol::ids::{Cid, ShardId};
use supernode_protocol::tree::outboard_len;
use supernode_protocol::wire::{Ack, ByteRange, Response};
use tokio::time::timeout;

use crate::node::{
    NETWORK, Node, SOON, client, client_with, frame, loopback, node, node_at, record_of, welcome,
};

/// Gives up on an answer that never comes.
fn hasty() -> Client {
    client_with(|config| {
        config.request_timeout = Duration::from_millis(300);
        config.transfer_bytes_per_sec_min = 1 << 30;
    })
}

/// A node that answers every request with `bytes`, and then ends or stays.
fn scripted(bytes: Bytes, ends: bool) -> Node {
    node(move |mut ask| {
        let bytes = bytes.clone();
        async move {
            ask.write(bytes).await;
            if ends {
                ask.end().await;
            } else {
                ask.given_up().await;
            }
        }
    })
}

/// Asks a rogue that answers `bytes` for a shard, a range, a group and its status.
async fn ask_all(bytes: Bytes, ends: bool) -> [ClientError; 4] {
    let node = scripted(bytes, ends);
    let (client, peer) = (client(), node.peer.clone());
    let shard = ShardId::of(b"x");
    let all = async {
        [
            client.shard(&peer, shard, 100_000).await.expect_err("a lie"),
            client.shard_range(&peer, shard, 100_000, 5..50_000).await.expect_err("a lie"),
            client.group(&peer, Cid::of(b"x"), 0, true).await.expect_err("a lie"),
            client.status(&peer).await.expect_err("a lie"),
        ]
    };
    timeout(SOON, all).await.expect("no answer is waited for beyond its time")
}

#[tokio::test]
async fn answers_of_another_kind_or_none_are_protocol_errors() {
    for bytes in [
        frame(&Response::Stored(Ack { sequence: 1 })),
        Bytes::new(),
        Bytes::from_static(&[1]),
        Bytes::from_static(&[4, 0, 0, 0, 1]),
        Bytes::from_static(&[0, 0, 0, 0]),
        Bytes::from_static(&[2, 0, 0, 0, 0xee, 0xee]),
        Bytes::from_static(&[0xff, 0xff, 0xff, 0xff]),
    ] {
        for error in ask_all(bytes.clone(), true).await {
            assert!(matches!(error, ClientError::Protocol { .. }), "{bytes:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_length_the_node_only_claims_is_not_believed() {
    let huge = |shard_len, len, proof_len| {
        frame(&Response::Shard { shard_len, range: ByteRange { offset: 0, len }, proof_len })
    };
    for bytes in [
        huge(u64::MAX, u64::MAX, u32::MAX),
        huge(100_000, u64::MAX, 0),
        huge(100_000, 100_000, u32::MAX),
        huge(100_000, 100_000, 0),
        huge(100_000, 99_999, u32::try_from(outboard_len(100_000)).expect("short")),
    ] {
        let [whole, range, ..] = ask_all(bytes.clone(), true).await;
        for error in [whole, range] {
            assert!(matches!(error, ClientError::Lied { .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_early_or_never_is_noticed() {
    // A shard of one group needs no proof, so the body is looked at at once.
    let header = frame(&Response::Shard {
        shard_len: 10_000,
        range: ByteRange { offset: 0, len: 10_000 },
        proof_len: 0,
    });
    let half = Bytes::from([&header[..], &[0; 5_000]].concat());
    for (client, ends, is_lie) in [(client(), true, true), (hasty(), false, false)] {
        let node = scripted(half.clone(), ends);
        let read = client.shard(&node.peer, ShardId::of(b"x"), 10_000).await;
        let error = read.expect_err("half a shard");
        assert_eq!(matches!(error, ClientError::Lied { what: "length", .. }), is_lie, "{error}");
        assert_eq!(matches!(error, ClientError::Timeout { .. }), !is_lie, "{error}");
        assert_eq!(error.node(), Some(node.peer.node));
    }
}

#[tokio::test]
async fn bytes_after_an_answer_are_a_protocol_error() {
    let key = Keypair::generate_ed25519();
    let record = record_of(&key, NETWORK);
    let members = frame(&Response::Members { nodes: vec![record.clone()] });
    let bytes = Bytes::from([&members[..], b"x"].concat());
    let node = scripted(bytes, true);
    let error = client().members(&node.peer, None).await.expect_err("one byte too many");
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn members_of_another_network_are_left_out() {
    let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let record = record_of(&key, NETWORK);
    let nodes = vec![record.clone(), record_of(&other, "elsewhere")];
    let bytes = frame(&Response::Members { nodes });
    let node = scripted(bytes, true);
    assert_eq!(client().members(&node.peer, None).await.expect("its own"), [record]);
}

#[tokio::test]
async fn a_welcome_that_is_not_the_nodes_own_is_refused() {
    let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let own = record_of(&key, NETWORK);
    for (hello, is_lie) in [
        (frame(&welcome(record_of(&other, NETWORK), 64)), true),
        (frame(&welcome(record_of(&key, "elsewhere"), 64)), true),
        (frame(&welcome(own, 0)), false),
        (frame(&Response::Stored(Ack { sequence: 0 })), false),
        (Bytes::from_static(&[1, 0, 0, 0, 0xee]), false),
    ] {
        let node = node_at(&key, loopback(), hello, |_| async {}).expect("a free port");
        let error = client().connect(&node.peer).await.expect_err("no proper welcome");
        assert_eq!(matches!(error, ClientError::Lied { .. }), is_lie, "{error}");
        assert!(is_lie || matches!(error, ClientError::Protocol { .. }), "{error}");
    }
}
