// SPDX-License-Identifier: MIT OR Apache-2.0
//! One deal from its reservation to the end of its tombstone, with the sums written out.

use frame_support::assert_ok;
use frame_support::traits::fungible::Inspect;

use crate::mock::{
    Balances, RuntimeOrigin, Supernode, Test, WEALTH, chain, events, next_block, owner, pot,
    run_to, small_object, submit,
};
use crate::pallet::{
    AuditResults, Deals, EndedDeals, Event, Groups, Holdings, NextAudit, OpenAudits, Rewards,
};

#[test]
fn a_deal_is_made_audited_paid_ended_and_forgotten() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        // 16 slots of 2 KiB at 2^20 per GiB and block are 32 per block.
        let deal = object.deal(1, 100);
        assert_eq!((pot(), Balances::balance(&1)), (3_200, WEALTH - 3_200));
        assert_eq!(Deals::<Test>::get(deal).expect("it is made").expires_at, 101);

        run_to(10);
        assert_eq!(NextAudit::<Test>::get(), 0);
        assert_eq!(next_block(), 11);
        assert_eq!(NextAudit::<Test>::get(), 4, "a round visits four slots");
        let open: Vec<_> = OpenAudits::<Test>::iter().collect();
        for (node, id, audit) in &open {
            assert_eq!((audit.deal, audit.opened_at, audit.deadline), (deal, 11, 15));
            let before = Rewards::<Test>::get(node);
            let holding = Holdings::<Test>::get(node, deal).expect("it holds");
            assert_ok!(submit(*node, vec![(*id, object.proof(audit).encode())]));
            let (slots, _) = object.held(*node);
            // The last answer for what a node holds pays for all of it, those before it nothing.
            let blocks = if holding.open == 1 { 11 - holding.settled_at } else { 0 };
            let earned = u128::from(2 * slots * blocks);
            assert_eq!(Rewards::<Test>::get(node) - before, earned);
            assert!(AuditResults::<Test>::get(id).expect("it is resolved").passed);
        }
        assert_eq!(OpenAudits::<Test>::iter().count(), 0);

        run_to(100);
        assert!(EndedDeals::<Test>::get(deal).is_none());
        next_block();
        assert!(events().contains(&Event::DealEnded { deal, at: 101, cancelled: false }));
        assert!(!EndedDeals::<Test>::get(deal).expect("a tombstone").cancelled);
        next_block();
        assert_eq!(Holdings::<Test>::iter().count() + Groups::<Test>::iter().count(), 0);
        let earned: u128 = Rewards::<Test>::iter_values().sum();
        assert_eq!(pot(), earned, "the rest went back to the owner");

        run_to(120);
        assert!(EndedDeals::<Test>::contains_key(deal));
        next_block();
        assert!(!EndedDeals::<Test>::contains_key(deal));
        assert!(events().contains(&Event::DealPruned { deal }));

        let reward = Rewards::<Test>::get(3);
        assert_ok!(Supernode::claim_rewards(RuntimeOrigin::signed(owner(3)), 3));
        assert_eq!(Balances::balance(&owner(3)), reward);
    });
}
