// SPDX-License-Identifier: MIT OR Apache-2.0
//! Endpoints break, go silent, fall behind and come back: what is shown follows, and no block that
//! was made meanwhile is lost to a reader.

use std::time::Duration;

use supernode_chain::{Account, BlockRef, Chain, ChainConfig, ChainError, Standing, Until};
use supernode_devchain::{DevChain, Faults, Head, Options};

use super::eventually::{PATIENCE, soon, view};
use super::harness::{
    CLIENT, WEALTH, block_of, by_hand, config, config_of, connect, key, reserve, start, urls,
};

async fn seal(chain: &DevChain, count: usize) -> Vec<BlockRef> {
    let mut blocks = Vec::new();
    for _ in 0..count {
        blocks.push(block_of(chain.seal().await.expect("the chain runs")));
    }
    blocks
}

async fn shows(client: &Chain, best: Head) {
    let wanted = Some(block_of(best));
    view(client, "the best block is shown", |view| view.best == wanted).await;
}

async fn is_lost(client: &Chain) {
    let lost = view(client, "the loss is seen", |view| view.best.is_none()).await;
    assert!(matches!(lost.standing, Standing::Unreachable { .. }), "{lost:?}");
    assert_eq!(lost.finalised, None, "what is not seen is not shown");
    let answer = client.at_finalised().await.map(|at| at.block());
    let Err(ChainError::Unreachable { .. }) = answer else { panic!("{answer:?}") };
    let answer = client.block_at(1).await;
    assert!(matches!(answer, Err(ChainError::Unreachable { .. })), "{answer:?}");
}

/// Every block is readable by height and by hash, with its facts and its place in the chain.
async fn are_readable(client: &Chain, blocks: &[BlockRef]) {
    for block in blocks {
        assert_eq!(client.block_at(block.height).await, Ok(*block));
        let at = client.at(*block).await.expect("the chain has it");
        let balance = at.balance(key(CLIENT).account()).await;
        assert_eq!(balance, Ok(WEALTH));
        assert_eq!(at.deal_events().await, Ok(Vec::new()));
    }
    for pair in blocks.windows(2) {
        let at = client.at(pair[1]).await.expect("the chain has it");
        assert_eq!(at.parent().await, Ok(pair[0].hash));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_made_again_and_nothing_is_missed() {
    let chain = start(by_hand()).await;
    let client = connect(config_of(&chain)).await;
    let mut blocks = seal(&chain, 2).await;
    shows(&client, chain.best()).await;
    for _ in 0..3 {
        chain.set_faults(0, Faults { refuse_connections: true, ..Faults::default() });
        is_lost(&client).await;
        blocks.extend(seal(&chain, 4).await);
        chain.set_faults(0, Faults::default());
        shows(&client, chain.best()).await;
        are_readable(&client, &blocks).await;
    }
    let finalised = client.view().borrow().finalised;
    assert_eq!(finalised, Some(block_of(chain.finalised())));
    let beyond = client.block_at(1_000).await;
    assert!(matches!(beyond, Err(ChainError::NoSuchBlock { .. })), "{beyond:?}");
    let nowhere = BlockRef { height: 3, hash: [9; 32] };
    let nowhere = client.at(nowhere).await.err();
    assert!(nowhere.is_some(), "a hash that nobody has");
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_after_some_questions_is_no_loss_of_facts() {
    let chain = start(by_hand()).await;
    let client = connect(config_of(&chain)).await;
    let blocks = seal(&chain, 3).await;
    // A connect takes about a dozen questions: each connection lives for a few looks.
    let faults = Faults { drop_after_requests: Some(40), ..Faults::default() };
    chain.set_faults(0, faults);
    let later = seal(&chain, 12).await;
    chain.set_faults(0, Faults::default());
    shows(&client, chain.best()).await;
    are_readable(&client, &blocks).await;
    are_readable(&client, &later).await;
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_stops_and_starts_is_followed_again() {
    let dir = tempfile::tempdir().expect("there is room");
    let kept = Options { dir: Some(dir.path().to_owned()), ..by_hand() };
    let mut chain = start(kept.clone()).await;
    let client = connect(config_of(&chain)).await;
    let mut blocks = seal(&chain, 3).await;
    shows(&client, chain.best()).await;
    let same_place = Options { listen: vec![chain.address()], ..kept };
    for _ in 0..2 {
        chain.stop().await;
        is_lost(&client).await;
        chain = start(same_place.clone()).await;
        blocks.extend(seal(&chain, 3).await);
        shows(&client, chain.best()).await;
        are_readable(&client, &blocks).await;
    }
    // What signs works over the new connection, too.
    let account = Account::start(client.clone(), key(CLIENT));
    let call = tokio::spawn(async move { account.submit(reserve(5), Until::InBlock).await });
    super::eventually::answer("the call waits", || super::harness::pending(&chain), |n| *n == 1)
        .await;
    chain.seal().await.expect("the chain runs");
    let done = soon("the call", call).await.expect("no panic").expect("there is money");
    assert_eq!(done.block, block_of(chain.best()));
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_announces_no_heads_is_followed_by_the_heartbeat() {
    let chain = start(by_hand()).await;
    let client = connect(config_of(&chain)).await;
    chain.set_faults(0, Faults { silent_heads: true, ..Faults::default() });
    for _ in 0..3 {
        seal(&chain, 2).await;
        shows(&client, chain.best()).await;
        let finalised = block_of(chain.finalised());
        view(&client, "finality is shown", |view| view.finalised == Some(finalised)).await;
    }
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_announced_need_no_heartbeat() {
    let chain = start(by_hand()).await;
    let client = connect(ChainConfig { heartbeat_secs: 3_600, ..config_of(&chain) }).await;
    for _ in 0..3 {
        seal(&chain, 2).await;
        shows(&client, chain.best()).await;
    }
    chain.reorg(2).await.expect("the blocks are not final");
    shows(&client, chain.best()).await;
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_endpoint_that_is_behind_speaks_for_itself() {
    let ahead = start(by_hand()).await;
    let behind = start(by_hand()).await;
    assert_eq!(ahead.genesis_hash(), behind.genesis_hash(), "one genesis, one chain");
    let both = [urls(&ahead), urls(&behind)].concat();
    let client = connect(config(ahead.genesis_hash().0, &both)).await;
    soon("both endpoints", client.settled(PATIENCE)).await;
    seal(&ahead, 6).await;
    shows(&client, ahead.best()).await;
    let first = client.at_best().await.expect("connected").block();
    assert_eq!(first, block_of(ahead.best()));
    let others = client.others().await;
    let [(url, answer)] = others.as_slice() else { panic!("{} others", others.len()) };
    assert_eq!(*url, behind.url());
    let second = answer.as_ref().map(|at| at.block()).expect("it answers");
    assert_eq!(second, block_of(behind.finalised()), "its own word, not the first one's");
    let views = client.views();
    assert_eq!(views.iter().map(|(url, _)| url.clone()).collect::<Vec<_>>(), both);
    assert_eq!(views[1].1.best, Some(block_of(behind.best())));
    ahead.stop().await;
    behind.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_endpoint_that_is_gone_or_mute_holds_nobody_up() {
    let mut options = by_hand();
    options.listen = vec![options.listen[0]; 2];
    let chain = start(options).await;
    chain.set_faults(1, Faults { refuse_connections: true, ..Faults::default() });
    let brief = ChainConfig { request_timeout_secs: 1, ..config_of(&chain) };
    let client = connect(brief).await;
    seal(&chain, 3).await;
    shows(&client, chain.best()).await;
    let others = client.others().await;
    assert!(matches!(others[0].1, Err(ChainError::Unreachable { .. })), "it is not there");

    // It is there, and every answer is later than anybody waits for.
    let mute = Faults { delay_millis: 3_600_000, ..Faults::default() };
    chain.set_faults(1, mute);
    soon("the end of patience", client.settled(Duration::from_secs(2))).await;
    seal(&chain, 3).await;
    shows(&client, chain.best()).await;
    let others = client.others().await;
    assert!(matches!(others[0].1, Err(ChainError::Unreachable { .. })), "it says nothing");
    assert!(client.at_finalised().await.is_ok(), "the first is not touched");
    chain.stop().await;
}
