// SPDX-License-Identifier: MIT OR Apache-2.0
//! Storage as clients read it: page by page, at any block, as a subscription; and the constants.

use serde_json::{Value, json};
use sp_runtime::AccountId32;
use subxt::dynamic;
use subxt::rpcs::client::rpc_params;
use subxt_signer::sr25519::dev;
use supernode_devchain::{Genesis, Options, genesis_hash, metadata};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::{
    balance_at, by_hand, client, next, rpc, signed_transfer, soon, start, stranger,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_a_thousand_keys_is_read_page_by_page() {
    let mut genesis = Genesis::default();
    let known = genesis.balances.len();
    genesis.balances.extend((0..1_000u32).map(|index| {
        let mut account = [3; 32];
        account[..4].copy_from_slice(&index.to_be_bytes());
        (AccountId32::new(account), 1_000 + u128::from(index))
    }));
    let chain = start(Options { genesis: Some(genesis), ..by_hand() }).await;
    let client = client(&chain).await;
    let at = client.at_current_block().await.expect("there is a block");
    let address = dynamic::storage::<([u8; 32],), dynamic::Value>("System", "Account");
    let mut all = at.storage().iter(address, ()).await.expect("it is a map");
    let mut seen = std::collections::HashSet::new();
    while let Some(entry) = all.next().await {
        assert!(seen.insert(entry.expect("pages follow each other").key_bytes().to_vec()));
    }
    // The pallet's own account has its minimum balance from the genesis on.
    assert_eq!(seen.len(), known + 1_000 + 1);
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_states_stay_readable_and_changes_are_told() {
    let chain = start(by_hand()).await;
    let client = client(&chain).await;
    let rpc = rpc(&chain.url()).await;
    let before = chain.best();
    // System.Number: twox128 of the two names.
    let number = "0x26aa394eea5630e07c48ae0c9558cef702a5c1b19ab7a04f536c519aca4983ac";
    let mut changes = rpc
        .subscribe::<Value>(
            "state_subscribeStorage",
            rpc_params![[number]],
            "state_unsubscribeStorage",
        )
        .await
        .expect("one key is not too many");
    let told = |block, value: &str| json!({ "block": block, "changes": [[number, value]] });
    assert_eq!(next(&mut changes).await, told(before.hash, "0x01000000"));

    let transfer = signed_transfer(&client, &dev::alice(), stranger(5), 0).await;
    rpc.request::<Value>("author_submitExtrinsic", rpc_params![transfer])
        .await
        .expect("it is valid");
    let after = chain.seal().await.expect("the chain runs");
    assert_eq!(next(&mut changes).await, told(after.hash, "0x02000000"));
    assert_eq!(balance_at(&client, before.hash.0, stranger(5)).await, 0);
    assert_eq!(balance_at(&client, after.hash.0, stranger(5)).await, 1_000);

    let answer: Value = rpc
        .request("state_queryStorageAt", rpc_params![[number, "0x00"], before.hash])
        .await
        .expect("two keys are not too many");
    let expected = json!([{
        "block": before.hash,
        "changes": [[number, "0x01000000"], ["0x00", null]],
    }]);
    assert_eq!(answer, expected);
    let size: Value =
        rpc.request("state_getStorageSize", rpc_params![number]).await.expect("it is");
    assert_eq!(size, json!(4));
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identity_of_a_chain_is_known_before_it_runs() {
    let genesis = Genesis::default();
    let chain = start(by_hand()).await;
    assert_eq!(genesis_hash(&genesis).expect("it makes a chain"), chain.genesis_hash());
    let named = Genesis { name: "Another".to_owned(), ..genesis.clone() };
    assert_ne!(genesis_hash(&named).expect("it makes a chain"), chain.genesis_hash());
    let text = serde_json::to_string(&genesis).expect("it is plain data");
    assert_eq!(serde_json::from_str::<Genesis>(&text).expect("it was written so"), genesis);

    let twice = [genesis.balances.as_slice(), genesis.balances.as_slice()].concat();
    let mut contradicting = genesis.parameters.clone();
    contradicting.audit_interval = contradicting.audit_window;
    let nothing = vec![(genesis.balances[0].0.clone(), 0)];
    for (wrong, reason) in [
        (Genesis { balances: twice, ..genesis.clone() }, "stands twice"),
        (Genesis { balances: nothing, ..genesis.clone() }, "owns nothing"),
        (Genesis { name: String::new(), ..genesis.clone() }, "the name"),
        (Genesis { parameters: contradicting, ..genesis.clone() }, "contradict"),
    ] {
        let refusal = genesis_hash(&wrong).expect_err(reason).to_string();
        assert!(refusal.contains(reason), "{refusal}");
    }

    let rpc = rpc(&chain.url()).await;
    let versions: String = rpc
        .request("state_call", rpc_params!["Metadata_metadata_at_version", "0x10000000"])
        .await
        .expect("it is a runtime API");
    let own = super::harness::hex(&metadata());
    assert!(versions.ends_with(own.trim_start_matches("0x")), "the newest version is saved");
    let methods: Value = rpc.request("rpc_methods", rpc_params![]).await.expect("it answers");
    let methods = methods["methods"].as_array().expect("a list").clone();
    assert!(methods.contains(&json!("chain_subscribeNewHeads")));
    let modern = |name: &Value| name.as_str().is_some_and(|name| name.contains("_v1_"));
    assert!(!methods.iter().any(modern), "a newer family would be taken for whole");
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_http_request_is_answered_too() {
    let chain = start(by_hand()).await;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"chain_getBlockHash","params":[0]}"#;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(chain.address()).await.expect("the chain listens");
    stream.write_all(request.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.expect("it is text");
    let json = answer.split("\r\n\r\n").nth(1).expect("a body follows the head");
    let answer: Value = serde_json::from_str(json).expect("it is JSON");
    assert_eq!(answer["result"], json!(chain.genesis_hash()), "{answer}");
    chain.stop().await;
}
