// SPDX-License-Identifier: MIT OR Apache-2.0
//! Stopping: requests under way are finished, new ones are refused, nothing is waited for for ever.

use std::time::Duration;

use bytes::Bytes;
use supernode_client::Peer;
use supernode_protocol::ids::ShardId;
use supernode_protocol::wire::ErrorCode;

use crate::proxy::Proxy;
use crate::setup::{Setup, bytes_of, eventually, put_of};

#[tokio::test]
async fn a_stop_lets_requests_finish_and_refuses_new_ones() {
    let setup = Setup::new();
    let (client, peer) = (setup.writer(), setup.peer());
    client.connect(&peer).await.expect("a connection");
    setup.backend.is_held.send_replace(true);
    let under_way = client.status(&peer);
    let stop = async {
        setup.backend.inside(1).await;
        setup.relay.stop(Duration::from_secs(20)).await
    };
    let meanwhile = async {
        setup.backend.inside(1).await;
        let mut refused = client.members(&peer, None).await;
        while refused.is_ok() {
            refused = client.members(&peer, None).await;
        }
        let error = refused.expect_err("the loop ends with one");
        assert_eq!(error.code(), Some(ErrorCode::Unavailable), "{error}");
        setup.backend.is_held.send_replace(false);
    };
    let (status, is_drained, ()) = tokio::join!(under_way, stop, meanwhile);
    status.expect("it was under way");
    assert!(is_drained);
    setup.relay.ended().await;
    assert_eq!(setup.relay.metrics().connections, 0);
    assert!(client.status(&peer).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_stop_does_not_cut_an_answer_that_is_on_its_way() {
    let setup = Setup::new();
    let proxy = Proxy::to(setup.relay.local_addr()).await;
    let peer = Peer { node: setup.peer().node, addresses: vec![proxy.address] };
    let client = setup.writer();
    let bytes = bytes_of(1 << 20);
    let shard = ShardId::of(&bytes);
    client.put_shard(&peer, put_of(&bytes)).await.expect("a put");
    // Nothing reaches the client: the answer is handed to the transport and stays there.
    proxy.drop_answers(true);
    let read = client.shard(&peer, shard, 1 << 20);
    let stop = async {
        let is_handed_over =
            || setup.relay.metrics().shard_retrieval.counts.iter().sum::<u64>() == 1;
        eventually("the answer is handed over", is_handed_over).await;
        let mut stop = std::pin::pin!(setup.relay.stop(Duration::from_secs(20)));
        let early = tokio::time::timeout(Duration::from_millis(50), &mut stop).await;
        assert!(early.is_err(), "the answer has not arrived");
        proxy.drop_answers(false);
        stop.await
    };
    let (got, is_drained): (Result<Bytes, _>, bool) = tokio::join!(read, stop);
    assert_eq!(got.expect("to the last byte"), bytes);
    assert!(is_drained);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_ever() {
    let setup = Setup::new();
    let (client, peer) = (setup.writer(), setup.peer());
    setup.backend.is_held.send_replace(true);
    let stop = async {
        setup.backend.inside(1).await;
        setup.relay.stop(Duration::from_millis(100)).await
    };
    let (status, is_drained) = tokio::join!(client.status(&peer), stop);
    assert!(!is_drained);
    assert!(status.expect_err("cut off").retryable());
}
