// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who gets in, who may do what, and how much at a time.

use std::time::Duration;

use supernode_client::{ClientError, Keypair};
use supernode_protocol::ids::{Cid, LeaseId, ShardId, Slot};
use supernode_protocol::lease::Expiry;
use supernode_protocol::wire::{ByteRange, ErrorCode, Request, Response};
use supernode_relay::{Profile, Reason};

use crate::eventually::pass;
use crate::raw::{Raw, hello};
use crate::setup::{Setup, UPLOAD, bytes_of, client, commit_of, eventually, id_of, put_of};

/// One of each; the first six change something.
fn requests(key: &Keypair) -> Vec<(Request, usize)> {
    let (object, shard) = (Cid::of(b"o"), ShardId::of(b"s"));
    let lease = LeaseId::from_bytes([1; 16]);
    let slot = Slot { stripe: 0, index: 0 };
    vec![
        (Request::PutShard { upload: UPLOAD, slot, shard, len: 1 }, 1),
        (Request::PutBlock { upload: UPLOAD, cid: object, len: 1 }, 1),
        (Request::Commit(Box::new(commit_of(key, object))), 0),
        (Request::Release { lease }, 0),
        (Request::Renew { lease, expiry: Expiry::RunningSeconds(1) }, 0),
        (Request::KeepSpan { object, group: 0, span: Box::default() }, 0),
        (Request::GetShard { shard, range: None }, 0),
        (Request::GetShard { shard, range: Some(ByteRange { offset: 0, len: 1 }) }, 0),
        (Request::Group { object, group: 0, with_root: true }, 0),
        (Request::Stat { object, group: 0 }, 0),
        (Request::Leases { after: None }, 0),
        (Request::Members { after: None }, 0),
        (Request::Status, 0),
        (Request::Receipt { lease, object, wanted: Vec::new() }, 0),
    ]
}

fn code_of(response: &Response) -> Option<ErrorCode> {
    match response {
        Response::Error(error) => Some(error.code),
        _ => None,
    }
}

#[tokio::test]
async fn nothing_is_answered_before_the_hello() {
    let setup = Setup::new();
    let raw = Raw::connect(&setup, &setup.writer_key).await;
    for (request, body_bytes) in requests(&setup.writer_key) {
        let response = raw.ask(&request, &vec![0; body_bytes]).await;
        assert_eq!(code_of(&response), Some(ErrorCode::BadRequest), "{request:?}");
    }
    assert_eq!(setup.relay.metrics().rejected(Reason::NoHello), 14);
    assert_eq!(setup.relay.metrics().requests_total.iter().map(|(_, n)| n).sum::<u64>(), 0);
    let welcome = raw.ask(&hello(crate::setup::NETWORK), &[]).await;
    assert!(matches!(welcome, Response::Welcome { .. }), "{welcome:?}");
    assert_eq!(code_of(&raw.ask(&Request::Status, &[]).await), None);
    let again = raw.ask(&hello(crate::setup::NETWORK), &[]).await;
    assert_eq!(code_of(&again), Some(ErrorCode::BadRequest), "one hello is enough");
}

#[tokio::test]
async fn another_network_is_refused() {
    let setup = Setup::new();
    let client = client(&setup.writer_key, |config| config.network = "other".to_owned());
    let error = client.status(&setup.peer()).await.expect_err("another network");
    assert_eq!(error.code(), Some(ErrorCode::WrongNetwork), "{error}");
    assert_eq!(setup.relay.metrics().rejected(Reason::WrongNetwork), 1);
}

#[tokio::test]
async fn only_writers_write() {
    let setup = Setup::new();
    let key = Keypair::generate_ed25519();
    let raw = Raw::greeted(&setup, &key).await;
    for (position, (request, body_bytes)) in requests(&key).into_iter().enumerate() {
        let code = code_of(&raw.ask(&request, &vec![0; body_bytes]).await);
        assert_eq!(code == Some(ErrorCode::Refused), position < 6, "{request:?}: {code:?}");
    }
    assert_eq!(setup.relay.metrics().rejected(Reason::NotAllowed), 6);
    assert!(setup.backend.is_empty());
}

#[tokio::test]
async fn a_private_node_serves_its_lists_only() {
    let reader_key = Keypair::generate_ed25519();
    let setup = Setup::with(|config| {
        config.profile = Profile::Private;
        config.members.relay = [id_of(&reader_key)].into();
    });
    let peer = setup.peer();
    let error = setup.stranger().status(&peer).await.expect_err("a stranger");
    assert_eq!(error.code(), Some(ErrorCode::Refused));
    setup.writer().status(&peer).await.expect("writers read");
    let reader = client(&reader_key, |_| {});
    reader.status(&peer).await.expect("readers read");
    let error = reader.put_shard(&peer, put_of(&bytes_of(10))).await.expect_err("not write");
    assert_eq!(error.code(), Some(ErrorCode::Refused));
}

#[tokio::test]
async fn a_full_node_says_busy_and_when_to_come_back() {
    let setup = Setup::with(|config| {
        config.requests_max = 2;
        config.queue_wait_ms = 50;
        config.retry_after_ms = 777;
    });
    let peer = setup.peer();
    let (one, two, three) = (setup.writer(), setup.stranger(), setup.stranger());
    setup.backend.is_held.send_replace(true);
    let held = async { tokio::join!(one.status(&peer), two.status(&peer)) };
    let meanwhile = async {
        setup.backend.inside(2).await;
        let error = three.status(&peer).await.expect_err("no permit is left");
        assert_eq!(error.code(), Some(ErrorCode::Busy));
        assert_eq!(error.retry_after(), Some(Duration::from_millis(777)));
        assert!(error.retryable());
        let metrics = setup.relay.metrics();
        assert_eq!((metrics.requests_inflight, metrics.permits_free), (2, 0));
        setup.backend.is_held.send_replace(false);
    };
    let ((first, second), ()) = tokio::join!(held, meanwhile);
    first.expect("held, then served");
    second.expect("held, then served");
    three.status(&peer).await.expect("permits are back when the answer is");
    assert_eq!(setup.relay.metrics().rejected(Reason::NodeBusy), 1);
}

#[tokio::test]
async fn strangers_of_one_prefix_share_a_budget_that_the_known_do_not_touch() {
    let setup = Setup::with(|config| {
        config.class.stranger.requests_max = 1;
        config.class.stranger.queue_max = 0;
    });
    let peer = setup.peer();
    let (one, two, known) = (setup.stranger(), setup.stranger(), setup.writer());
    let welcome = two.connect(&peer).await.expect("connecting is free");
    assert_eq!(welcome.streams_max, 1);
    known.connect(&peer).await.expect("connecting is free");
    setup.backend.is_held.send_replace(true);
    let meanwhile = async {
        setup.backend.inside(1).await;
        let error = two.status(&peer).await.expect_err("the prefix's only permit is taken");
        assert_eq!(error.code(), Some(ErrorCode::Busy));
        known.members(&peer, None).await.expect("its own budget");
        setup.backend.is_held.send_replace(false);
    };
    let (first, ()) = tokio::join!(one.status(&peer), meanwhile);
    first.expect("held, then served");
    assert_eq!(setup.relay.metrics().rejected(Reason::ClientBusy), 1);
}

#[tokio::test]
async fn too_many_requests_a_second_are_busy_with_a_time_to_come_back() {
    let setup = Setup::with(|config| {
        config.class.stranger.requests_per_sec = 1;
        config.class.stranger.requests_burst = 5;
    });
    let (client, peer) = (setup.stranger(), setup.peer());
    for _ in 0..5 {
        client.status(&peer).await.expect("within the burst");
    }
    let error = client.status(&peer).await.expect_err("the burst is used up");
    let wait = error.retry_after().expect("busy says when");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    assert_eq!(setup.relay.metrics().rejected(Reason::RequestRate), 1);
    pass(wait).await;
    client.status(&peer).await.expect("after the time it was told");
}

#[tokio::test]
async fn too_many_bytes_are_busy_before_they_move() {
    let setup = Setup::with(|config| {
        config.class.gateway.burst_bytes = 65 << 20;
        config.class.gateway.bytes_per_sec = 1024;
    });
    let (client, peer) = (setup.writer(), setup.peer());
    let bytes = bytes_of(40 << 20);
    client.put_shard(&peer, put_of(&bytes)).await.expect("within the burst");
    let error = client.put_shard(&peer, put_of(&bytes)).await.expect_err("over it");
    assert_eq!(error.code(), Some(ErrorCode::Busy), "{error}");
    assert!(error.retry_after().expect("busy says when") > Duration::from_secs(3600));
    let shard = ShardId::of(&bytes);
    let error = client.shard(&peer, shard, 40 << 20).await.expect_err("reads count too");
    assert_eq!(error.code(), Some(ErrorCode::Busy), "{error}");
    let part = client.shard_range(&peer, shard, 40 << 20, 0..1000).await;
    part.expect("what is left of the burst suffices");
    assert_eq!(setup.relay.metrics().body_bytes_received, 40 << 20);
}

#[tokio::test]
async fn connections_of_one_prefix_are_counted() {
    let setup = Setup::with(|config| config.connections_per_prefix_max = 2);
    let peer = setup.peer();
    let (one, two, three) = (setup.stranger(), setup.stranger(), setup.stranger());
    one.status(&peer).await.expect("the first");
    two.status(&peer).await.expect("the second");
    let error = three.status(&peer).await.expect_err("one too many");
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert_eq!(setup.relay.metrics().rejected(Reason::PrefixConnections), 1);
    one.close().await;
    eventually("the first is gone", || setup.relay.metrics().connections == 1).await;
    three.status(&peer).await.expect("there is room again");
}

#[tokio::test]
async fn clients_prove_their_address_when_many_handshakes_are_under_way() {
    let setup = Setup::with(|config| config.handshakes_retry_from = 0);
    setup.stranger().status(&setup.peer()).await.expect("a retry is invisible to clients");
}
