// SPDX-License-Identifier: MIT OR Apache-2.0
//! A deal from its reservation to the last reward: every call through one account, every fact read
//! back from the block that made it.

use supernode_chain::{
    Account, Chain, Deal, DealEvent, DealState, Ended, Holding, Included, Reservation, TxError,
    Until,
};
use supernode_chain::{BlockRef, Call};
use supernode_devchain::DevChain;
use supernode_protocol::deal::{AuditId, DealId};

use super::eventually::soon;
use super::harness::{
    AUDIT_INTERVAL, AUDIT_WINDOW, CLIENT, NODE_OWNER, OPERATOR, Object, PRICE, STRANGER, WEALTH,
    block_of, config_of, connect, instant, key, peer, register, reserve, start,
};

const NODES: u8 = 4;
const SHARD_BYTES: usize = 20_000;
const RESERVED_BYTES: u64 = 100_000;

/// What bytes cost for so many blocks, rounded up: [`PRICE`] is one unit for a KiB.
fn cost(bytes: u64, blocks: u128) -> u128 {
    (u128::from(bytes) * blocks * PRICE).div_ceil(1 << 30)
}

async fn done(account: &Account, call: Call) -> Included {
    let done = soon("a call", account.submit(call, Until::Finalised)).await;
    done.expect("the call is good")
}

async fn refusal(account: &Account, call: Call) -> String {
    let refused = soon("a call", account.submit(call, Until::InBlock)).await;
    match refused.expect_err("the call is bad") {
        TxError::Refused { reason } => reason,
        other => panic!("the pallet was not asked: {other}"),
    }
}

async fn deal_at(client: &Chain, block: BlockRef, deal: DealId) -> DealState {
    client.at(block).await.expect("known").deal(deal).await.expect("readable")
}

async fn balance_at(client: &Chain, block: BlockRef, number: u8) -> u128 {
    let at = client.at(block).await.expect("known");
    at.balance(key(number).account()).await.expect("readable")
}

async fn events_at(client: &Chain, block: BlockRef) -> Vec<DealEvent> {
    client.at(block).await.expect("known").deal_events().await.expect("readable")
}

async fn holding(client: &Chain, block: BlockRef, node: u32) -> Holding {
    let at = client.at(block).await.expect("known");
    let holdings = at.holdings(node).await.expect("readable");
    assert_eq!(holdings.len(), 1, "one deal");
    holdings[0].clone()
}

async fn reserved(client: &Chain, owner: &Account) -> Reservation {
    let included = done(owner, reserve(RESERVED_BYTES)).await;
    let deal = included.reserved.expect("a reservation has a number");
    let events = events_at(client, included.block).await;
    let DealState::Reserved(reservation) = deal_at(client, included.block, deal).await else {
        panic!("a reservation is read as one");
    };
    let activates_by = reservation.activates_by;
    assert_eq!(events, [DealEvent::Reserved { deal, activates_by }]);
    assert_eq!(activates_by, included.block.height + 40);
    assert_eq!((reservation.deal, reservation.owner), (deal, owner.id()));
    assert_eq!((reservation.bytes, reservation.duration), (RESERVED_BYTES, 100));
    assert_eq!(reservation.escrow, cost(RESERVED_BYTES, 100));
    reservation
}

async fn activated(client: &Chain, owner: &Account, object: &Object, deal: DealId) -> Deal {
    let included = done(owner, object.activation(client.genesis(), deal)).await;
    let events = events_at(client, included.block).await;
    let DealState::Active(found) = deal_at(client, included.block, deal).await else {
        panic!("a deal is read as one");
    };
    let (begun, expires_at) = (included.block.height, included.block.height + 100);
    assert_eq!(events, [DealEvent::Activated { deal, expires_at }]);
    assert_eq!((found.activated_at, found.expires_at), (begun, expires_at));
    assert_eq!((found.object, found.shards_root), (object.cid, object.shards_root()));
    let shape = (found.data, found.width, found.stripe_count, found.group_count);
    assert_eq!((shape, found.bytes), ((2, 4, 1, 1), object.bytes()));
    assert_eq!(found.escrow, cost(object.bytes(), 100));
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deal_is_reserved_activated_renewed_and_cancelled() {
    let chain = start(instant()).await;
    let client = connect(config_of(&chain)).await;
    register(&client, NODES).await;
    let owner = Account::start(client.clone(), key(CLIENT));
    let object = Object::new(NODES, SHARD_BYTES);

    let Reservation { deal, .. } = reserved(&client, &owner).await;
    let here = block_of(chain.best());
    assert_eq!(balance_at(&client, here, CLIENT).await, WEALTH - cost(RESERVED_BYTES, 100));
    let mut forged = object.activation(client.genesis(), deal);
    if let Call::Activate { receipts, .. } = &mut forged {
        receipts[2].signature = receipts[1].signature;
    }
    let reason = refusal(&owner, forged).await;
    assert!(reason.contains("(BadReceipt)") && reason.contains("ask the node"), "{reason}");
    let found = activated(&client, &owner, &object, deal).await;
    let here = block_of(chain.best());
    let left = WEALTH - cost(object.bytes(), 100);
    assert_eq!(balance_at(&client, here, CLIENT).await, left, "what is not needed is back");
    for node in 0..u32::from(NODES) {
        let held = holding(&client, here, node).await;
        assert_eq!((held.deal, held.bytes, held.slots), (deal, object.shard_len(), 1));
    }

    let renewal = Call::Renew { deal, duration: 50, max_price: PRICE };
    let renewed = done(&owner, renewal).await.block;
    let expires_at = found.expires_at + 50;
    assert_eq!(events_at(&client, renewed).await, [DealEvent::Renewed { deal, expires_at }]);
    let longer =
        Deal { expires_at, escrow: cost(object.bytes(), 100) + cost(object.bytes(), 50), ..found };
    assert_eq!(deal_at(&client, renewed, deal).await, DealState::Active(longer));

    let stranger = Account::start(client.clone(), key(STRANGER));
    let reason = refusal(&stranger, Call::Cancel { deal }).await;
    assert!(reason.contains("(NotOwner)"), "{reason}");
    let cancelled = done(&owner, Call::Cancel { deal }).await.block;
    let at = cancelled.height;
    let events = events_at(&client, cancelled).await;
    assert_eq!(events, [DealEvent::Ended { deal, at, cancelled: true }]);
    let ended = Ended { deal, owner: owner.id(), object: object.cid, at, cancelled: true };
    assert_eq!(deal_at(&client, cancelled, deal).await, DealState::Ended(ended.clone()));
    assert_eq!(deal_at(&client, cancelled, DealId(99)).await, DealState::Unknown);
    // What was read in an older block is what that block said.
    assert!(matches!(deal_at(&client, renewed, deal).await, DealState::Active(_)));

    let before = balance_at(&client, block_of(chain.best()), CLIENT).await;
    let second = reserved(&client, &owner).await.deal;
    let at = client.at(block_of(chain.best())).await.expect("known");
    let all = at.deals().await.expect("readable");
    assert_eq!(all.iter().map(DealState::id).collect::<Vec<_>>(), [Some(deal), Some(second)]);
    let given_back = done(&owner, Call::Cancel { deal: second }).await.block;
    assert_eq!(deal_at(&client, given_back, second).await, DealState::Unknown);
    // The holders of the first deal are paid and its rest is refunded meanwhile.
    assert!(balance_at(&client, given_back, CLIENT).await >= before, "a reservation costs nothing");
    chain.stop().await;
}

/// Makes blocks until every node is asked; gives the block in which all are.
async fn challenged(chain: &DevChain, client: &Chain) -> BlockRef {
    for _ in 0..2 * AUDIT_INTERVAL {
        let block = block_of(chain.seal().await.expect("the chain runs"));
        let at = client.at(block).await.expect("known");
        if at.all_open_audits().await.expect("readable").len() == usize::from(NODES) {
            return block;
        }
    }
    panic!("nobody is audited");
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_are_judged_one_by_one_and_rewards_are_paid_once() {
    let chain = start(instant()).await;
    let client = connect(config_of(&chain)).await;
    register(&client, NODES).await;
    let at = client.at(block_of(chain.best())).await.expect("known");
    let node = at.node_of(peer(2)).await.expect("readable").expect("registered");
    assert_eq!((node.index, node.owner), (2, key(NODE_OWNER).account()));
    assert_eq!((node.operator, node.region.as_str()), (key(OPERATOR).account(), "EU-WEST"));
    assert_eq!(node.addresses, ["/ip4/127.0.0.1/udp/9002"]);
    assert_eq!(at.nodes().await.expect("readable").len(), usize::from(NODES));
    assert_eq!(at.node_of(peer(9)).await.expect("readable"), None);

    let owner = Account::start(client.clone(), key(CLIENT));
    let object = Object::new(NODES, SHARD_BYTES);
    let deal = reserved(&client, &owner).await.deal;
    activated(&client, &owner, &object, deal).await;
    let asked = challenged(&chain, &client).await;
    let operator = Account::start(client.clone(), key(OPERATOR));
    let mut passed = Vec::new();
    // Node 3 stays silent.
    for node in 0..3 {
        passed.push(prove(&client, &operator, &object, asked, node).await);
    }
    let missed = client.at(asked).await.expect("known").open_audits(3).await.expect("readable");
    for _ in 0..=AUDIT_WINDOW {
        chain.seal().await.expect("the chain runs");
    }
    let here = block_of(chain.best());
    let at = client.at(here).await.expect("known");
    let result = at.audit_result(missed[0].audit).await.expect("readable").expect("remembered");
    assert_eq!((result.node, result.passed), (3, false));
    assert!(result.resolved_at > missed[0].deadline);
    let held = holding(&client, here, 3).await;
    assert_eq!((held.passed, held.failed), (0, 1));
    assert_eq!(at.rewards(3).await.expect("readable"), 0);
    let results = at.audit_results().await.expect("readable");
    let verdicts: Vec<_> = results.iter().filter(|it| it.passed).map(|it| it.audit).collect();
    passed.sort_unstable();
    assert_eq!(verdicts, passed);

    let earned = at.rewards(0).await.expect("readable");
    assert!(earned > 0, "a pass pays");
    let node_owner = Account::start(client.clone(), key(NODE_OWNER));
    let before = balance_at(&client, here, NODE_OWNER).await;
    let claimed = done(&node_owner, Call::ClaimRewards { node: 0 }).await;
    assert_eq!(claimed.claimed, Some(earned));
    assert_eq!(balance_at(&client, claimed.block, NODE_OWNER).await, before + earned);
    let reason = refusal(&node_owner, Call::ClaimRewards { node: 0 }).await;
    assert!(reason.contains("(NothingToClaim)"), "{reason}");
    chain.stop().await;
}

/// A good proof among bad ones passes, and passes once.
async fn prove(
    client: &Chain,
    operator: &Account,
    object: &Object,
    asked: BlockRef,
    node: u32,
) -> AuditId {
    let at = client.at(asked).await.expect("known");
    let audits = at.open_audits(node).await.expect("readable");
    let [audit] = audits.as_slice() else { panic!("one slot, one audit: {audits:?}") };
    assert!(at.is_open(node, audit.audit).await.expect("readable"));
    assert_eq!(at.audit_result(audit.audit).await.expect("readable"), None);
    assert_eq!(audit.deadline, asked.height + u64::from(AUDIT_WINDOW));
    let proof = object.proof(audit);
    let foreign = AuditId(1_000_000);
    let bad = (audit.audit, b"nothing".to_vec());
    let proofs = vec![(foreign, proof.clone()), bad, (audit.audit, proof)];
    let call = Call::SubmitProofs { node, proofs };
    let included = done(operator, call.clone()).await;
    assert_eq!(included.passed, [audit.audit]);
    let reasons = [(foreign, "NotOpen".to_owned()), (audit.audit, "Malformed".to_owned())];
    assert_eq!(included.rejected, reasons);
    let at = client.at(included.block).await.expect("known");
    assert!(!at.is_open(node, audit.audit).await.expect("readable"));
    let result = at.audit_result(audit.audit).await.expect("readable").expect("remembered");
    assert_eq!((result.passed, result.resolved_at), (true, included.block.height));
    assert_eq!(holding(client, included.block, node).await.passed, 1);
    assert_eq!(done(operator, call).await.passed, [], "an answered audit is not open");
    audit.audit
}
