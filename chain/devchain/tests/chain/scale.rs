// SPDX-License-Identifier: MIT OR Apache-2.0
//! A hundred thousand keys: how long a cold start and an empty block take. Prints, and bounds
//! loosely.

use std::time::{Duration, Instant};

use sp_runtime::AccountId32;
use supernode_devchain::{Genesis, Options};

use super::harness::{by_hand, start};

const ACCOUNTS: u32 = 100_000;
const BLOCKS: u32 = 50;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run it by name, with --nocapture"]
async fn a_hundred_thousand_keys() {
    let mut genesis = Genesis::default();
    genesis.balances.extend((0..ACCOUNTS).map(|index| {
        let mut account = [5; 32];
        account[..4].copy_from_slice(&index.to_le_bytes());
        (AccountId32::new(account), 1_000)
    }));
    let dir = tempfile::tempdir().expect("there is room");
    let options = Options { dir: Some(dir.path().to_owned()), genesis: Some(genesis), ..by_hand() };
    let began = Instant::now();
    let chain = start(options.clone()).await;
    println!("created in {:?}", began.elapsed());
    let began = Instant::now();
    for _ in 0..BLOCKS {
        chain.seal().await.expect("the chain runs");
    }
    let block = began.elapsed() / BLOCKS;
    println!("an empty block takes {block:?}");
    let best = chain.best();
    chain.stop().await;
    let log = std::fs::metadata(dir.path().join("chain.log")).expect("it is there").len();
    println!("the log has {log} bytes");
    let began = Instant::now();
    let chain = start(Options { genesis: None, ..options }).await;
    let cold = began.elapsed();
    println!("opened again in {cold:?}");
    assert_eq!(chain.best(), best);
    assert!(block < Duration::from_millis(100), "a block must not walk the state: {block:?}");
    chain.stop().await;
}
