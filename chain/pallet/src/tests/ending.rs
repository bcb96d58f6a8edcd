// SPDX-License-Identifier: MIT OR Apache-2.0
//! How deals go on and end: renewed, cancelled, settled, with the money following.

use frame_support::traits::fungible::{Inspect, Mutate};
use frame_support::traits::tokens::Preservation;
use frame_support::{assert_noop, assert_ok};

use crate::mock::{
    Balances, DEPOSIT, RuntimeOrigin, Supernode, Test, WEALTH, chain, events, next_block, owner,
    parameters, pot, reserve, run_to, small_object, submit,
};
use crate::pallet::{Deals, EndedDeals, Error, Event, OpenAudits, Owed, Rewards};
use crate::types::Parameters;

#[test]
fn strangers_neither_renew_nor_cancel_nor_claim() {
    chain(6).execute_with(|| {
        let deal = small_object(1).deal(1, 100);
        let (ours, other) = (RuntimeOrigin::signed(1), RuntimeOrigin::signed(2));
        let renew = Supernode::renew;
        assert_noop!(renew(other.clone(), deal, 10, u128::MAX), Error::<Test>::NotOwner);
        assert_noop!(Supernode::cancel(other.clone(), deal), Error::<Test>::NotOwner);
        assert_noop!(Supernode::claim_rewards(other, 0), Error::<Test>::NotOwner);
        assert_noop!(renew(ours.clone(), deal + 1, 10, u128::MAX), Error::<Test>::UnknownDeal);
        assert_noop!(Supernode::cancel(ours.clone(), deal + 1), Error::<Test>::UnknownDeal);
        assert_noop!(renew(ours.clone(), deal, 4, u128::MAX), Error::<Test>::DurationOutOfRange);
        assert_noop!(renew(ours.clone(), deal, 901, u128::MAX), Error::<Test>::DurationOutOfRange);
        assert_noop!(renew(ours.clone(), deal, 10, 1), Error::<Test>::PriceTooHigh);
        assert_ok!(renew(ours, deal, 900, u128::MAX));
        assert_noop!(
            Supernode::claim_rewards(RuntimeOrigin::signed(owner(0)), 0),
            Error::<Test>::NothingToClaim
        );
    });
}

#[test]
fn a_renewed_deal_lives_on_past_its_first_end() {
    chain(6).execute_with(|| {
        let deal = small_object(1).deal(1, 20);
        assert_ok!(Supernode::renew(RuntimeOrigin::signed(1), deal, 30, u128::MAX));
        assert!(events().contains(&Event::DealRenewed { deal, expires_at: 51 }));
        assert_eq!(pot(), 32 * 50);
        run_to(50);
        assert!(Deals::<Test>::contains_key(deal));
        next_block();
        assert!(events().contains(&Event::DealEnded { deal, at: 51, cancelled: false }));
        next_block();
        let earned: u128 = Rewards::<Test>::iter_values().sum();
        assert_eq!(pot(), earned);
    });
}

#[test]
fn a_renewal_at_another_price_pays_the_mean_from_then_on() {
    chain(6).execute_with(|| {
        let deal = small_object(1).deal(1, 100);
        run_to(51);
        let price = parameters().price_per_gib_block;
        let dearer = Parameters { price_per_gib_block: 3 * price, ..parameters() };
        assert_ok!(Supernode::set_parameters(RuntimeOrigin::root(), dearer));
        assert_ok!(Supernode::renew(RuntimeOrigin::signed(1), deal, 50, 3 * price));
        let record = Deals::<Test>::get(deal).expect("it lives");
        assert_eq!((record.price, record.priced_at), (2 * price, 51), "half at 1, half at 3");
        assert_eq!(record.accrued, price * 50);
        // Nobody answers audits; with all of them missed the owner gets nearly all of it back.
        assert_eq!(Balances::balance(&1) + 3_200 + 4_800, WEALTH);
        // A cancel right away pays the old price for the past, and nothing else.
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), deal));
        next_block();
        let earned: u128 = Rewards::<Test>::iter_values().sum();
        assert!(earned <= 32 * 50, "{earned}");
        assert_eq!((pot(), Balances::balance(&1)), (earned, WEALTH - earned));
    });
}

#[test]
fn a_cancelled_deal_pays_its_holders_up_to_the_cancel() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        let deal = object.deal(1, 100);
        run_to(9);
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), deal));
        assert!(events().contains(&Event::DealEnded { deal, at: 9, cancelled: true }));
        assert!(EndedDeals::<Test>::get(deal).expect("a tombstone").cancelled);
        assert_noop!(Supernode::cancel(RuntimeOrigin::signed(1), deal), Error::<Test>::UnknownDeal);
        next_block();
        for node in 0..6 {
            let (slots, _) = object.held(node);
            assert_eq!(Rewards::<Test>::get(node), u128::from(2 * slots * 8));
        }
        assert_eq!((pot(), Balances::balance(&1)), (32 * 8, WEALTH - 32 * 8));
        let refunded = 3_200 - 32 * 8;
        assert!(events().contains(&Event::DealSettled { deal, refunded }));
        // Its place among the expiries is gone: its first end passes without a second one.
        run_to(101);
        assert!(!events().iter().any(|event| matches!(event, Event::DealEnded { .. })));
    });
}

#[test]
fn an_audit_of_a_cancelled_deal_harms_nobody() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        let deal = object.deal(1, 100);
        run_to(12);
        let (node, audit, record) = OpenAudits::<Test>::iter().next().expect("a round was opened");
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), deal));
        assert_ok!(submit(node, vec![(audit, object.proof(&record).encode())]));
        assert!(events().iter().any(|event| matches!(event, Event::ProofRejected { .. })));
        run_to(16);
        assert!(events().contains(&Event::AuditDropped { audit, node, deal }));
        assert!(!events().iter().any(|event| matches!(event, Event::AuditFailed { .. })));
        let earned: u128 = Rewards::<Test>::iter_values().sum();
        assert_eq!(earned, 32 * 11, "all holders are paid in full");
    });
}

#[test]
fn an_audit_that_outlives_the_tombstone_of_its_deal_harms_nobody() {
    chain(6).execute_with(|| {
        let brief = Parameters { tombstone_blocks: 1, audit_window: 8, ..parameters() };
        assert_ok!(Supernode::set_parameters(RuntimeOrigin::root(), brief));
        let deal = small_object(1).deal(1, 100);
        run_to(12);
        let (node, audit, record) = OpenAudits::<Test>::iter().next().expect("a round was opened");
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), deal));
        run_to(record.deadline);
        assert!(!EndedDeals::<Test>::contains_key(deal), "its tombstone is gone");
        next_block();
        assert!(events().contains(&Event::AuditDropped { audit, node, deal }));
        assert!(!events().iter().any(|event| matches!(event, Event::AuditFailed { .. })));
    });
}

#[test]
fn a_deal_is_over_at_its_end_even_before_that_is_noticed() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        let deals: Vec<_> = (0..40).map(|_| object.deal(1, 20)).collect();
        run_to(21);
        let unnoticed: Vec<_> =
            deals.into_iter().filter(|deal| Deals::<Test>::contains_key(deal)).collect();
        assert!(!unnoticed.is_empty(), "a block notices fewer than 40 ends");
        for deal in unnoticed {
            let signed = RuntimeOrigin::signed(1);
            let renewed = Supernode::renew(signed.clone(), deal, 10, u128::MAX);
            assert_noop!(renewed, Error::<Test>::DealOver);
            assert_noop!(Supernode::cancel(signed, deal), Error::<Test>::DealOver);
        }
    });
}

#[test]
fn a_refund_below_the_deposit_waits_for_an_account_that_is_gone() {
    chain(6).execute_with(|| {
        // One unit for the smallest reservation there is.
        let small = reserve(1, 1, 5);
        assert_eq!(pot(), 1);
        let rest = WEALTH - 1;
        assert_ok!(Balances::transfer(&1, &2, rest, Preservation::Expendable));
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), small));
        assert_eq!((Balances::balance(&1), Owed::<Test>::get(1), pot()), (0, 1, 1));
        assert_ok!(Balances::transfer(&2, &1, DEPOSIT + 1, Preservation::Preserve));
        let next = reserve(1, 1, 5);
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(1), next));
        assert_eq!((Balances::balance(&1), Owed::<Test>::get(1), pot()), (DEPOSIT + 2, 0, 0));
    });
}
