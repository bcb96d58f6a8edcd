// SPDX-License-Identifier: MIT OR Apache-2.0
//! One owner of a key: however many ask at once, each call lands exactly once; and when nobody
//! knows what became of a call, it is not sent again. Blocks and pool are read without the client.

use std::collections::BTreeSet;

use supernode_chain::{Account, Call, ChainConfig, Included, TxError, Until};
use supernode_devchain::{DevChain, Faults, Fill, Reorg, Retracted};
use supernode_protocol::deal::{AuditId, DealId};
use tokio::task::{JoinHandle, JoinSet};

use super::eventually::{answer, soon, view};
use super::harness::{
    BEGGAR, CLIENT, by_hand, config_of, connect, instant, key, landed, pending, reserve, start,
};
use super::proxy::Proxy;

/// Submits in the background, because by hand the test itself makes the blocks.
fn submit(account: &Account, call: Call, until: Until) -> JoinHandle<Result<Included, TxError>> {
    let account = account.clone();
    tokio::spawn(async move { account.submit(call, until).await })
}

async fn waiting(chain: &DevChain, count: usize) {
    answer("transactions in the pool", || pending(chain), |found| *found == count).await;
}

async fn ended(work: JoinHandle<Result<Included, TxError>>) -> Result<Included, TxError> {
    soon("the call", work).await.expect("submitting does not panic")
}

#[track_caller]
fn assert_unknown(outcome: Result<Included, TxError>, word: &str) {
    let error = outcome.expect_err("nobody knows");
    assert!(matches!(error, TxError::Unknown { .. }), "{error}");
    assert!(error.to_string().contains(word), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_at_once_land_once_each() {
    let chain = start(instant()).await;
    let client = connect(config_of(&chain)).await;
    let account = Account::start(client, key(CLIENT));
    let mut all = JoinSet::new();
    for number in 0..20 {
        let account = account.clone();
        let call = reserve(1_000 + number);
        all.spawn(async move { account.submit(call, Until::InBlock).await });
    }
    let mut deals = BTreeSet::new();
    while let Some(done) = soon("all calls", all.join_next()).await {
        let included = done.expect("no panic").expect("there is money");
        assert!(deals.insert(included.reserved.expect("a number")), "two calls, one number");
    }
    assert_eq!(deals, (1..=20).map(DealId).collect());
    let found = landed(&chain).await;
    assert_eq!(found.len(), 20);
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 20, "each is another transaction");
    assert_eq!(pending(&chain).await, 0);
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_call_brings_the_pallets_advice_and_the_next_one_lands() {
    let chain = start(instant()).await;
    let client = connect(config_of(&chain)).await;
    let account = Account::start(client.clone(), key(CLIENT));
    let nothing = Call::Renew { deal: DealId(7), duration: 10, max_price: u128::MAX };
    let cheap = Call::Reserve { bytes: 1, duration: 100, max_price: 1 };
    let short = Call::Reserve { bytes: 1, duration: 1, max_price: u128::MAX };
    for (call, name, advice) in [
        (nothing, "UnknownDeal", "read `EndedDeals`"),
        (cheap, "PriceTooHigh", "read `Parameters`"),
        (short, "DurationOutOfRange", "Shorter than `duration_min`"),
        (Call::Cancel { deal: DealId(7) }, "UnknownDeal", "read `EndedDeals`"),
        (Call::ClaimRewards { node: 3 }, "UnknownNode", ""),
    ] {
        let refused = soon("a refusal", account.submit(call, Until::InBlock)).await;
        let Err(TxError::Refused { reason }) = refused else { panic!("{name}: {refused:?}") };
        assert!(reason.contains(&format!("({name})")) && reason.contains(advice), "{reason}");
    }
    let done = soon("a call", account.submit(reserve(5), Until::Finalised)).await;
    assert_eq!(done.expect("there is money").reserved, Some(DealId(1)));
    assert_eq!(landed(&chain).await.len(), 6, "a refused call is in a block too, once");

    // Who owns nothing cannot even ask; that is another story than a refusal.
    let beggar = Account::start(client, key(BEGGAR));
    let refused = soon("a refusal", beggar.submit(reserve(5), Until::InBlock)).await;
    assert!(matches!(refused, Err(TxError::NotAccepted { .. })), "{refused:?}");
    assert_eq!(landed(&chain).await.len(), 6);
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_call_is_unknown_and_not_sent_again() {
    let chain = start(by_hand()).await;
    let client = connect(config_of(&chain)).await;
    let account = Account::start(client, key(CLIENT));
    let call = submit(&account, reserve(5), Until::Finalised);
    waiting(&chain, 1).await;
    chain.seal().await.expect("the chain runs");
    assert_eq!(landed(&chain).await.len(), 1);
    let lose = Reorg { depth: 1, retracted: Retracted::Lose, fill: Fill::Empty };
    chain.reorg(lose).await.expect("the block is not final");
    assert_unknown(ended(call).await, "look at the chain");
    for _ in 0..4 {
        chain.seal().await.expect("the chain runs");
    }
    assert_eq!(
        (landed(&chain).await.len(), pending(&chain).await),
        (0, 0),
        "nothing is sent again"
    );

    // The owner of the key has not lost count.
    let again = submit(&account, reserve(6), Until::InBlock);
    waiting(&chain, 1).await;
    chain.seal().await.expect("the chain runs");
    assert_eq!(ended(again).await.expect("there is money").reserved, Some(DealId(1)));
    assert_eq!(landed(&chain).await.len(), 1);
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_connection_breaks_is_unknown_and_lands_once() {
    let mut options = by_hand();
    options.listen = vec![options.listen[0]; 2];
    let chain = start(options).await;
    let faulty = ChainConfig {
        endpoints: vec![format!("ws://{}", chain.addresses()[1])],
        ..config_of(&chain)
    };
    let client = connect(faulty).await;
    let account = Account::start(client.clone(), key(CLIENT));
    let call = submit(&account, reserve(5), Until::InBlock);
    waiting(&chain, 1).await;
    chain.set_faults(1, Faults { refuse_connections: true, ..Faults::default() });
    assert_unknown(ended(call).await, "look at the chain");
    view(&client, "the loss is seen", |view| view.best.is_none()).await;
    let refused = soon("a refusal", account.submit(reserve(6), Until::InBlock)).await;
    assert!(matches!(refused, Err(TxError::Chain(_))), "{refused:?}");
    assert_eq!(pending(&chain).await, 1, "the first is there, the second was never sent");

    chain.set_faults(1, Faults::default());
    view(&client, "the chain is back", |view| view.best.is_some()).await;
    // While nobody knows what becomes of the first, a new call has its nonce: only one can land.
    let rival = soon("a refusal", account.submit(reserve(7), Until::InBlock)).await;
    assert!(matches!(rival, Err(TxError::NotAccepted { .. })), "{rival:?}");
    assert_eq!(pending(&chain).await, 1, "the first is still there");
    chain.seal().await.expect("the chain runs");
    assert_eq!(landed(&chain).await.len(), 1, "the first has landed");
    let next = submit(&account, reserve(8), Until::InBlock);
    waiting(&chain, 1).await;
    chain.seal().await.expect("the chain runs");
    assert_eq!(ended(next).await.expect("there is money").reserved, Some(DealId(2)));
    chain.seal().await.expect("the chain runs");
    assert_eq!((landed(&chain).await.len(), pending(&chain).await), (2, 0));
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_arrives_while_its_answer_is_lost_is_unknown_and_lands_once() {
    let chain = start(by_hand()).await;
    let proxy = Proxy::start(chain.addresses()[0]).await;
    let through = ChainConfig { endpoints: vec![proxy.url()], ..config_of(&chain) };
    let account = Account::start(connect(through).await, key(CLIENT));
    // Nothing else that a client says is so long: after it, not a byte comes back.
    let proofs = (0..10).map(|audit| (AuditId(audit), vec![0; 2_000])).collect();
    proxy.hold_answers_after(20_000);
    let call = submit(&account, Call::SubmitProofs { node: 0, proofs }, Until::InBlock);
    waiting(&chain, 1).await;
    proxy.cut();
    let outcome = ended(call).await;
    assert!(matches!(outcome, Err(TxError::Unknown { .. })), "it is in the pool: {outcome:?}");
    chain.seal().await.expect("the chain runs");
    assert_eq!((landed(&chain).await.len(), pending(&chain).await), (1, 0));
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_land_while_finality_stands_still() {
    let chain = start(by_hand()).await;
    let brief = ChainConfig { mortal_blocks: 8, ..config_of(&chain) };
    let client = connect(brief).await;
    let account = Account::start(client.clone(), key(CLIENT));
    chain.stall_finality(true).await.expect("the chain runs");
    for _ in 0..20 {
        chain.seal().await.expect("the chain runs");
    }
    view(&client, "the heads", |view| view.best.is_some_and(|best| best.height >= 20)).await;
    let call = submit(&account, reserve(5), Until::InBlock);
    waiting(&chain, 1).await;
    chain.seal().await.expect("the chain runs");
    assert_eq!(ended(call).await.expect("there is money").reserved, Some(DealId(1)));
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_no_block_takes_in_time_is_unknown_and_lands_once() {
    let chain = start(by_hand()).await;
    let hasty = ChainConfig { inclusion_timeout_secs: 1, ..config_of(&chain) };
    let account = Account::start(connect(hasty).await, key(CLIENT));
    let call = submit(&account, reserve(5), Until::InBlock);
    assert_unknown(ended(call).await, "in no block for 1 s");
    assert_eq!(pending(&chain).await, 1);
    for _ in 0..3 {
        chain.seal().await.expect("the chain runs");
    }
    assert_eq!((landed(&chain).await.len(), pending(&chain).await), (1, 0));
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_caller_left_before_its_turn_is_never_sent() {
    let chain = start(by_hand()).await;
    let account = Account::start(connect(config_of(&chain)).await, key(CLIENT));
    let first = submit(&account, reserve(1), Until::InBlock);
    waiting(&chain, 1).await;
    // One more than is signed: it waits behind the first, and its caller gives up.
    let mut left = Box::pin(account.submit(reserve(2), Until::InBlock));
    let polled = std::future::poll_fn(|context| {
        std::task::Poll::Ready(left.as_mut().poll(context).is_pending())
    });
    assert!(polled.await, "it waits for its turn");
    drop(left);
    let third = submit(&account, reserve(3), Until::InBlock);
    chain.seal().await.expect("the chain runs");
    ended(first).await.expect("there is money");
    waiting(&chain, 1).await;
    chain.seal().await.expect("the chain runs");
    assert_eq!(ended(third).await.expect("there is money").reserved, Some(DealId(2)));
    assert_eq!((landed(&chain).await.len(), pending(&chain).await), (2, 0));
    chain.stop().await;
}
