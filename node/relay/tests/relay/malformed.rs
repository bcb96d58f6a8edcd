// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every kind of request, malformed in every way: lengths that lie, ends that come early, bytes
//! that come late, digests that are not the body's.
//!
//! Each is answered with an error on its own stream, the connection goes on, nothing is allocated
//! on the word of a length, and all permits are back at the end.

use std::time::Duration;

use supernode_protocol::ids::{Cid, LeaseId, ShardId, Slot};
use supernode_protocol::lease::{Commit, Expiry};
use supernode_protocol::limits::{
    FRAME_BYTES_MAX, PAGE_BLOCK_BYTES_MAX, ROOT_BLOCK_BYTES_MAX, SHARD_BYTES_MAX,
};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::repair::Repair;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::{ByteRange, ErrorCode, Part, Request, Response, Want};
use supernode_relay::Reason;
use supernode_tls::codes::CloseCode;
use supernode_tls::frames::read_frame;
use tokio::time::timeout;

use crate::memory::largest_during;
use crate::raw::{Raw, hello, message};
use crate::setup::{NETWORK, Setup, UPLOAD, bytes_of, commit_of, eventually, id_of};

const SOON: Duration = Duration::from_secs(10);
/// No message here is longer, and both ends of a connection with their buffers of packets are in
/// this process: what is beyond was allocated on the word of a number.
const ALLOCATION_BYTES_MAX: usize = 32 << 10;
const BODY_BYTES: usize = 40;

/// One of each kind, with its body.
fn requests(setup: &Setup) -> Vec<(Request, Vec<u8>)> {
    let key = &setup.writer_key;
    let body = bytes_of(BODY_BYTES);
    let (object, shard, len) = (Cid::of(&body), ShardId::of(&body), BODY_BYTES as u64);
    let lease = LeaseId::from_bytes([1; 16]);
    let slot = Slot { stripe: 0, index: 0 };
    let range = Some(ByteRange { offset: 0, len: 1 });
    let root_len = u32::try_from(BODY_BYTES).expect("few");
    let bodiless = [
        Request::Commit(Box::new(commit_of(key, object))),
        Request::GetShard { shard, range: None },
        Request::GetShard { shard, range },
        Request::Group { object, group: 0, with_root: true },
        Request::Stat { object, group: 0 },
        Request::Leases { after: Some((lease, object, 0)) },
        Request::Release { lease },
        Request::Renew { lease, expiry: Expiry::RunningSeconds(1) },
        Request::Members { after: None },
        Request::Status,
        Request::Receipt { lease, object, wanted: Vec::new() },
        Request::KeepSpan { object, group: 0, span: Box::default() },
        Request::GetMany { parts: vec![Want { shard, range }; 2] },
        hello(NETWORK),
    ];
    let with_body = [
        Request::PutShard { upload: UPLOAD, slot, shard, len },
        Request::PutBlock { upload: UPLOAD, cid: object, len },
        Request::PutMany { upload: UPLOAD, parts: vec![Part { slot, shard, len }] },
        Request::Repair { repair: Box::new(repair_of(setup, object)), root_len, page_len: 0 },
    ];
    let bodiless = bodiless.into_iter().map(|request| (request, Vec::new()));
    bodiless.chain(with_body.map(|request| (request, body.to_vec()))).collect()
}

/// A repair that is proven but for its manifest: the writer has named itself as a holder.
fn repair_of(setup: &Setup, object: Cid) -> Repair {
    let key = &setup.writer_key;
    let Commit { terms, placement: warrant, .. } = commit_of(key, object);
    let nodes = vec![id_of(&setup.node_key)];
    let later = PlacementRecord { epoch: 1, nodes, ..warrant.body_unverified().clone() };
    let placement = Signed::sign(later, key).expect("own key");
    Repair { terms, warrant, placement }
}

fn setup() -> Setup {
    Setup::with(|config| {
        config.class.gateway.requests_per_sec = 1 << 20;
        config.class.gateway.requests_burst = 1 << 20;
    })
}

/// What was answered to bytes after which the stream ends, if they are told to be wrong.
fn fault(response: &Response) -> Option<ErrorCode> {
    match response {
        Response::Error(error) => Some(error.code),
        _ => None,
    }
}

fn assert_broken(response: &Response, what: &str) {
    let code = fault(response);
    let is_broken = matches!(code, Some(ErrorCode::BadRequest | ErrorCode::BodyMismatch));
    assert!(is_broken, "{what}: {response:?}");
}

/// Sends bytes without ending the stream, and reads the answer to its end: an error, after which
/// the server wants no more.
async fn refused_at_once(raw: &Raw, bytes: &[u8], what: &str) {
    let ((mut send, mut recv), largest) = largest_during(async {
        let (send, mut recv) = raw.open(bytes).await;
        let answer = timeout(SOON, read_frame(&mut recv)).await;
        let response: Response = answer.expect("at once").expect("an answer");
        assert_broken(&response, what);
        (send, recv)
    })
    .await;
    assert!(largest <= ALLOCATION_BYTES_MAX, "{what}: {largest} bytes were allocated");
    let rest = timeout(SOON, recv.read_to_end(0)).await.expect("the stream ends");
    assert_eq!(rest, Ok(Vec::new()), "{what}: nothing follows an error");
    let stopped = timeout(SOON, send.stopped()).await.expect("the server wants no more");
    assert_eq!(stopped, Ok(Some(CloseCode::Refused.to_varint())), "{what}");
    let _ = send.finish();
}

/// That the connection and all permits are as they were.
async fn assert_unharmed(setup: &Setup, raw: &Raw) {
    assert!(matches!(raw.ask(&Request::Status, &[]).await, Response::Status(_)));
    let is_quiet = || {
        let metrics = setup.relay.metrics();
        metrics.requests_inflight == 0 && metrics.permits_free == 1024
    };
    eventually("every permit is back", is_quiet).await;
    assert_eq!(setup.relay.metrics().connections, 1);
}

#[tokio::test]
async fn requests_of_every_kind_are_cut_at_every_byte() {
    let setup = setup();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    for (request, body) in requests(&setup) {
        let whole = message(&request, &body);
        let ((), largest) = largest_during(async {
            for end in 0..whole.len() {
                let response = raw.send(&whole[..end]).await;
                assert_broken(&response, &format!("{request:?} cut at {end}"));
            }
        })
        .await;
        assert!(largest <= ALLOCATION_BYTES_MAX, "{request:?}: {largest} bytes were allocated");
    }
    assert!(setup.backend.is_empty());
    assert_unharmed(&setup, &raw).await;
}

#[tokio::test]
async fn requests_of_every_kind_are_followed_by_a_byte() {
    let setup = setup();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    for (request, body) in requests(&setup) {
        let mut whole = message(&request, &body);
        whole.push(0);
        assert_broken(&raw.send(&whole).await, &format!("a byte after {request:?}"));
        let mut inside = message(&request, &[0]);
        inside[0] += 1;
        assert_broken(&raw.send(&inside).await, &format!("a byte inside {request:?}"));
    }
    assert!(setup.backend.is_empty());
    assert_unharmed(&setup, &raw).await;
}

/// What a number looks like in a frame.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(u8::try_from(value & 0x7f).expect("seven bits") | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).expect("seven bits"));
    bytes
}

#[tokio::test]
async fn every_length_inside_every_frame_lies() {
    let setup = setup();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let over = FRAME_BYTES_MAX as u64 + 1;
    for (request, body) in requests(&setup) {
        let whole = message(&request, &[]);
        // Whatever stands there is replaced, so that every length is met wherever it stands. Some
        // of the results are other valid requests: each is answered, and nothing is made ready.
        let ((), largest) = largest_during(async {
            for position in 4..whole.len() {
                for lie in [0, over, u64::from(u32::MAX), u64::MAX] {
                    let mut frame = whole[4..position].to_vec();
                    frame.extend(varint(lie));
                    frame.extend(&whole[position + 1..]);
                    let len = u32::try_from(frame.len()).expect("short");
                    let bytes = [&len.to_le_bytes()[..], &frame, &body].concat();
                    let _ = raw.send(&bytes).await;
                }
            }
        })
        .await;
        assert!(largest <= ALLOCATION_BYTES_MAX, "{request:?}: {largest} bytes were allocated");
    }
    assert_unharmed(&setup, &raw).await;
}

#[tokio::test]
async fn the_length_of_a_frame_lies_before_and_after_the_hello() {
    let setup = setup();
    let raw = Raw::connect(&setup, &setup.writer_key).await;
    let over = u32::try_from(FRAME_BYTES_MAX).expect("small") + 1;
    let rejected = || setup.relay.metrics().rejected(Reason::BadRequest);
    for is_greeted in [false, true] {
        let before = rejected();
        for len in [0, over, 1 << 30, u32::MAX] {
            let what = format!("a frame of {len} bytes, greeted: {is_greeted}");
            refused_at_once(&raw, &len.to_le_bytes(), &what).await;
        }
        assert_eq!(rejected() - before, 4);
        if !is_greeted {
            let welcome = raw.ask(&hello(NETWORK), &[]).await;
            assert!(matches!(welcome, Response::Welcome { .. }), "{welcome:?}");
        }
    }
    // The longest frame there may be is waited for; it holds what has come of it and no more.
    let (streams, largest) = largest_during(async {
        let longest = (over - 1).to_le_bytes();
        let mut streams = Vec::new();
        for _ in 0..32 {
            streams.push(raw.open(&[&longest[..], &[0; 100]].concat()).await);
        }
        assert!(matches!(raw.ask(&Request::Status, &[]).await, Response::Status(_)));
        streams
    })
    .await;
    assert!(largest <= ALLOCATION_BYTES_MAX, "{largest} bytes were allocated for what may come");
    drop(streams);
    assert_unharmed(&setup, &raw).await;
}

#[tokio::test]
async fn the_length_of_a_body_lies() {
    let setup = setup();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let (shard, cid) = (ShardId::of(b"x"), Cid::of(b"x"));
    let slot = Slot { stripe: 0, index: 0 };
    let put = |len| Request::PutShard { upload: UPLOAD, slot, shard, len };
    let block = |len| Request::PutBlock { upload: UPLOAD, cid, len };
    let never = [0, u64::from(u32::MAX), u64::MAX];
    let puts = never.into_iter().chain([SHARD_BYTES_MAX + 1]).map(put);
    let blocks = never.into_iter().chain([ROOT_BLOCK_BYTES_MAX as u64 + 1]).map(block);
    let [root_max, page_max] = [ROOT_BLOCK_BYTES_MAX, PAGE_BLOCK_BYTES_MAX]
        .map(|bytes_max| u32::try_from(bytes_max).expect("a few MiB"));
    let repair = |root_len, page_len| Request::Repair {
        repair: Box::new(repair_of(&setup, cid)),
        root_len,
        page_len,
    };
    let lens = [(0, 0), (root_max + 1, 0), (u32::MAX, 0), (1, page_max + 1), (1, u32::MAX)];
    let repairs = lens.map(|(root_len, page_len)| repair(root_len, page_len));
    for request in puts.chain(blocks).chain(repairs) {
        // The body is not waited for.
        refused_at_once(&raw, &message(&request, &[]), &format!("{request:?}")).await;
    }
    assert_eq!(setup.relay.metrics().rejected(Reason::TooLarge), 13);
    // As long as it may be, and then it is short.
    let longest = repair(root_max, page_max);
    for request in [put(SHARD_BYTES_MAX), block(ROOT_BLOCK_BYTES_MAX as u64), longest] {
        let bytes = message(&request, b"x");
        let (response, largest) = largest_during(raw.send(&bytes)).await;
        assert_eq!(fault(&response), Some(ErrorCode::BodyMismatch), "{request:?}");
        assert!(largest <= ALLOCATION_BYTES_MAX, "{request:?}: {largest} bytes were allocated");
    }
    assert_eq!(setup.relay.metrics().body_bytes_received, 3);
    assert!(setup.backend.is_empty());
    assert_unharmed(&setup, &raw).await;
}

#[tokio::test]
async fn the_digest_of_a_body_is_wrong_in_every_bit() {
    let setup = setup();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let body = bytes_of(BODY_BYTES);
    let slot = Slot { stripe: 0, index: 0 };
    for bit in 0..256 {
        let turned = |bytes: &[u8; 32]| {
            let mut bytes = *bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        let shard = ShardId::from_bytes(turned(ShardId::of(&body).as_bytes()));
        let cid = Cid::from_bytes(turned(Cid::of(&body).as_bytes()));
        let len = BODY_BYTES as u64;
        for request in [
            Request::PutShard { upload: UPLOAD, slot, shard, len },
            Request::PutBlock { upload: UPLOAD, cid, len },
        ] {
            let response = raw.ask(&request, &body).await;
            assert_eq!(fault(&response), Some(ErrorCode::BodyMismatch), "bit {bit} {request:?}");
        }
    }
    assert!(setup.backend.is_empty());
    assert_unharmed(&setup, &raw).await;
}

#[tokio::test]
async fn a_hello_that_is_refused_ends_the_connection_after_its_answer() {
    let setup = setup();
    for wrong in ["other", "", &"n".repeat(100_000)] {
        let raw = Raw::connect(&setup, &setup.writer_key).await;
        let response = raw.ask(&hello(wrong), &[]).await;
        assert_eq!(fault(&response), Some(ErrorCode::WrongNetwork));
        let reason = timeout(SOON, raw.connection.closed()).await.expect("it is closed");
        let quinn::ConnectionError::ApplicationClosed(close) = reason else { panic!("{reason}") };
        assert_eq!(close.error_code, CloseCode::Refused.to_varint());
    }
    eventually("nobody is inside", || setup.relay.metrics().connections == 0).await;
}

#[tokio::test]
async fn what_the_protocol_has_no_use_for_is_not_there() {
    let setup = setup();
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    assert_eq!(raw.connection.max_datagram_size(), None, "datagrams are not taken");
    let opened = tokio::select! {
        biased;
        opened = raw.connection.open_uni() => Some(opened),
        status = raw.ask(&Request::Status, &[]) => {
            assert!(matches!(status, Response::Status(_)));
            None
        }
    };
    assert!(opened.is_none(), "unidirectional streams are not allowed");
    assert_unharmed(&setup, &raw).await;
}
