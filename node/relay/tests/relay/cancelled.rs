// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests that nobody waits for any more leave nothing behind on either end.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use supernode_protocol::ids::ShardId;

use crate::raw::{Raw, message};
use crate::setup::{Setup, bytes_of, eventually, put_of};

/// Lets `future` run for `turns` turns of the scheduler, and tells whether it is done.
async fn poll_times<F: Future>(mut future: Pin<&mut F>, turns: usize) -> bool {
    for _ in 0..turns {
        let done = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if done {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

/// Starts `request` and loses interest after some turns. Returns whether it was done by then.
async fn abandon(request: impl Future, turns: usize) -> bool {
    poll_times(pin!(request), turns).await
}

async fn assert_all_is_free(setup: &Setup) {
    eventually("no request is under way", || setup.relay.metrics().requests_inflight == 0).await;
    eventually("no memory is held", || setup.relay.metrics().body_bytes_in_flight == 0).await;
    let metrics = setup.relay.metrics();
    assert_eq!((metrics.requests_waiting, metrics.budget_waiting), (0, 0), "{metrics:?}");
    assert_eq!(metrics.permits_free, 8, "{metrics:?}");
    assert_eq!(metrics.connections_total, 1, "one connection served all of it");
}

#[tokio::test]
async fn a_thousand_cancelled_requests_leave_streams_and_permits_free() {
    let setup = Setup::with(|config| {
        config.requests_max = 8;
        config.class.gateway.requests_max = 8;
        config.streams_per_connection_max = 8;
        config.class.gateway.requests_burst = 100_000;
    });
    let (client, peer) = (setup.writer(), setup.peer());
    let bytes = bytes_of(300_000);
    let shard = ShardId::of(&bytes);
    client.put_shard(&peer, put_of(&bytes)).await.expect("a put");
    setup.backend.is_held.send_replace(true);
    let mut abandoned = 0;
    for round in 0.. {
        let turns = 1 + round % 17;
        let done = match round % 4 {
            0 => abandon(client.status(&peer), turns).await,
            1 => abandon(client.shard(&peer, shard, 300_000), turns).await,
            2 => abandon(client.put_shard(&peer, put_of(&bytes)), turns).await,
            _ => abandon(client.shard_range(&peer, shard, 300_000, 5..200_000), turns).await,
        };
        abandoned += usize::from(!done);
        if abandoned == 1000 {
            break;
        }
    }
    // The backend still holds what it was asked; it is the node that dropped it.
    assert_all_is_free(&setup).await;
    setup.backend.inside(0).await;
    setup.backend.is_held.send_replace(false);
    let all_at_once = (0..8).map(|_| client.shard(&peer, shard, 300_000));
    for got in join(all_at_once).await {
        assert_eq!(got.expect("every stream works"), bytes);
    }
    assert_all_is_free(&setup).await;
}

async fn join<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut outcomes = Vec::new();
    // All are started before the first is waited for.
    let mut started: Vec<_> = futures.into_iter().map(Box::pin).collect();
    for future in &mut started {
        assert!(!poll_times(future.as_mut(), 1).await, "nothing is answered within one turn");
    }
    for future in started {
        outcomes.push(future.await);
    }
    outcomes
}

#[tokio::test]
async fn a_thousand_streams_cut_at_every_point_give_their_permits_back() {
    let setup = Setup::with(|config| {
        config.requests_max = 8;
        config.class.gateway.requests_max = 8;
        config.streams_per_connection_max = 8;
        config.class.gateway.requests_burst = 100_000;
    });
    let bytes = bytes_of(20_000);
    let put = put_of(&bytes);
    let request = supernode_protocol::wire::Request::PutShard {
        upload: put.upload,
        slot: put.slot,
        shard: put.shard,
        len: 20_000,
    };
    let whole = message(&request, &bytes);
    let raw = Raw::greeted(&setup, &setup.writer_key).await;
    for round in 0..1000 {
        let end = whole.len() * (round % 100) / 100;
        let (mut send, mut recv) = raw.open(&whole[..end]).await;
        send.reset(1_u32.into()).expect("an open stream");
        recv.stop(1_u32.into()).expect("an open stream");
    }
    assert_all_is_free(&setup).await;
    let response =
        tokio::time::timeout(Duration::from_secs(10), raw.send(&whole)).await.expect("a stream");
    assert!(matches!(response, supernode_protocol::wire::Response::Stored(_)), "{response:?}");
    assert_all_is_free(&setup).await;
}
