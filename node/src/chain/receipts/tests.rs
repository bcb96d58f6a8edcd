// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is let in under a reservation, with a real chain and a real store on both sides.

use supernode_chain::{Call, Group, ReceiptOf, Until};
use supernode_protocol::deal::lease_of;
use supernode_protocol::ids::UploadId;
use supernode_protocol::lease::LeaseKind;
use supernode_store::{Io, PutBlock, PutShard, StoreConfig};

use self::sample::{Client, Object, Recipe, Terms, object};
use super::{Cid, Commit, DealId, DealState, Expiry, HeldIndexes, Notary, Receipt};
use super::{Store, WireError, timeout, told_of};
use crate::chain::testbed::{PATIENCE, Testbed};

#[expect(dead_code, reason = "the store's own tests need more of it")]
#[path = "../../../store/src/sample.rs"]
mod sample;

/// A node of one, with a chain on which it and its client own something.
struct Setup {
    bed: Testbed,
    notary: Notary,
    store: Store,
    client: Client,
    _dir: tempfile::TempDir,
}

impl Setup {
    async fn start() -> Self {
        let bed = Testbed::start(|genesis| genesis.parameters.duration_min = 5).await;
        let Client { key: identity, id: node } = Client::new(200);
        assert_eq!(bed.register(&identity).await, node);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().to_owned();
        let io = Io::Buffered;
        let config = StoreConfig { path, node, io, reserve_bytes: 0, ..StoreConfig::default() };
        let store = tokio::task::spawn_blocking(|| Store::open(config)).await;
        let store = store.expect("no panic").expect("a new directory");
        let notary = Notary { chain: bed.link.clone(), identity, node };
        Self { bed, notary, store, client: Client::new(7), _dir: dir }
    }

    async fn stop(self) {
        self.bed.stop().await;
    }

    /// A reservation, and the block it is for.
    async fn reserve(&self) -> (DealId, u64) {
        let call = Call::Reserve { bytes: 1 << 20, duration: 100, max_price: u128::MAX };
        let done = self.bed.account.submit(call, Until::InBlock).await.expect("there is money");
        let deal = done.reserved.expect("a number");
        let reserved = |state| match state {
            DealState::Reserved(it) => Some(it.activates_by),
            _ => None,
        };
        (deal, self.known(deal, reserved).await)
    }

    /// What `find` sees in a deal as soon as the node knows of it: a transaction's sender hears of
    /// its block before everybody else.
    async fn known<T>(&self, deal: DealId, find: impl Fn(DealState) -> Option<T>) -> T {
        let mut view = self.notary.chain.view();
        let seen = async {
            loop {
                view.borrow_and_update();
                let state = self.notary.state(deal).await.expect("the chain answers");
                if let Some(found) = find(state) {
                    return found;
                }
                view.changed().await.expect("the chain runs");
            }
        };
        timeout(PATIENCE, seen).await.expect("the node sees every block")
    }

    /// Uploads all of a small object; gives its commit.
    async fn upload(&self, object: &Object, number: u8, deal: DealId, ends: u64) -> Commit {
        let (caller, upload) = (self.client.id, UploadId::from_bytes([number; 16]));
        let root = PutBlock { caller, upload, cid: object.cid, bytes: object.root.clone() };
        self.store.put_block(root).await.expect("there is room");
        for (slot, shard, bytes) in &object.groups[0].shards {
            let mut buffer = self.store.buffer(bytes.len() as u64).await.expect("there is memory");
            buffer.extend(bytes).expect("as many as were announced");
            let put = PutShard { caller, upload, slot: *slot, shard: *shard, buffer };
            self.store.put_shard(put).await.expect("there is room");
        }
        let terms = Terms {
            lease: lease_of(&self.notary.chain.genesis(), deal),
            kind: LeaseKind::Deal,
            expiry: Expiry::FinalisedHeight(ends),
            ..Terms::pin(number, number)
        };
        object.commit(&self.client, 0, terms)
    }

    async fn admit(&self, commit: &Commit) -> Result<(), WireError> {
        self.notary.admit(&self.store, self.client.id, commit).await
    }

    async fn commit(&self, commit: Commit) -> Result<(), WireError> {
        self.admit(&commit).await?;
        self.store.commit(self.client.id, commit).await.map(drop).map_err(told_of)
    }

    /// Objects that the deal's lease covers here.
    async fn covered(&self, deal: DealId) -> Vec<Cid> {
        let lease = lease_of(&self.notary.chain.genesis(), deal);
        let here = self.store.deal(lease).await.expect("the store answers");
        here.and_then(|here| here.object).into_iter().collect()
    }
}

#[track_caller]
fn assert_refused(outcome: Result<(), WireError>, word: &str) {
    let error = outcome.expect_err("it breaks a rule");
    assert!(error.message.contains(word), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reservation_is_for_one_object_and_the_last_one_it_is_used_for() {
    let setup = Setup::start().await;
    let (deal, ends) = setup.reserve().await;
    let (first, second) = (object(Recipe::small(1)), object(Recipe::small(2)));
    let longer = setup.upload(&first, 1, deal, ends + 1).await;
    assert_refused(setup.commit(longer).await, "at the latest");
    let commit = setup.upload(&first, 1, deal, ends).await;
    setup.commit(commit.clone()).await.expect("it follows the rules");
    setup.commit(commit).await.expect("again is no fault");
    assert_eq!(setup.covered(deal).await, [first.cid]);

    // Judged before either is there, two objects pass the door; the store takes one.
    let (deal, ends) = setup.reserve().await;
    let one = setup.upload(&first, 2, deal, ends).await;
    let other = setup.upload(&second, 3, deal, ends).await;
    setup.admit(&one).await.expect("nothing is there yet");
    setup.admit(&other).await.expect("nothing is there yet");
    setup.store.commit(setup.client.id, one).await.expect("the first");
    let late = setup.store.commit(setup.client.id, other.clone()).await;
    assert_refused(late.map(drop).map_err(told_of), "another object");
    assert_eq!(setup.covered(deal).await, [first.cid]);

    // Asked again, the writer has changed its mind.
    setup.commit(other).await.expect("the reservation is the writer's");
    assert_eq!(setup.covered(deal).await, [second.cid]);
    setup.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_added_to_a_deal_that_runs_or_has_ended() {
    let setup = Setup::start().await;
    let (deal, ends) = setup.reserve().await;
    let object = object(Recipe::small(1));
    let commit = setup.upload(&object, 1, deal, ends).await;
    setup.commit(commit.clone()).await.expect("it follows the rules");
    let lease = commit.terms.lease;
    let all = HeldIndexes { group: 0, stripe_first: 0, stripe_count: 1, indexes: vec![0, 1, 2] };
    let receipt = setup.notary.receipt(&setup.store, (lease, object.cid), &[all]).await;
    let Receipt { shards_root, bytes, held, signature } = receipt.expect("all is here");
    assert_eq!(held[0].indexes, [0, 1, 2]);
    let receipts =
        vec![ReceiptOf { node: 0, bytes, signature: signature.try_into().expect("64 bytes") }];
    let activate = Call::Activate {
        deal,
        object: object.cid,
        shards_root,
        data: 2,
        width: 3,
        groups: vec![Group { stripe_count: 1, nodes: vec![0; 3] }],
        receipts,
    };
    setup.bed.account.submit(activate, Until::InBlock).await.expect("the receipt is good");

    let active = |state| match state {
        DealState::Active(it) => Some(it.expires_at),
        _ => None,
    };
    let ends = setup.known(deal, active).await;
    let more = setup.upload(&object, 2, deal, ends).await;
    assert_refused(setup.commit(more).await, "runs");
    setup.bed.account.submit(Call::Cancel { deal }, Until::InBlock).await.expect("it is ours");
    setup.known(deal, |state| matches!(state, DealState::Ended(_)).then_some(())).await;
    let more = setup.upload(&object, 3, deal, ends).await;
    assert_refused(setup.commit(more).await, "ended");
    setup.stop().await;
}
