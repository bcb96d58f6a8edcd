// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is put comes back, in whole and in part, and every other request is answered.

use supernode_client::{ClientError, PutShard};
use supernode_protocol::ids::{Cid, LeaseId, ShardId, Slot};
use supernode_protocol::lease::Expiry;
use supernode_protocol::tree::{ShardEntry, SpanProof};
use supernode_protocol::wire::{ErrorCode, Request, Response};
use supernode_relay::{Reason, RequestKind};

use crate::raw::Raw;
use crate::setup::{NETWORK, Setup, UPLOAD, bytes_of, commit_of, id_of, put_of};

#[tokio::test]
async fn shards_of_every_shape_come_back_whole_and_in_part() {
    let setup = Setup::new();
    let (client, peer) = (setup.writer(), setup.peer());
    for len in [1, 64, 16_384, 16_385, 100_000, 1 << 20, (3 << 20) + 64] {
        let bytes = bytes_of(len);
        let shard = ShardId::of(&bytes);
        client.put_shard(&peer, put_of(&bytes)).await.expect("a put");
        let len = len as u64;
        assert_eq!(client.shard(&peer, shard, len).await.expect("a get"), bytes);
        for range in [0..1, 0..len, len - 1..len, len / 3..len / 3 + len / 2] {
            if range.is_empty() {
                continue;
            }
            let got = client.shard_range(&peer, shard, len, range.clone()).await.expect("a range");
            let place = |at| usize::try_from(at).expect("in memory");
            assert_eq!(got, bytes[place(range.start)..place(range.end)], "{range:?} of {len}");
        }
    }
    let metrics = setup.relay.metrics();
    assert_eq!(metrics.connections_total, 1);
    let puts = metrics.requests_total.iter().find(|(kind, _)| *kind == RequestKind::PutShard);
    assert_eq!(puts, Some(&(RequestKind::PutShard, 7)));
    let reads: u64 = metrics.shard_retrieval.counts.iter().sum();
    assert_eq!(reads, 7 + 3 + 4 * 6);
    assert!(metrics.body_bytes_received >= 4 << 20, "{metrics:?}");
    assert!(metrics.body_bytes_sent > metrics.body_bytes_received, "{metrics:?}");
}

#[tokio::test]
async fn the_largest_shard_passes_the_limits() {
    let setup = Setup::new();
    let (client, peer) = (setup.writer(), setup.peer());
    let bytes = bytes_of(64 << 20);
    client.put_shard(&peer, put_of(&bytes)).await.expect("64 MiB");
    let got = client.shard(&peer, ShardId::of(&bytes), 64 << 20).await.expect("64 MiB");
    assert_eq!(got, bytes);
}

#[tokio::test]
async fn an_upload_becomes_an_object_with_a_lease() {
    let setup = Setup::new();
    let (client, peer) = (setup.writer(), setup.peer());
    let root = bytes_of(5000);
    let object = Cid::of(&root);
    for index in 0..3 {
        let put = PutShard { slot: Slot { stripe: 0, index }, ..put_of(&bytes_of(4096)) };
        client.put_shard(&peer, put).await.expect("a put");
    }
    client.put_block(&peer, UPLOAD, object, root.clone()).await.expect("a root");
    let commit = commit_of(&setup.writer_key, object);
    let committed = client.commit(&peer, commit.clone()).await.expect("a commit");
    assert_eq!(committed.slot_count, 3);
    assert_eq!(committed.ack.sequence, 4);

    let reader = setup.stranger();
    let answer = reader.group(&peer, object, 0, true).await.expect("the group");
    assert_eq!(answer.root, Some(root));
    assert_eq!(answer.page, None);
    assert_eq!(answer.placement, commit.placement);
    let answer = reader.group(&peer, object, 0, false).await.expect("without the root");
    assert_eq!(answer.root, None);
    let held = reader.stat(&peer, object, 0).await.expect("the slots");
    assert_eq!(held.len(), 3);
    assert!(held.iter().all(|(_, shard)| *shard == ShardId::of(&bytes_of(4096))));

    assert!(reader.leases(&peer, None).await.expect("none of its own").is_empty());
    let expiry = Expiry::RunningSeconds(9);
    client.renew(&peer, commit.terms.lease, expiry).await.expect("a renewal");
    let leases = client.leases(&peer, None).await.expect("its own");
    assert_eq!(leases.len(), 1);
    assert_eq!(leases[0].remaining, expiry);
    client.release(&peer, commit.terms.lease).await.expect("a release");
    let error = client.release(&peer, LeaseId::from_bytes([9; 16])).await.expect_err("gone");
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    assert!(!error.retryable());
}

#[tokio::test]
async fn a_holder_keeps_the_span_of_a_group_it_holds() {
    let setup = Setup::new();
    let (client, peer) = (setup.writer(), setup.peer());
    let object = Cid::of(b"an object");
    let entry = ShardEntry { id: ShardId::of(b"shard"), shard_len: u64::MAX };
    let span = SpanProof {
        before: vec![entry; 15],
        after: vec![entry; 15],
        siblings: vec![[0xff; 32]; 50],
    };
    let absent = client.keep_span(&peer, object, 0, span.clone()).await.expect_err("no commit");
    assert_eq!(absent.code(), Some(ErrorCode::NotFound));
    client.commit(&peer, commit_of(&setup.writer_key, object)).await.expect("a commit");
    client.keep_span(&peer, object, 0, span.clone()).await.expect("the largest there is");
    assert_eq!(setup.backend.content.lock().spans, [((object, 0), span.clone())].into());
    let kept = (RequestKind::KeepSpan, 2);
    assert!(setup.relay.metrics().requests_total.contains(&kept), "both were admitted");

    // Neither end takes more than any object's span needs.
    let long = SpanProof { siblings: vec![[0; 32]; 200], ..span.clone() };
    let error = client.keep_span(&peer, object, 0, long.clone()).await.expect_err("too long");
    assert!(matches!(error, ClientError::BadRequest { .. }), "{error}");
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    let request = Request::KeepSpan { object, group: 0, span: Box::new(long) };
    match raw.ask(&request, &[]).await {
        Response::Error(error) => assert_eq!(error.code, ErrorCode::BadRequest),
        other => panic!("expected an error, got {other:?}"),
    }
    assert_eq!(setup.relay.metrics().rejected(Reason::TooLarge), 1);
    assert_eq!(setup.backend.content.lock().spans, [((object, 0), span)].into());
}

#[tokio::test]
async fn a_node_says_who_it_is_whom_it_knows_and_what_it_keeps() {
    let setup = Setup::new();
    let (client, peer) = (setup.stranger(), setup.peer());
    let welcome = client.connect(&peer).await.expect("a connection");
    assert_eq!(welcome.node.body_unverified().node, id_of(&setup.node_key));
    assert_eq!(welcome.node.body_unverified().network, NETWORK);
    assert_eq!(welcome.streams_max, 64);
    assert!(welcome.agent.starts_with("supernode/"), "{}", welcome.agent);
    assert_eq!(client.members(&peer, None).await.expect("itself"), [welcome.node]);
    assert_eq!(client.status(&peer).await.expect("figures").capacity_bytes, 1 << 40);
    client.close().await;
    assert!(client.status(&peer).await.is_err(), "a closed client stays closed");
}

#[tokio::test]
async fn what_is_not_there_is_said_to_be_not_there() {
    let setup = Setup::new();
    let (client, peer) = (setup.stranger(), setup.peer());
    let nowhere = ShardId::of(b"nowhere");
    for error in [
        client.shard(&peer, nowhere, 64).await.expect_err("no such shard"),
        client.shard_range(&peer, nowhere, 64, 0..1).await.expect_err("no such shard"),
        client.group(&peer, Cid::of(b""), 0, true).await.expect_err("no such object"),
        client.stat(&peer, Cid::of(b""), 3).await.expect_err("no such group"),
    ] {
        assert_eq!(error.code(), Some(ErrorCode::NotFound), "{error}");
        assert_eq!(error.node(), Some(peer.node));
    }
    assert_eq!(setup.relay.metrics().requests_inflight, 0);
}
