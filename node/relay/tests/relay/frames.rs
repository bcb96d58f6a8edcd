// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes that are no request: answered with an error, and the connection goes on.

use supernode_protocol::limits::FRAME_BYTES_MAX;
use supernode_protocol::wire::{ErrorCode, Request, Response};

use crate::raw::{Raw, hello, message};
use crate::setup::{NETWORK, Setup, bytes_of, eventually, put_of};

fn assert_bad(response: &Response, what: &str) {
    let Response::Error(error) = response else { panic!("{what}: {response:?}") };
    let is_expected = matches!(error.code, ErrorCode::BadRequest | ErrorCode::BodyMismatch);
    assert!(is_expected, "{what}: {error}");
}

fn put_request(len: u64) -> (Request, Vec<u8>) {
    let bytes = bytes_of(usize::try_from(len).expect("small"));
    let put = put_of(&bytes);
    let request = Request::PutShard { upload: put.upload, slot: put.slot, shard: put.shard, len };
    (request, bytes.to_vec())
}

#[tokio::test]
async fn a_request_truncated_at_every_byte_is_an_error_and_no_more() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let (request, body) = put_request(40);
    let whole = message(&request, &body);
    for end in 0..whole.len() {
        assert_bad(&raw.send(&whole[..end]).await, &format!("cut at {end}"));
    }
    assert!(setup.backend.is_empty());
    assert!(matches!(raw.send(&whole).await, Response::Stored(_)));
    eventually("nothing is left", || setup.relay.metrics().requests_inflight == 0).await;
}

#[tokio::test]
async fn a_hello_truncated_at_every_byte_is_an_error_and_no_more() {
    let setup = Setup::new();
    let raw = Raw::connect(&setup, &setup.writer_key).await;
    let whole = message(&hello(NETWORK), &[]);
    for end in 0..whole.len() {
        assert_bad(&raw.send(&whole[..end]).await, &format!("cut at {end}"));
    }
    assert!(matches!(raw.send(&whole).await, Response::Welcome { .. }));
}

#[tokio::test]
async fn every_single_byte_of_a_request_may_be_wrong() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let (request, body) = put_request(40);
    let whole = message(&request, &body);
    for position in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[position] = value;
            // Some of these are other valid requests; all that counts is that each is answered.
            let _ = raw.send(&damaged).await;
        }
    }
    assert!(matches!(raw.ask(&Request::Status, &[]).await, Response::Status(_)));
}

#[tokio::test]
async fn lengths_that_no_frame_has_are_refused_at_once() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let over = u32::try_from(FRAME_BYTES_MAX).expect("small") + 1;
    for len in [over, 1 << 30, u32::MAX] {
        // Without the end of the stream: the announced length alone is enough.
        let (_send, mut recv) = raw.open(&len.to_le_bytes()).await;
        let response = supernode_tls::frames::read_frame(&mut recv).await.expect("an answer");
        assert_bad(&response, "over-long");
    }
    assert_bad(&raw.send(&0_u32.to_le_bytes()).await, "an empty frame");
    assert!(matches!(raw.ask(&Request::Status, &[]).await, Response::Status(_)));
}

#[tokio::test]
async fn bytes_after_a_request_are_refused() {
    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    assert_bad(&raw.ask(&Request::Status, b"x").await, "after the frame");
    let mut inside = message(&Request::Status, b"x");
    inside[0] += 1;
    assert_bad(&raw.send(&inside).await, "inside the frame");
    assert_eq!(setup.relay.metrics().rejected(supernode_relay::Reason::BadRequest), 2);
    assert!(matches!(raw.ask(&Request::Status, &[]).await, Response::Status(_)));
}

#[tokio::test]
async fn ranges_that_no_shard_has_are_refused() {
    use supernode_protocol::ids::ShardId;
    use supernode_protocol::wire::ByteRange;

    let setup = Setup::new();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    for (offset, len) in [(0, 0), (u64::MAX, 1), (1, u64::MAX), (64 << 20, 1), (0, (64 << 20) + 1)]
    {
        let range = Some(ByteRange { offset, len });
        let request = Request::GetShard { shard: ShardId::of(b""), range };
        assert_bad(&raw.ask(&request, &[]).await, &format!("{len} from {offset}"));
    }
}
