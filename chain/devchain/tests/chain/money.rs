// SPDX-License-Identifier: MIT OR Apache-2.0
//! Transactions: they land, they fail with a reason, two signers do not disturb each other.

use serde_json::{Value, json};
use sp_core::crypto::Ss58Codec;
use sp_core::{Pair, ed25519};
use sp_runtime::AccountId32;
use subxt::dynamic;
use subxt::rpcs::client::rpc_params;
use subxt_signer::sr25519::{Keypair, dev};
use supernode_devchain::runtime::TOKEN;
use supernode_devchain::{Options, Seal};
use supernode_protocol::deal::registration_message;

use super::harness::{
    balance_at, by_hand, client, hex, next, rpc, signed_transfer, soon, start, stranger, transfer,
    watch,
};

fn instant() -> Options {
    Options { seal: Seal::Instant, finality_lag: 0, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_signers_pay_and_the_money_arrives() {
    let chain = start(instant()).await;
    let client = client(&chain).await;
    for round in 1..=3u128 {
        for (signer, id) in [(dev::alice(), 1), (dev::bob(), 2)] {
            let tx = client.tx().await.expect("there is a block");
            let call = transfer(stranger(id), 500);
            let mut tx = tx;
            let progress =
                tx.sign_and_submit_then_watch_default(&call, &signer).await.expect("it is valid");
            let events = soon("finality", progress.wait_for_finalized_success()).await;
            let events = events.expect("there is enough money");
            let names: Vec<_> = events
                .iter()
                .map(|event| event.expect("events decode").event_name().to_owned())
                .collect();
            assert!(names.contains(&"Transfer".to_owned()), "{names:?}");
            let now = balance_at(&client, chain.finalised().hash.0, stranger(id)).await;
            assert_eq!(now, 500 * round);
        }
    }
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_beyond_ones_means_fails_with_the_reason() {
    let chain = start(instant()).await;
    let client = client(&chain).await;
    let mut tx = client.tx().await.expect("there is a block");
    let call = transfer(stranger(9), 2_000_000 * TOKEN);
    let progress = tx
        .sign_and_submit_then_watch_default(&call, &dev::charlie())
        .await
        .expect("the pool does not look into calls");
    let failed = soon("finality", progress.wait_for_finalized_success()).await;
    let text = format!("{:?}", failed.expect_err("nobody owns that much"));
    assert!(text.contains("FundsUnavailable"), "{text}");
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_registers_under_its_own_signature() {
    let chain = start(instant()).await;
    let client = client(&chain).await;
    let owner = dev::dave().public_key().0;
    let operator = dev::eve().public_key().0;
    let node = ed25519::Pair::from_seed(&[7; 32]);
    let message = registration_message(&chain.genesis_hash().0, &owner, &operator);
    for (signature, expected) in [([0; 64], false), (node.sign(&message).0, true)] {
        let call = dynamic::transaction(
            "Supernode",
            "register_node",
            (
                operator,
                node.public().0,
                signature,
                b"eu".to_vec(),
                vec![b"/ip4/127.0.0.1/udp/9002".to_vec()],
                1u64 << 40,
            ),
        );
        let mut tx = client.tx().await.expect("there is a block");
        let progress = tx
            .sign_and_submit_then_watch_default(&call, &dev::dave())
            .await
            .expect("the transaction itself is valid");
        let outcome = soon("finality", progress.wait_for_finalized_success()).await;
        assert_eq!(outcome.is_ok(), expected, "{outcome:?}");
    }
    let at = client.at_current_block().await.expect("there is a block");
    let address = dynamic::storage::<([u8; 32],), u32>("Supernode", "NodeByPeer");
    let index = at.storage().fetch(address, (node.public().0,)).await.expect("it is registered");
    assert_eq!(index.decode().expect("it is an index"), 0);
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonces_ahead_wait_used_ones_are_refused_and_the_pool_counts() {
    let chain = start(by_hand()).await;
    let client = client(&chain).await;
    let rpc = rpc(&chain.url()).await;
    let alice = dev::alice();
    let index = || rpc.request::<u32>("system_accountNextIndex", rpc_params![address(&alice)]);
    let late = signed_transfer(&client, &alice, stranger(1), 1).await;
    let first = signed_transfer(&client, &alice, stranger(1), 0).await;

    let mut late_watch = watch(&rpc, &late).await;
    assert_eq!(next(&mut late_watch).await, json!("future"));
    assert_eq!(index().await.expect("it answers"), 0);
    let mut first_watch = watch(&rpc, &first).await;
    assert_eq!(next(&mut first_watch).await, json!("ready"));
    assert_eq!(next(&mut late_watch).await, json!("ready"));
    assert_eq!(index().await.expect("it answers"), 2, "the pool is counted");
    let pending: Vec<String> =
        rpc.request("author_pendingExtrinsics", rpc_params![]).await.expect("it answers");
    assert_eq!(pending, [late.clone(), first.clone()]);

    let again = rpc.request::<Value>("author_submitExtrinsic", rpc_params![&first]).await;
    assert!(format!("{again:?}").contains("1013"), "{again:?}");
    let block = chain.seal().await.expect("the chain runs");
    for watched in [&mut first_watch, &mut late_watch] {
        assert_eq!(next(watched).await, json!({ "inBlock": block.hash }));
    }
    let used = rpc.request::<Value>("author_submitExtrinsic", rpc_params![&first]).await;
    assert!(format!("{used:?}").contains("1010"), "{used:?}");
    assert!(format!("{used:?}").contains("outdated"), "{used:?}");
    chain.seal().await.expect("the chain runs");
    chain.seal().await.expect("the chain runs");
    for watched in [&mut first_watch, &mut late_watch] {
        assert_eq!(next(watched).await, json!({ "finalized": block.hash }));
    }
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mortal_transaction_dies_in_the_pool() {
    let chain = start(by_hand()).await;
    let client = client(&chain).await;
    let rpc = rpc(&chain.url()).await;
    // Nonce 1 never becomes ready, because nonce 0 never comes.
    let orphan = signed_transfer(&client, &dev::bob(), stranger(1), 1).await;
    let mut orphan = watch(&rpc, &orphan).await;
    assert_eq!(next(&mut orphan).await, json!("future"));
    for _ in 0..64 {
        chain.seal().await.expect("the chain runs");
    }
    assert_eq!(next(&mut orphan).await, json!("invalid"));
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_refused_and_breaks_nothing() {
    let chain = start(by_hand()).await;
    let rpc = rpc(&chain.url()).await;
    let mut refused = Vec::new();
    for (method, params) in [
        ("author_submitExtrinsic", rpc_params!["0x"]),
        ("author_submitExtrinsic", rpc_params!["0x1234"]),
        ("author_submitExtrinsic", rpc_params![hex(&[0xff; 300])]),
        ("author_submitExtrinsic", rpc_params!["not hex"]),
        ("state_call", rpc_params!["AccountNonceApi_account_nonce", "0x00"]),
        ("state_call", rpc_params!["Core_execute_block", hex(&[0; 200])]),
        ("state_call", rpc_params!["No_such_api", "0x"]),
        ("state_getStorage", rpc_params!["0x00", hex(&[1; 32])]),
        ("state_getKeysPaged", rpc_params!["0x", 1_000_000]),
        ("state_queryStorageAt", rpc_params![Vec::<String>::new()]),
        ("chain_getBlockHash", rpc_params!["zero"]),
        ("chain_getHeader", rpc_params!["0x12"]),
        ("system_accountNextIndex", rpc_params!["5Nobody"]),
        ("dev_reorg", rpc_params![7]),
        ("no_such_method", rpc_params![]),
    ] {
        let answer = rpc.request::<Value>(method, params).await;
        refused.push((method, answer.is_err()));
    }
    assert!(refused.iter().all(|(_, refused)| *refused), "{refused:?}");
    assert_eq!(chain.seal().await.expect("the chain runs").number, 2);
    chain.stop().await;
}

fn address(account: &Keypair) -> String {
    AccountId32::new(account.public_key().0).to_ss58check()
}
