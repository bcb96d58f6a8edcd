// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bodies that are not what was announced leave nothing behind.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use supernode_client::{ClientError, PutShard};
use supernode_protocol::ids::{Cid, ShardId, Slot};
use supernode_protocol::limits::{ROOT_BLOCK_BYTES_MAX, SHARD_BYTES_MAX};
use supernode_protocol::wire::{ErrorCode, Request, Response};
use supernode_relay::Reason;

use crate::raw::Raw;
use crate::setup::{Setup, UPLOAD, bytes_of, put_of};

fn code_of(response: &Response) -> ErrorCode {
    match response {
        Response::Error(error) => error.code,
        other => panic!("expected an error, got {other:?}"),
    }
}

fn put(len: u64, shard: ShardId) -> Request {
    Request::PutShard { upload: UPLOAD, slot: Slot { stripe: 0, index: 0 }, shard, len }
}

#[tokio::test]
async fn a_wrong_hash_is_discarded() {
    let setup = Setup::new();
    let (client, peer) = (setup.writer(), setup.peer());
    let put = PutShard { shard: ShardId::of(b"other"), ..put_of(&bytes_of(100_000)) };
    let error = client.put_shard(&peer, put).await.expect_err("other bytes");
    assert_eq!(error.code(), Some(ErrorCode::BodyMismatch));
    let block = client.put_block(&peer, UPLOAD, Cid::of(b"other"), bytes_of(99)).await;
    assert_eq!(block.expect_err("another block").code(), Some(ErrorCode::BodyMismatch));
    assert!(setup.backend.is_empty());
}

#[tokio::test]
async fn a_body_that_is_short_or_long_is_discarded() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let bytes = bytes_of(70_000);
    for (announced, sent) in [(70_000, 69_999), (70_000, 0), (69_999, 70_000), (1, 70_000)] {
        let shard = ShardId::of(&bytes[..announced]);
        let response = raw.ask(&put(announced as u64, shard), &bytes[..sent]).await;
        assert_eq!(code_of(&response), ErrorCode::BodyMismatch, "{announced} and {sent}");
        let cid = Cid::of(&bytes[..announced]);
        let request = Request::PutBlock { upload: UPLOAD, cid, len: announced as u64 };
        let response = raw.ask(&request, &bytes[..sent]).await;
        assert_eq!(code_of(&response), ErrorCode::BodyMismatch, "{announced} and {sent}");
    }
    assert!(setup.backend.is_empty());
    assert_eq!(setup.relay.metrics().rejected(Reason::BodyMismatch), 8);
    let response = raw.ask(&put(70_000, ShardId::of(&bytes)), &bytes).await;
    assert!(matches!(response, Response::Stored(_)), "the connection still serves");
}

#[tokio::test]
async fn lengths_out_of_range_are_refused_before_anything_is_made_ready() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let shard = ShardId::of(b"");
    for len in [0, SHARD_BYTES_MAX + 1, u64::from(u32::MAX), u64::MAX] {
        let response = raw.ask(&put(len, shard), &[0; 1000]).await;
        assert_eq!(code_of(&response), ErrorCode::BadRequest, "{len}");
    }
    for len in [0, ROOT_BLOCK_BYTES_MAX as u64 + 1, u64::MAX] {
        let request = Request::PutBlock { upload: UPLOAD, cid: Cid::of(b""), len };
        assert_eq!(code_of(&raw.ask(&request, &[0; 1000]).await), ErrorCode::BadRequest, "{len}");
    }
    assert_eq!(setup.backend.begun.load(SeqCst), 0);
    assert_eq!(setup.relay.metrics().rejected(Reason::TooLarge), 7);
    assert!(setup.backend.is_empty());
}

#[tokio::test]
async fn a_client_that_is_refused_early_is_told_why_and_need_not_send_the_rest() {
    let setup = Setup::new();
    let (client, peer) = (setup.stranger(), setup.peer());
    for _ in 0..20 {
        let bytes = bytes_of(32 << 20);
        let error = client.put_shard(&peer, put_of(&bytes)).await.expect_err("no writer");
        assert_eq!(error.code(), Some(ErrorCode::Refused), "{error}");
    }
    let received = setup.relay.metrics().body_bytes_received;
    assert_eq!(received, 0, "bodies of refused puts are not read");
}

#[tokio::test]
async fn the_client_itself_refuses_what_no_node_would_take() {
    let setup = Setup::new();
    let (client, peer) = (setup.writer(), setup.peer());
    let shard = ShardId::of(b"x");
    let too_long = SHARD_BYTES_MAX + 1;
    let no_range = client.shard_range(&peer, shard, 100, 50..101).await;
    let empty_range = client.shard_range(&peer, shard, 100, 50..50).await;
    let empty = client.put_shard(&peer, put_of(&Bytes::new())).await.map(|_| Bytes::new());
    for result in [client.shard(&peer, shard, too_long).await, no_range, empty_range, empty] {
        let error = result.expect_err("out of range");
        assert!(matches!(error, ClientError::BadRequest { .. }), "{error}");
    }
    assert_eq!(setup.relay.metrics().connections_total, 0, "nothing was sent");
}
