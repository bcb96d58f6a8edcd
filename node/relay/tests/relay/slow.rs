// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients and nodes that never finish are cut at their deadline.

use std::time::Duration;

use supernode_client::{ClientError, Peer};
use supernode_protocol::ids::ShardId;
use supernode_protocol::wire::{ErrorCode, Request, Response};
use supernode_relay::Reason;
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::read_frame;
use tokio::time::timeout;

use crate::eventually::pass;
use crate::raw::{Raw, message};
use crate::setup::{Setup, bytes_of, client, eventually, id_of, loopback, put_of};

const SOON: Duration = Duration::from_secs(10);

fn hasty() -> Setup {
    Setup::with(|config| {
        config.hello_timeout_ms = 200;
        config.frame_timeout_ms = 200;
        config.request_timeout_ms = 200;
        config.progress_grace_ms = 200;
        config.body_bytes_per_sec_min = 1 << 30;
    })
}

async fn assert_slow(setup: &Setup, recv: &mut quinn::RecvStream) {
    let response = timeout(SOON, read_frame(recv)).await.expect("soon").expect("an answer");
    let Response::Error(error) = response else { panic!("{response:?}") };
    assert_eq!(error.code, ErrorCode::Unavailable, "{error}");
    assert!(setup.relay.metrics().rejected(Reason::Deadline) > 0);
    eventually("the permit is back", || setup.relay.metrics().requests_inflight == 0).await;
}

#[tokio::test]
async fn a_client_that_never_says_hello_is_closed() {
    let setup = hasty();
    let raw = Raw::connect(&setup, &setup.writer_key).await;
    let reason = timeout(SOON, raw.connection.closed()).await.expect("soon");
    let expected = CloseCode::Deadline.to_varint();
    let quinn::ConnectionError::ApplicationClosed(close) = reason else { panic!("{reason}") };
    assert_eq!(close.error_code, expected);
    eventually("its place is free", || setup.relay.metrics().connections == 0).await;
    assert_eq!(setup.relay.metrics().rejected(Reason::NoHello), 1);
}

#[tokio::test]
async fn a_frame_that_never_ends_is_cut() {
    let setup = hasty();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let whole = message(&Request::Status, &[]);
    let (_send, mut recv) = raw.open(&whole[..3]).await;
    assert_slow(&setup, &mut recv).await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_and_leaves_nothing() {
    let setup = hasty();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let put = put_of(&bytes_of(100_000));
    let request =
        Request::PutShard { upload: put.upload, slot: put.slot, shard: put.shard, len: 100_000 };
    let (send, mut recv) = raw.open(&message(&request, &put.bytes[..99_999])).await;
    assert_cut(&setup, &send, &mut recv).await;
    // All bytes came, but never the end of the stream.
    let (send, mut recv) = raw.open(&message(&request, &put.bytes)).await;
    assert_cut(&setup, &send, &mut recv).await;
    assert_eq!(setup.relay.metrics().rejected(Reason::TooSlow), 2);
    assert!(setup.backend.is_empty());
}

#[tokio::test]
async fn a_body_that_crawls_is_cut_however_often_a_byte_comes() {
    let setup = Setup::with(|config| {
        config.progress_grace_ms = 300;
        config.body_bytes_per_sec_min = 1 << 30;
        // What the whole may take is no help to who moves a byte now and then.
        config.request_timeout_ms = 3_600_000;
    });
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let put = put_of(&bytes_of(100_000));
    let request =
        Request::PutShard { upload: put.upload, slot: put.slot, shard: put.shard, len: 100_000 };
    let (mut send, mut recv) = raw.open(&message(&request, &[])).await;
    let crawl = async {
        for byte in put.bytes.chunks(1) {
            if send.write_all(byte).await.is_err() {
                return;
            }
            pass(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, crawl).await.expect("cut long before the last byte");
    assert_cut(&setup, &send, &mut recv).await;
    assert_eq!(setup.relay.metrics().rejected(Reason::TooSlow), 1);
}

/// The stream was cut in both directions, and what it held is free.
async fn assert_cut(setup: &Setup, send: &quinn::SendStream, recv: &mut quinn::RecvStream) {
    let code = CloseCode::Deadline.to_varint();
    let reset = timeout(SOON, recv.received_reset()).await.expect("soon").expect("connected");
    assert_eq!(reset, Some(code));
    let stopped = timeout(SOON, send.stopped()).await.expect("soon").expect("connected");
    assert_eq!(stopped, Some(code));
    eventually("the permit is back", || setup.relay.metrics().requests_inflight == 0).await;
    eventually("the memory is back", || setup.relay.metrics().body_bytes_in_flight == 0).await;
}

#[tokio::test]
async fn a_reader_that_never_reads_is_cut() {
    let setup = hasty();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    // More than the windows and the send buffer take, so that the node has to wait for the reader.
    let bytes = bytes_of(48 << 20);
    let in_flight = || setup.relay.metrics().body_bytes_in_flight;
    let shard = ShardId::of(&bytes);
    setup.backend.content.lock().shards.insert(shard, bytes);
    let request = Request::GetShard { shard, range: None };
    let (mut send, mut recv) = raw.open(&message(&request, &[])).await;
    send.finish().expect("open");
    let reset = timeout(SOON, recv.received_reset()).await.expect("soon").expect("connected");
    assert_eq!(reset, Some(CloseCode::Deadline.to_varint()));
    eventually("the permit is back", || setup.relay.metrics().requests_inflight == 0).await;
    eventually("the memory is back", || in_flight() == 0).await;
    assert_eq!(setup.relay.metrics().rejected(Reason::TooSlow), 1);
    assert!(matches!(raw.ask(&Request::Status, &[]).await, Response::Status(_)));
}

#[tokio::test]
async fn a_backend_that_never_answers_is_given_up() {
    let setup = hasty();
    setup.backend.is_held.send_replace(true);
    let error = setup.stranger().status(&setup.peer()).await.expect_err("held for ever");
    assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
    assert!(error.retryable());
}

#[tokio::test]
async fn a_node_that_never_answers_is_given_up_by_the_client() {
    let setup = Setup::new();
    let impatient = client(&setup.writer_key, |config| {
        config.request_timeout = Duration::from_millis(300);
    });
    setup.backend.is_held.send_replace(true);
    let error = impatient.status(&setup.peer()).await.expect_err("held for ever");
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    assert_eq!(impatient.connection_count(), 1, "the connection itself is alive");
    setup.backend.inside(0).await;
}

#[tokio::test]
async fn an_address_where_nobody_answers_is_unreachable_in_time() {
    let silent = std::net::UdpSocket::bind(loopback(0)).expect("a free port");
    let key = supernode_client::Keypair::generate_ed25519();
    let addresses = vec![silent.local_addr().expect("bound")];
    let peer = Peer { node: id_of(&key), addresses };
    let client = client(&key, |config| config.connect_timeout = Duration::from_millis(300));
    let error = timeout(SOON, client.status(&peer)).await.expect("soon").expect_err("nobody");
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    let nowhere = Peer { node: id_of(&key), addresses: Vec::new() };
    let error = client.status(&nowhere).await.expect_err("no address");
    assert!(error.to_string().contains("no address"), "{error}");
}
