// SPDX-License-Identifier: MIT OR Apache-2.0
//! Busy nodes are waited for as long as the caller allows; deadlines end everything else.

use std::sync::Arc;
use std::time::Duration;

use supernode_client::ClientError;
use supernode_protocol::wire::{ErrorCode, NodeStatus, Response};
use supernode_tls::codes::CloseCode;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::eventually::pass;
use crate::node::{Node, SOON, Shard, client, client_with, honest, node};

const LONG_MS: Option<u32> = Some(3_600_000);

/// A node that is busy `times` times, and then says how it is.
fn busy(times: usize, retry_after_ms: Option<u32>) -> Node {
    node(move |ask| async move {
        if ask.number < times {
            return ask.say_error(ErrorCode::Busy, retry_after_ms).await;
        }
        let status = NodeStatus {
            shard_count: 1,
            slot_count: 1,
            live_bytes: 1,
            capacity_bytes: 1,
            uptime_secs: 1,
        };
        ask.say(&Response::Status(status)).await;
    })
}

#[tokio::test]
async fn a_busy_node_is_asked_again_when_it_wants_to_be() {
    // Whoever says "at once", or not when, does not make the client spin.
    for (times, retry_after_ms) in [(3, Some(10)), (3, Some(0)), (1, None)] {
        let node = busy(times, retry_after_ms);
        let client = client();
        client.status(&node.peer).await.expect("served in the end");
        assert_eq!(client.statistics().retries, times as u64);
        assert_eq!(client.statistics().requests, times as u64 + 1);
        assert_eq!(client.health(node.peer.node).failures_in_a_row, 0, "busy is no failure");
    }
}

#[tokio::test]
async fn a_wait_that_is_not_allowed_is_not_begun() {
    let shard = Shard::new("busy", 100);
    for (wait, deadline) in [(0, 300), (60, 300), (3600, 300)] {
        let node = busy(usize::MAX, LONG_MS);
        let client = client_with(|config| {
            config.busy_wait_max = Duration::from_secs(wait);
            config.deadline = Duration::from_secs(deadline);
        });
        let both = async {
            let status = client.status(&node.peer).await.map(|_| ());
            (status, client.shard(&node.peer, shard.id, shard.len()).await.map(|_| ()))
        };
        let (status, read) = timeout(SOON, both).await.expect("nothing was waited for");
        for error in [status.expect_err("busy"), read.expect_err("busy")] {
            assert_eq!(error.code(), Some(ErrorCode::Busy));
            assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
            assert!(error.retryable() && error.node() == Some(node.peer.node));
        }
        assert_eq!(client.statistics().retries, 0);
        assert!(client.health(node.peer.node).busy_for > Duration::from_secs(60));
    }
}

#[tokio::test]
async fn another_holder_is_asked_instead_of_waiting() {
    let shard = Shard::new("busy", 40_000);
    let (full, good) = (busy(usize::MAX, LONG_MS), honest(&shard));
    let client = client();
    let holders = [full.peer.clone(), good.peer.clone()];
    for _ in 0..2 {
        let reader = client.read_shard(&holders, shard.wanted()).expect("a read");
        let read = timeout(SOON, reader.rest()).await.expect("nothing was waited for");
        assert_eq!(read.expect("the other one"), shard.bytes);
    }
    assert_eq!(full.requests.lock().len(), 1, "it asked to be left alone");
}

#[tokio::test]
async fn a_busy_holder_of_a_shard_is_waited_for_if_it_is_the_only_one() {
    let shard = Shard::new("busy", 40_000);
    let served = shard.clone();
    let node = node(move |mut ask| {
        let answer = served.answer(ask.range());
        async move {
            if ask.number < 2 {
                return ask.say_error(ErrorCode::Busy, Some(10)).await;
            }
            ask.write(answer.to_bytes()).await;
            ask.end().await;
        }
    });
    let client = client();
    let read = client.shard(&node.peer, shard.id, shard.len()).await;
    assert_eq!(read.expect("served in the end"), shard.bytes);
    assert_eq!(client.statistics().retries, 2);
}

#[tokio::test]
async fn a_call_that_is_not_served_ends_at_its_deadline_on_both_sides() {
    let shard = Shard::new("late", 300_000);
    let released = Arc::new(Semaphore::new(0));
    let tell = Arc::clone(&released);
    let node = node(move |ask| {
        let tell = Arc::clone(&tell);
        async move {
            assert_eq!(ask.given_up().await, Some(CloseCode::Cancelled.to_varint()));
            tell.add_permits(1);
        }
    });
    let patient = client();
    patient.connect(&node.peer).await.expect("a node that welcomes");
    let hasty = patient.with_deadline(Duration::from_millis(500));
    let holders = [node.peer.clone()];
    let mut streamed = hasty.read_shard(&holders, shard.wanted()).expect("a read");
    let mut batch = hasty.read_many(&node.peer, [shard.wanted()]).expect("a batch");
    let calls = async {
        [
            hasty.status(&node.peer).await.map(|_| ()),
            hasty.shard(&node.peer, shard.id, shard.len()).await.map(|_| ()),
            streamed.next().await.map(|_| ()),
            batch.next().await.expect("a result").map(|_| ()),
        ]
    };
    let outcomes = timeout(SOON, calls).await.expect("long before any other time-out");
    for outcome in outcomes {
        let error = outcome.expect_err("too late");
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
        assert!(error.node() == Some(node.peer.node) && error.retryable());
    }
    let all = timeout(SOON, released.acquire_many(4)).await;
    let _all = all.expect("the node sees every stream end").expect("never closed");
    assert_eq!(patient.connection_count(), 1, "the connection itself is alive");
    assert!(streamed.next().await.is_err(), "a reader that failed stays so");
    assert!(batch.next().await.is_none());
}

#[tokio::test]
async fn pauses_of_the_reader_do_not_count() {
    let shard = Shard::new("paused", 2_000_000);
    let node = honest(&shard);
    let client = client_with(|config| {
        config.request_timeout = Duration::from_secs(2);
        config.transfer_bytes_per_sec_min = 1 << 30;
    });
    client.connect(&node.peer).await.expect("a node that welcomes");
    let quick = client.with_deadline(Duration::from_secs(2));
    let mut reader =
        quick.read_shard(std::slice::from_ref(&node.peer), shard.wanted()).expect("a read");
    let mut got = 0;
    while let Some(bytes) = reader.next().await.expect("it is there") {
        if got == 0 {
            pass(Duration::from_millis(2500)).await;
        }
        got += bytes.len();
    }
    assert_eq!(got as u64, shard.len());
    assert_eq!(node.requests.lock().len(), 1);
}
