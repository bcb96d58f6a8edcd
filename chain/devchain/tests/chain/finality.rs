// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finality: it follows at its distance, it stalls, and after a stall it jumps without a gap.

use std::time::Duration;

use subxt::rpcs::client::rpc_params;
use supernode_devchain::{Options, Seal};

use super::harness::{by_hand, client, height, next, rpc, soon, start};

#[tokio::test(flavor = "multi_thread")]
async fn finality_lags_stalls_and_jumps() {
    let chain = start(Options { finality_lag: 3, ..by_hand() }).await;
    let rpc = rpc(&chain.url()).await;
    let mut heads = rpc
        .subscribe(
            "chain_subscribeFinalizedHeads",
            rpc_params![],
            "chain_unsubscribeFinalizedHeads",
        )
        .await
        .expect("it is a stream");
    assert_eq!(height(&next(&mut heads).await), 0, "the first item is the present");
    for best in 2..=6 {
        assert_eq!(chain.seal().await.expect("the chain runs").number, best);
        assert_eq!(chain.finalised().number, best.saturating_sub(3));
    }
    for expected in 1..=3 {
        assert_eq!(height(&next(&mut heads).await), expected);
    }
    chain.stall_finality(true).await.expect("the chain runs");
    for _ in 0..5 {
        chain.seal().await.expect("the chain runs");
    }
    assert_eq!(chain.finalised().number, 3);
    chain.stall_finality(false).await.expect("the chain runs");
    assert_eq!(chain.finalised().number, 8);
    assert_eq!(height(&next(&mut heads).await), 8, "a jump is one item, as with a real node");
    chain.set_finality_lag(0).await.expect("the chain runs");
    assert_eq!(height(&next(&mut heads).await), 11);
    chain.set_finality_lag(9).await.expect("the chain runs");
    assert_eq!(chain.finalised().number, 11, "what is final stays final");
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_stream_has_every_block_across_a_jump() {
    let chain = start(Options { finality_lag: 0, ..by_hand() }).await;
    let client = client(&chain).await;
    let mut blocks = client.stream_blocks().await.expect("it is a stream");
    let mut seen = Vec::new();
    let mut take = async |count: usize| {
        for _ in 0..count {
            let block = soon("a block", blocks.next()).await.expect("the stream is open");
            seen.push(block.expect("the block is known").number());
        }
        seen.clone()
    };
    assert_eq!(take(1).await, [1]);
    chain.stall_finality(true).await.expect("the chain runs");
    for _ in 0..6 {
        chain.seal().await.expect("the chain runs");
    }
    chain.stall_finality(false).await.expect("the chain runs");
    assert_eq!(take(6).await, [1, 2, 3, 4, 5, 6, 7]);
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_makes_blocks() {
    let seal = Seal::Every(Duration::from_millis(20));
    let chain = start(Options { seal, ..Options::default() }).await;
    let client = client(&chain).await;
    let mut blocks = client.stream_best_blocks().await.expect("it is a stream");
    let mut last = 0;
    for _ in 0..5 {
        let block = soon("a block", blocks.next()).await.expect("the stream is open");
        last = block.expect("the block is known").number().max(last);
    }
    assert!(last >= 5, "five blocks of a chain that began at 1 reach {last}");
    chain.stop().await;
}
