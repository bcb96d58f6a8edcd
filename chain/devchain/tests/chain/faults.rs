// SPDX-License-Identifier: MIT OR Apache-2.0
//! A listener misbehaves as told, its neighbour on the same chain does not, and both are bounded.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subxt::rpcs::RpcClient;
use subxt::rpcs::client::rpc_params;
use supernode_devchain::{DevChain, Faults, Options, RpcLimits};

use super::harness::{by_hand, height, next, rpc, soon, start};

const FAULTY: usize = 1;

/// One chain with an honest and a faulty listener.
async fn pair() -> (DevChain, RpcClient, RpcClient) {
    let mut options = by_hand();
    options.listen = vec![options.listen[0]; 2];
    let chain = start(options).await;
    let honest = rpc(&chain.url()).await;
    let faulty = rpc(&format!("ws://{}", chain.addresses()[FAULTY])).await;
    (chain, honest, faulty)
}

async fn ask(rpc: &RpcClient) -> Result<Value, String> {
    let answer = soon("an answer", rpc.request("system_chain", rpc_params![])).await;
    answer.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_refused_and_welcome_again() {
    let (chain, honest, faulty) = pair().await;
    ask(&faulty).await.expect("all is well");
    chain.set_faults(FAULTY, Faults { refuse_connections: true, ..Faults::default() });
    ask(&faulty).await.expect_err("the connection was closed");
    let url = format!("ws://{}", chain.addresses()[FAULTY]);
    soon("a refusal", RpcClient::from_insecure_url(&url)).await.expect_err("none are taken");
    ask(&honest).await.expect("the other listener is not touched");
    honest
        .request::<Value>("dev_setFaults", rpc_params![json!({}), FAULTY])
        .await
        .expect("controls are on");
    ask(&rpc(&url).await).await.expect("all is well again");
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_cut_after_so_many_requests() {
    let (chain, honest, _) = pair().await;
    let faults = Faults { drop_after_requests: Some(3), ..Faults::default() };
    chain.set_faults(FAULTY, faults);
    let url = format!("ws://{}", chain.addresses()[FAULTY]);
    for _ in 0..2 {
        let connection = rpc(&url).await;
        for _ in 0..3 {
            ask(&connection).await.expect("these are free");
        }
        ask(&connection).await.expect_err("the fourth is one too many");
    }
    for _ in 0..8 {
        ask(&honest).await.expect("the other listener is not touched");
    }
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_late_or_wrong_by_name() {
    let (chain, honest, faulty) = pair().await;
    chain.set_faults(FAULTY, Faults { delay_millis: 300, ..Faults::default() });
    let began = Instant::now();
    ask(&faulty).await.expect("late is not wrong");
    assert!(began.elapsed() >= Duration::from_millis(300));
    let failing_methods = BTreeSet::from(["system_chain".to_owned()]);
    chain.set_faults(FAULTY, Faults { failing_methods, ..Faults::default() });
    let refused = ask(&faulty).await.expect_err("this method fails");
    assert!(refused.contains("injected fault"), "{refused}");
    let other: Value =
        faulty.request("system_name", rpc_params![]).await.expect("others do not fail");
    assert_eq!(other, json!("supernode-devchain"));
    ask(&honest).await.expect("the other listener is not touched");
    faulty
        .request::<Value>("dev_setFaults", rpc_params![json!({})])
        .await
        .expect("controls pass every fault");
    ask(&faulty).await.expect("all is well again");
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_listener_keeps_its_heads_to_itself() {
    let (chain, honest, faulty) = pair().await;
    let mut streams = Vec::new();
    for rpc in [&honest, &faulty] {
        let heads = rpc
            .subscribe("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads")
            .await
            .expect("it is a stream");
        streams.push(heads);
    }
    for heads in &mut streams {
        assert_eq!(height(&next(heads).await), 1);
    }
    chain.set_faults(FAULTY, Faults { silent_heads: true, ..Faults::default() });
    chain.seal().await.expect("the chain runs");
    assert_eq!(height(&next(&mut streams[0]).await), 2);
    ask(&faulty).await.expect("the listener still answers");
    let quiet = tokio::time::timeout(Duration::from_millis(300), streams[1].next()).await;
    assert!(quiet.is_err(), "nothing is told");
    chain.set_faults(FAULTY, Faults::default());
    chain.seal().await.expect("the chain runs");
    // Block 2 may still be told if a busy machine has not got round to swallowing it.
    while height(&next(&mut streams[1]).await) < 3 {}
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_subscriptions_and_requests_are_bounded() {
    let limits = RpcLimits {
        connections_max: 2,
        subscriptions_per_connection_max: 3,
        request_bytes_max: 4096,
        ..RpcLimits::default()
    };
    let chain = start(Options { rpc: limits, ..by_hand() }).await;
    let first = rpc(&chain.url()).await;
    let second = rpc(&chain.url()).await;
    soon("a refusal", RpcClient::from_insecure_url(chain.url()))
        .await
        .expect_err("there are two already");
    let mut held = Vec::new();
    for count in 0..4 {
        let heads = first
            .subscribe::<Value>(
                "chain_subscribeNewHeads",
                rpc_params![],
                "chain_unsubscribeNewHeads",
            )
            .await;
        assert_eq!(heads.is_ok(), count < 3, "subscription {count}");
        held.push(heads);
    }
    let long = "0x".to_owned() + &"00".repeat(4096);
    second
        .request::<Value>("author_submitExtrinsic", rpc_params![long])
        .await
        .expect_err("it is too long");
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn controls_are_offered_only_where_an_option_says_so() {
    let chain = start(Options { controls: false, ..by_hand() }).await;
    let rpc = rpc(&chain.url()).await;
    let refused = rpc.request::<Value>("dev_seal", rpc_params![]).await;
    assert!(format!("{refused:?}").contains("-32601"), "{refused:?}");
    chain.stop().await;
}
