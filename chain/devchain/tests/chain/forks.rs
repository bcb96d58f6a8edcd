// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reorganisations: what they drop is told, comes back or is lost, and nothing final is touched.

use serde_json::{Value, json};
use subxt::rpcs::RpcClient;
use subxt::rpcs::client::rpc_params;
use subxt_signer::sr25519::dev;
use supernode_devchain::{ControlError, DevChain, Fill, Options, Reorg, Retracted};

use super::harness::{
    balance_at, by_hand, client, height, next, rpc, signed_transfer, start, stranger, watch,
};

async fn forkable() -> DevChain {
    start(Options { finality_lag: 10, ..by_hand() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retracted_transaction_lands_again_in_the_fork() {
    let chain = forkable().await;
    let client = client(&chain).await;
    let rpc = rpc(&chain.url()).await;
    let mut watched =
        watch(&rpc, &signed_transfer(&client, &dev::alice(), stranger(4), 0).await).await;
    let first = chain.seal().await.expect("the chain runs");
    chain.seal().await.expect("the chain runs");
    let best = chain.reorg(2).await.expect("nothing is final");
    assert_eq!(best.number, 4);
    assert_eq!(next(&mut watched).await, json!("ready"));
    assert_eq!(next(&mut watched).await, json!({ "inBlock": first.hash }));
    assert_eq!(next(&mut watched).await, json!({ "retracted": first.hash }));
    let landed = hash_of(&rpc, 2).await;
    assert_ne!(landed, json!(first.hash));
    assert_eq!(next(&mut watched).await, json!({ "inBlock": landed }));
    assert_eq!(balance_at(&client, best.hash.0, stranger(4)).await, 1_000, "paid once");
    assert_eq!(balance_at(&client, first.hash.0, stranger(4)).await, 1_000, "forks stay readable");
    chain.set_finality_lag(0).await.expect("the chain runs");
    assert_eq!(next(&mut watched).await, json!({ "finalized": landed }));
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_forks_return_or_lose_what_they_drop() {
    for (retracted, last, expected) in
        [(Retracted::Return, "ready", 1_000), (Retracted::Lose, "dropped", 0)]
    {
        let chain = forkable().await;
        let client = client(&chain).await;
        let rpc = rpc(&chain.url()).await;
        let mut watched =
            watch(&rpc, &signed_transfer(&client, &dev::bob(), stranger(6), 0).await).await;
        let first = chain.seal().await.expect("the chain runs");
        let reorg = Reorg { depth: 1, retracted, fill: Fill::Empty };
        let best = chain.reorg(reorg).await.expect("nothing is final");
        assert_eq!(best.number, first.number + 1);
        assert_eq!(next(&mut watched).await, json!("ready"));
        assert_eq!(next(&mut watched).await, json!({ "inBlock": first.hash }));
        assert_eq!(next(&mut watched).await, json!({ "retracted": first.hash }));
        assert_eq!(next(&mut watched).await, json!(last));
        assert_eq!(balance_at(&client, best.hash.0, stranger(6)).await, 0);
        let after = chain.seal().await.expect("the chain runs");
        assert_eq!(balance_at(&client, after.hash.0, stranger(6)).await, expected);
        chain.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_not_final_can_be_replaced() {
    let chain = start(Options { finality_lag: 2, ..by_hand() }).await;
    for _ in 0..4 {
        chain.seal().await.expect("the chain runs");
    }
    let reorg = |depth: u32| chain.reorg(depth);
    for depth in [0, 3, u32::MAX] {
        let refused = reorg(depth).await.expect_err("it would undo finality");
        assert!(matches!(refused, ControlError::Depth { possible: 2, .. }), "{refused}");
    }
    let finalised = chain.finalised();
    let rpc = rpc(&chain.url()).await;
    let mut best = rpc
        .subscribe("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads")
        .await
        .expect("it is a stream");
    let mut all = rpc
        .subscribe("chain_subscribeAllHeads", rpc_params![], "chain_unsubscribeAllHeads")
        .await
        .expect("it is a stream");
    assert_eq!(height(&next(&mut best).await), 5);
    assert_eq!(height(&next(&mut all).await), 5);
    let head: Value = rpc.request("dev_reorg", rpc_params![2]).await.expect("controls are on");
    assert_eq!(head["number"], json!(6));
    assert_eq!(height(&next(&mut best).await), 6, "only a longer fork becomes the best");
    for expected in 4..=6 {
        assert_eq!(height(&next(&mut all).await), expected);
    }
    assert_eq!(hash_of(&rpc, finalised.number).await, json!(finalised.hash));
    assert_eq!(chain.finalised().number, 4, "finality goes on along the fork");
    chain.stop().await;
}

async fn hash_of(rpc: &RpcClient, number: u32) -> Value {
    rpc.request("chain_getBlockHash", rpc_params![number]).await.expect("it answers")
}
