// SPDX-License-Identifier: MIT OR Apache-2.0
//! A node that breaks the protocol itself: what it answers is scripted byte by byte.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Endpoint, TokioRuntime};
use supernode_client::{Client, ClientConfig, ClientError, Keypair, Peer, Transport};
use supernode_protocol::ids::{Cid, NodeId, ShardId};
use supernode_protocol::node_record::NodeRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::{Ack, ByteRange, Request, Response, encode_frame};
use supernode_tls::frames::read_frame;
use supernode_tls::identity::server_config;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);
const NETWORK: &str = "test";

/// What the node does with every stream after the hello.
#[derive(Clone)]
struct Script {
    bytes: Bytes,
    ends: bool,
}

fn id_of(key: &Keypair) -> NodeId {
    NodeId::from_public(&key.public()).expect("Ed25519")
}

fn loopback() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

fn record_of(key: &Keypair, network: &str) -> Signed<NodeRecord> {
    let record = NodeRecord {
        node: id_of(key),
        sequence: 1,
        network: network.to_owned(),
        region: "EU-WEST".to_owned(),
        capacity_bytes: 0,
        quic: Vec::new(),
        libp2p: Vec::new(),
    };
    Signed::sign(record, key).expect("own key")
}

fn welcome(node: Signed<NodeRecord>, streams_max: u32) -> Response {
    Response::Welcome { node: Box::new(node), agent: "rogue".to_owned(), streams_max }
}

fn frame(response: &Response) -> Bytes {
    encode_frame(response).expect("a short frame")
}

/// Starts a node that says `hello` and then follows `script`.
fn rogue(key: &Keypair, hello: Bytes, script: Script) -> (Endpoint, Peer) {
    let transport = Transport::default();
    let mut server = server_config(key).expect("Ed25519");
    server.transport_config(Arc::new(transport.to_quinn(64)));
    let socket = transport.bind(loopback()).expect("a free port").socket;
    let settings = transport.endpoint(key).expect("Ed25519");
    let endpoint = Endpoint::new(settings, Some(server), socket, Arc::new(TokioRuntime))
        .expect("on a runtime");
    let addresses = vec![endpoint.local_addr().expect("bound")];
    tokio::spawn(serve(endpoint.clone(), hello, script));
    (endpoint, Peer { node: id_of(key), addresses })
}

async fn serve(endpoint: Endpoint, hello: Bytes, script: Script) {
    while let Some(incoming) = endpoint.accept().await {
        let Ok(connection) = incoming.await else { continue };
        // Streams that are not to end stay in here.
        let mut open = Vec::new();
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            match read_frame::<Request>(&mut recv).await {
                Ok(Request::Hello { .. }) => send.write_chunk(hello.clone()).await,
                _ => send.write_chunk(script.bytes.clone()).await,
            }
            .expect("the client reads");
            if script.ends {
                let _ = send.finish();
            } else {
                open.push((send, recv));
            }
        }
    }
}

fn client() -> Client {
    let mut config = ClientConfig::new(Keypair::generate_ed25519(), NETWORK);
    config.bind = loopback();
    config.request_timeout = Duration::from_millis(300);
    config.transfer_bytes_per_sec_min = 1 << 30;
    Client::new(config).expect("a free port")
}

/// Asks a rogue that answers `bytes` for a shard, a range, a group and its status.
async fn ask_all(bytes: Bytes, ends: bool) -> [ClientError; 4] {
    let key = Keypair::generate_ed25519();
    let hello = frame(&welcome(record_of(&key, NETWORK), 64));
    let (_endpoint, peer) = rogue(&key, hello, Script { bytes, ends });
    let client = client();
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
        huge(100_000, 99_999, 0),
    ] {
        let [whole, range, ..] = ask_all(bytes.clone(), true).await;
        for error in [whole, range] {
            assert!(matches!(error, ClientError::Lied { .. }), "{error}");
        }
    }
}

#[tokio::test]
async fn a_body_that_ends_early_or_never_is_noticed() {
    let header = frame(&Response::Shard {
        shard_len: 100_000,
        range: ByteRange { offset: 0, len: 100_000 },
        proof_len: 0,
    });
    let half = Bytes::from([&header[..], &[0; 50_000]].concat());
    let [error, ..] = ask_all(half.clone(), true).await;
    assert!(matches!(error, ClientError::Lied { what: "length", .. }), "{error}");
    let [error, ..] = ask_all(half, false).await;
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn bytes_after_an_answer_are_a_protocol_error() {
    let key = Keypair::generate_ed25519();
    let record = record_of(&key, NETWORK);
    let members = frame(&Response::Members { nodes: vec![record.clone()] });
    let bytes = Bytes::from([&members[..], b"x"].concat());
    let (_endpoint, peer) = rogue(&key, frame(&welcome(record, 64)), Script { bytes, ends: true });
    let error = client().members(&peer, None).await.expect_err("one byte too many");
    assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
}

#[tokio::test]
async fn members_of_another_network_are_left_out() {
    let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let record = record_of(&key, NETWORK);
    let nodes = vec![record.clone(), record_of(&other, "elsewhere")];
    let bytes = frame(&Response::Members { nodes });
    let hello = frame(&welcome(record.clone(), 64));
    let (_endpoint, peer) = rogue(&key, hello, Script { bytes, ends: true });
    assert_eq!(client().members(&peer, None).await.expect("its own"), [record]);
}

#[tokio::test]
async fn a_welcome_that_is_not_the_nodes_own_is_refused() {
    let (key, other) = (Keypair::generate_ed25519(), Keypair::generate_ed25519());
    let own = record_of(&key, NETWORK);
    let script = Script { bytes: Bytes::new(), ends: true };
    for (hello, is_lie) in [
        (frame(&welcome(record_of(&other, NETWORK), 64)), true),
        (frame(&welcome(record_of(&key, "elsewhere"), 64)), true),
        (frame(&welcome(own, 0)), false),
        (frame(&Response::Stored(Ack { sequence: 0 })), false),
        (Bytes::from_static(&[1, 0, 0, 0, 0xee]), false),
    ] {
        let (_endpoint, peer) = rogue(&key, hello, script.clone());
        let error = client().connect(&peer).await.expect_err("no proper welcome");
        assert_eq!(matches!(error, ClientError::Lied { .. }), is_lie, "{error}");
        assert!(is_lie || matches!(error, ClientError::Protocol { .. }), "{error}");
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
