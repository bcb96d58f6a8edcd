// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hedged reads: a slow holder loses to the next one and is let go of.

use std::sync::Arc;
use std::time::Duration;

use supernode_client::{ClientError, Hedge};
use supernode_protocol::wire::ErrorCode;
use supernode_tls::codes::CloseCode;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::node::{GROUP, Node, SOON, Shard, client, honest, node};

const LEN: usize = 12 * 16_384;
const NEVER: Option<Duration> = Some(Duration::from_secs(3600));
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

/// A node that sends `groups` groups at most and nothing more, and tells when it is let go of.
fn stuck(shard: &Shard, groups: Option<u64>) -> (Node, Arc<Notify>) {
    let released = Arc::new(Notify::new());
    let (shard, tell) = (shard.clone(), Arc::clone(&released));
    let node = node(move |mut ask| {
        let (answer, tell) = (shard.answer(ask.range()), Arc::clone(&tell));
        async move {
            if let Some(groups) = groups {
                ask.write(answer.first(groups * GROUP)).await;
            }
            if ask.given_up().await == Some(CloseCode::Cancelled.to_varint()) {
                tell.notify_one();
            }
        }
    });
    (node, released)
}

#[tokio::test]
async fn a_slow_holder_loses_and_its_stream_is_released_on_both_sides() {
    let shard = Shard::new("hedged", LEN);
    // An answer that has begun wins only with a verified group.
    for begun in [None, Some(0)] {
        let (slow, released) = stuck(&shard, begun);
        let good = honest(&shard);
        let client = client();
        let holders = [slow.peer.clone(), good.peer.clone()];
        let hedge = Hedge { holders: &holders, after: Some(Duration::from_millis(20)) };
        let reader = client.read_hedged(hedge, shard.wanted()).await.expect("one is quick");
        assert_eq!(reader.rest().await.expect("all of it"), shard.bytes);
        timeout(SOON, released.notified()).await.expect("the slow one is told");
        assert_eq!((slow.requests.lock().len(), good.requests.lock().len()), (1, 1));
        let statistics = client.statistics();
        assert_eq!((statistics.hedges, statistics.hedges_won), (1, 1));
    }
}

#[tokio::test]
async fn without_a_given_time_the_usual_one_counts() {
    let shard = Shard::new("hedged", LEN);
    let (slow, released) = stuck(&shard, None);
    let good = honest(&shard);
    let client = client();
    let holders = [slow.peer.clone(), good.peer.clone()];
    let hedge = Hedge { holders: &holders, after: None };
    let read = timeout(SOON, client.read_hedged(hedge, shard.wanted())).await;
    read.expect("a hedge is sent").expect("one is quick");
    timeout(SOON, released.notified()).await.expect("the slow one is told");
    assert_eq!(client.statistics().hedges, 1);
}

#[tokio::test]
async fn a_quick_holder_is_not_hedged() {
    let shard = Shard::new("hedged", LEN);
    let (good, spare) = (honest(&shard), honest(&shard));
    let client = client();
    let holders = [good.peer.clone(), spare.peer.clone()];
    let hedge = Hedge { holders: &holders, after: NEVER };
    let reader = client.read_hedged(hedge, shard.wanted()).await.expect("served");
    assert_eq!(reader.rest().await.expect("all of it"), shard.bytes);
    assert_eq!((good.requests.lock().len(), spare.requests.lock().len()), (1, 0));
    assert_eq!(client.statistics().hedges, 0);
}

#[tokio::test]
async fn a_holder_that_fails_is_replaced_at_once() {
    let shard = Shard::new("hedged", LEN);
    let absent = node(|ask| async move { ask.say_error(ErrorCode::NotFound, None).await });
    let busy = node(|ask| async move { ask.say_error(ErrorCode::Busy, Some(3_600_000)).await });
    let good = honest(&shard);
    let client = client();
    let holders = [absent.peer.clone(), busy.peer.clone(), good.peer.clone()];
    let hedge = Hedge { holders: &holders, after: NEVER };
    let read = timeout(SOON, client.read_hedged(hedge, shard.wanted())).await;
    let reader = read.expect("nobody waited").expect("the third one");
    assert_eq!(reader.rest().await.expect("all of it"), shard.bytes);
    assert_eq!(client.statistics().hedges, 0, "that was no hedge");
    let hedge = Hedge { holders: &holders[..1], after: AT_ONCE };
    let error = client.read_hedged(hedge, shard.wanted()).await.expect_err("nobody has it");
    assert_eq!(error.code(), Some(ErrorCode::NotFound));
    let hedge = Hedge { holders: &[], after: AT_ONCE };
    let error = client.read_hedged(hedge, shard.wanted()).await.expect_err("nobody to ask");
    assert!(matches!(error, ClientError::Setup { .. }), "{error}");
}

#[tokio::test]
async fn when_all_are_busy_the_first_that_is_free_again_serves() {
    let shard = Shard::new("hedged", LEN);
    let served = shard.clone();
    let busy = node(move |mut ask| {
        let answer = served.answer(ask.range());
        async move {
            if ask.number == 0 {
                return ask.say_error(ErrorCode::Busy, Some(10)).await;
            }
            ask.write(answer.to_bytes()).await;
            ask.end().await;
        }
    });
    let client = client();
    let holders = [busy.peer.clone()];
    let hedge = Hedge { holders: &holders, after: AT_ONCE };
    let reader = client.read_hedged(hedge, shard.wanted()).await.expect("served later");
    assert_eq!(reader.rest().await.expect("all of it"), shard.bytes);
}

#[tokio::test]
async fn the_winner_falls_back_on_the_others() {
    let shard = Shard::new("hedged", LEN);
    let served = shard.clone();
    let dying = node(move |mut ask| {
        let bytes = served.answer(ask.range()).first(9 * GROUP);
        async move {
            ask.write(bytes).await;
            ask.end().await;
        }
    });
    let good = honest(&shard);
    let client = client();
    let holders = [dying.peer.clone(), good.peer.clone()];
    let hedge = Hedge { holders: &holders, after: NEVER };
    let reader = client.read_hedged(hedge, shard.wanted()).await.expect("it begins well");
    assert_eq!(reader.rest().await.expect("the other one ends it"), shard.bytes);
    assert_eq!(good.offsets(), [9 * GROUP]);
}
