// SPDX-License-Identifier: MIT OR Apache-2.0
//! An endpoint that serves another chain: it is named as that, nothing of it is believed, and no
//! transaction ever reaches it.

use supernode_chain::{Account, Call, Chain, ChainError, Standing, TxError, Until};
use supernode_devchain::{DevChain, Genesis, Options};
use supernode_protocol::deal::DealId;

use super::eventually::{PATIENCE, soon, view};
use super::harness::{
    CLIENT, block_of, by_hand, config, config_of, connect, genesis, instant, key, landed, pending,
    reserve, start, urls,
};

/// The same accounts and prices, and another name: another chain.
fn elsewhere() -> Genesis {
    Genesis { name: "Elsewhere".to_owned(), ..genesis() }
}

async fn refuses(client: &Chain, account: &Account, foreign: [u8; 32]) {
    assert_eq!(client.view().borrow().standing, Standing::ForeignGenesis { found: foreign });
    let calls = [reserve(5), Call::Cancel { deal: DealId(1) }, Call::ClaimRewards { node: 0 }];
    for call in calls {
        let refused = soon("a refusal", account.submit(call, Until::InBlock)).await;
        let Err(TxError::Chain(ChainError::ForeignGenesis { found, .. })) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(found, foreign);
    }
    let answers = [
        client.at_finalised().await.err(),
        client.at_best().await.err(),
        client.block_at(1).await.err(),
        client.ready(PATIENCE).await.err(),
    ];
    for answer in answers {
        let error = answer.expect("nothing is believed");
        assert!(matches!(error, ChainError::ForeignGenesis { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&super::harness::hex(&foreign)), "it names what was found: {text}");
        assert!(text.contains("chain.genesis"), "it names the remedy: {text}");
    }
}

async fn is_untouched(chain: &DevChain) {
    for _ in 0..3 {
        chain.seal().await.expect("the chain runs");
    }
    assert_eq!((landed(chain).await.len(), pending(chain).await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_genesis_is_never_signed_for() {
    let foreign = start(Options { genesis: Some(elsewhere()), ..by_hand() }).await;
    let ours = supernode_devchain::genesis_hash(&genesis()).expect("it makes a chain");
    let client = Chain::start(config(ours.0, &urls(&foreign))).expect("the settings are good");
    let refused = soon("a refusal", client.ready(PATIENCE)).await;
    assert!(matches!(refused, Err(ChainError::ForeignGenesis { .. })), "{refused:?}");
    let account = Account::start(client.clone(), key(CLIENT));
    refuses(&client, &account, foreign.genesis_hash().0).await;
    is_untouched(&foreign).await;
    foreign.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_swapped_under_way_is_noticed_and_so_is_its_return() {
    let dir = tempfile::tempdir().expect("there is room");
    let kept = Options { dir: Some(dir.path().to_owned()), ..instant() };
    let chain = start(kept.clone()).await;
    let client = connect(config_of(&chain)).await;
    let account = Account::start(client.clone(), key(CLIENT));
    let first = soon("a call", account.submit(reserve(5), Until::Finalised)).await;
    assert_eq!(first.expect("there is money").reserved, Some(DealId(1)));
    let (address, best) = (chain.address(), chain.best());
    chain.stop().await;

    let foreign = Options { genesis: Some(elsewhere()), listen: vec![address], ..by_hand() };
    let foreign = start(foreign).await;
    let is_foreign = |standing: &Standing| matches!(standing, Standing::ForeignGenesis { .. });
    let seen = view(&client, "the swap is seen", |view| is_foreign(&view.standing)).await;
    assert_eq!((seen.best, seen.finalised), (None, None));
    refuses(&client, &account, foreign.genesis_hash().0).await;
    is_untouched(&foreign).await;
    foreign.stop().await;

    let chain = start(Options { listen: vec![address], ..kept }).await;
    let back = view(&client, "the return is seen", |view| view.best.is_some()).await;
    assert_eq!(back.best, Some(block_of(best)));
    let second = soon("a call", account.submit(reserve(6), Until::Finalised)).await;
    assert_eq!(second.expect("there is money").reserved, Some(DealId(2)));
    assert_eq!(landed(&chain).await.len(), 2, "what was refused meanwhile is not sent late");
    chain.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_endpoint_of_another_chain_is_named_and_harms_nobody() {
    let chain = start(instant()).await;
    let foreign = start(Options { genesis: Some(elsewhere()), ..by_hand() }).await;
    let both = [urls(&chain), urls(&foreign)].concat();
    let client = connect(config(chain.genesis_hash().0, &both)).await;
    soon("both endpoints", client.settled(PATIENCE)).await;
    let account = Account::start(client.clone(), key(CLIENT));
    soon("a call", account.submit(reserve(5), Until::Finalised)).await.expect("there is money");
    let others = client.others().await;
    let refused = others[0].1.as_ref().err();
    assert!(matches!(refused, Some(ChainError::ForeignGenesis { .. })), "{refused:?}");
    is_untouched(&foreign).await;
    chain.stop().await;
    foreign.stop().await;
}
