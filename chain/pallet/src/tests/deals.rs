// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reservation and activation: what is refused, and what comes back.

use frame_support::traits::fungible::Inspect;
use frame_support::{assert_noop, assert_ok};
use sp_core::Pair;
use sp_runtime::DispatchResult;
use supernode_protocol::deal::{DealId, ReceiptClaim};
use supernode_protocol::ids::{Cid, NodeId};

use crate::mock::{
    Balances, Object, RuntimeOrigin, Supernode, Test, WEALTH, chain, events, identity, next_block,
    parameters, pot, reserve, run_to, small_object,
};
use crate::pallet::{Deals, Error, Event, Groups, Holdings, Reservations};
use crate::types::{NOBODY, Receipt};

#[test]
fn costs_are_rounded_up_and_checked() {
    let cost = Supernode::cost;
    assert_eq!(cost(1, 1, 1), Ok(1));
    assert_eq!(cost(1 << 30, 7, 3), Ok(21));
    assert_eq!(cost((1 << 30) + 1, 7, 3), Ok(22));
    assert_eq!(cost(0, 7, 3), Ok(0));
    assert_eq!(
        cost(u64::MAX, u32::MAX, 1 << 31),
        Ok(u128::from(u64::MAX) * u128::from(u32::MAX) * 2)
    );
    assert_eq!(cost(u64::MAX, u32::MAX, 1 << 40), Err(Error::<Test>::Overflow.into()));
}

#[test]
fn a_reservation_is_within_the_parameters_and_paid() {
    chain(6).execute_with(|| {
        let reserve = |bytes, duration, price| {
            Supernode::reserve(RuntimeOrigin::signed(1), bytes, duration, price)
        };
        let price = parameters().price_per_gib_block;
        assert_noop!(reserve(0, 100, price), Error::<Test>::NoBytes);
        assert_noop!(reserve(1, 4, price), Error::<Test>::DurationOutOfRange);
        assert_noop!(reserve(1, 1_001, price), Error::<Test>::DurationOutOfRange);
        assert_noop!(reserve(1, 100, price - 1), Error::<Test>::PriceTooHigh);
        assert_noop!(reserve(u64::MAX, 1_000, price), Error::<Test>::NotEnoughMoney);
        assert_ok!(reserve(1 << 20, 100, price));
        assert_eq!(pot(), 102_400);
        assert_eq!(Balances::balance(&1), WEALTH - 102_400);
    });
}

#[test]
fn what_is_not_activated_comes_back() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        let reserved = 3 * object.bytes();
        let deal = reserve(1, reserved, 100);
        assert_eq!(pot(), 9_600);
        assert_ok!(object.activate(1, deal));
        assert_eq!((pot(), Balances::balance(&1)), (3_200, WEALTH - 3_200));
        let lapsing = reserve(1, reserved, 100);
        let cancelled = reserve(2, reserved, 100);
        assert_noop!(
            Supernode::cancel(RuntimeOrigin::signed(1), cancelled),
            Error::<Test>::NotOwner
        );
        assert_ok!(Supernode::cancel(RuntimeOrigin::signed(2), cancelled));
        assert_eq!(Balances::balance(&2), WEALTH);
        run_to(11);
        assert!(Reservations::<Test>::contains_key(lapsing));
        next_block();
        assert!(!Reservations::<Test>::contains_key(lapsing));
        assert!(events().contains(&Event::ReservationEnded { deal: lapsing, refunded: 9_600 }));
        assert!(Deals::<Test>::contains_key(deal));
        assert_eq!(Balances::balance(&1), WEALTH - 3_200);
    });
}

#[test]
fn only_its_owner_activates_a_reservation_once_and_in_time() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        let deal = reserve(1, object.bytes(), 100);
        assert_noop!(object.activate(2, deal), Error::<Test>::NotOwner);
        assert_noop!(object.activate(1, deal + 1), Error::<Test>::UnknownReservation);
        run_to(11);
        assert_ok!(object.activate(1, deal));
        assert_noop!(object.activate(1, deal), Error::<Test>::UnknownReservation);

        // The reservations of one block are more than a block lets lapse: those that are still
        // there in the next one are over all the same.
        let late: Vec<_> = (0..40).map(|_| reserve(1, object.bytes(), 100)).collect();
        run_to(22);
        let left = late.iter().filter(|id| Reservations::<Test>::contains_key(**id)).copied();
        let left: Vec<_> = left.collect();
        assert!(!left.is_empty());
        assert_noop!(object.activate(1, left[0]), Error::<Test>::ReservationLapsed);
    });
}

/// A receipt by `signer` for a claim that was changed.
fn forged(claim: &ReceiptClaim, node: u32, signer: u32) -> Receipt {
    let signature = identity(signer).sign(&claim.message()).0;
    Receipt { node, bytes: claim.bytes, signature }
}

#[test]
fn receipts_forged_or_for_something_else_are_refused() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        let deal = reserve(1, object.bytes(), 100);
        let changes: [fn(&mut ReceiptClaim); 8] = [
            |claim| claim.genesis = [1; 32],
            |claim| claim.deal = DealId(claim.deal.0 + 1),
            |claim| claim.object = Cid::from_bytes([1; 32]),
            |claim| claim.shards_root = [1; 32],
            |claim| claim.width += 1,
            |claim| claim.stripe_count += 1,
            |claim| claim.node = NodeId::from_bytes([1; 32]),
            |claim| claim.held = [1; 32],
        ];
        for at in 0..object.holders().len() {
            let mut receipts = object.receipts(deal);
            let node = receipts[at].node;
            for (field, change) in changes.into_iter().enumerate() {
                let mut claim = object.claim(deal, node);
                change(&mut claim);
                receipts[at] = forged(&claim, node, node);
                let refused = object.activate_with(1, deal, receipts.clone());
                assert_eq!(refused, Err(Error::<Test>::BadReceipt.into()), "field {field}");
            }
            // Signed by another node, and for other bytes than it says.
            receipts[at] = forged(&object.claim(deal, node), node, (node + 1) % 6);
            let refused = object.activate_with(1, deal, receipts.clone());
            assert_noop!(refused, Error::<Test>::BadReceipt);
            receipts[at] = object.receipt(deal, node);
            receipts[at].bytes -= 1;
            let refused = object.activate_with(1, deal, receipts);
            assert_noop!(refused, Error::<Test>::BadReceipt);
        }
        assert_ok!(object.activate(1, deal));
    });
}

#[test]
fn receipts_do_not_serve_an_object_of_another_shape() {
    chain(7).execute_with(|| {
        let honest = small_object(1);
        let deal = reserve(1, 2 * honest.bytes(), 100);

        // A slot of nobody in every stripe: what each holder holds has the same digest.
        let mut wider = honest.clone();
        wider.width += 1;
        wider.groups.iter_mut().for_each(|(_, nodes)| nodes.push(NOBODY));
        let refused = wider.activate_with(1, deal, honest.receipts(deal));
        assert_noop!(refused, Error::<Test>::BadReceipt);

        // A group more at the end, whose only holder signs whatever its owner likes.
        let mut longer = honest.clone();
        longer.groups.push((1, vec![6, 6, NOBODY, NOBODY]));
        let mut receipts = honest.receipts(deal);
        receipts.push(longer.receipt(deal, 6));
        let refused = longer.activate_with(1, deal, receipts);
        assert_noop!(refused, Error::<Test>::BadReceipt);

        // Both shapes are fine if those who hold it say so.
        for object in [wider, longer] {
            let deal = reserve(1, 2 * object.bytes(), 100);
            assert_ok!(object.activate(1, deal));
        }
        assert_ok!(honest.activate(1, deal));
    });
}

#[test]
fn there_is_exactly_one_receipt_for_every_holder() {
    chain(7).execute_with(|| {
        let object = small_object(1);
        let deal = reserve(1, object.bytes(), 100);
        let receipts = object.receipts(deal);
        for gone in 0..receipts.len() {
            let mut fewer = receipts.clone();
            fewer.remove(gone);
            assert_noop!(
                object.activate_with(1, deal, fewer.clone()),
                Error::<Test>::MissingReceipt
            );
            fewer.push(fewer[0].clone());
            assert_noop!(object.activate_with(1, deal, fewer), Error::<Test>::UnexpectedReceipt);
        }
        let mut more = receipts.clone();
        more.push(receipts[0].clone());
        assert_noop!(object.activate_with(1, deal, more), Error::<Test>::UnexpectedReceipt);
        let mut stranger = receipts;
        stranger.push(object.receipt(deal, 6));
        assert_noop!(object.activate_with(1, deal, stranger), Error::<Test>::UnexpectedReceipt);
        assert_noop!(object.activate_with(1, deal, Vec::new()), Error::<Test>::MissingReceipt);
    });
}

/// What activating these groups says, with enough reserved and honest receipts.
fn activation(data: u16, groups: Vec<(u16, Vec<u32>)>) -> DispatchResult {
    let object = Object::new(9, data, groups, 64);
    let deal = reserve(1, 1 << 20, 100);
    object.activate(1, deal)
}

fn refused(error: Error<Test>) -> DispatchResult {
    Err(error.into())
}

#[test]
fn assignments_keep_to_the_limits() {
    chain(6).execute_with(|| {
        let wide = |nodes: [u32; 6]| vec![(1, nodes.to_vec())];
        // 4 of 6: two slots of a group on a node at most.
        assert_eq!(activation(4, wide([0, 0, 1, 1, 2, 3])), Ok(()));
        assert_eq!(activation(4, wide([0, 0, 0, 1, 2, 3])), refused(Error::TooManySlotsOnNode));
        // Without parity the even share counts: one of six.
        assert_eq!(activation(6, wide([0, 1, 2, 3, 4, 5])), Ok(()));
        assert_eq!(activation(6, wide([0, 0, 2, 3, 4, 5])), refused(Error::TooManySlotsOnNode));
        // Fewer slots than it takes to read it back.
        assert_eq!(activation(4, wide([0, 1, 2, 3, NOBODY, NOBODY])), Ok(()));
        let few = wide([0, 1, 2, NOBODY, NOBODY, NOBODY]);
        assert_eq!(activation(4, few), refused(Error::TooFewHolders));
        // The limit holds in every group, not on the average.
        let groups = vec![(1, vec![0, 1, 2, 3]), (1, vec![4, 4, 4, 5])];
        assert_eq!(activation(2, groups), refused(Error::TooManySlotsOnNode));
        assert_eq!(activation(4, wide([0, 1, 2, 3, 4, 6])), refused(Error::UnknownNode));
        assert_eq!(activation(7, wide([0, 1, 2, 3, 4, 5])), refused(Error::BadWidth));
        assert_eq!(activation(0, wide([0, 1, 2, 3, 4, 5])), refused(Error::BadWidth));
        let uneven = vec![(1, vec![0, 1, 2]), (1, vec![0, 1])];
        assert_eq!(activation(1, uneven), refused(Error::BadWidth));
        assert_eq!(activation(1, vec![(0, vec![0, 1])]), refused(Error::BadStripeCount));
        assert_eq!(activation(1, vec![(65, vec![0, 1])]), refused(Error::BadStripeCount));
        assert_eq!(activation(1, vec![(64, vec![0, 1]), (0, vec![2, 3])]), Ok(()));
    });
}

#[test]
fn a_small_network_may_put_more_slots_on_a_node() {
    chain(3).execute_with(|| {
        // 10 of 14 over three nodes: five each at most.
        let even = vec![(1, vec![0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2])];
        assert_eq!(activation(10, even), Ok(()));
        let uneven = vec![(1, vec![0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2])];
        assert_eq!(activation(10, uneven), refused(Error::TooManySlotsOnNode));
    });
}

#[test]
fn no_more_is_activated_than_was_reserved() {
    chain(6).execute_with(|| {
        let object = small_object(1);
        let deal = reserve(1, object.bytes() - 1, 100);
        assert_noop!(object.activate(1, deal), Error::<Test>::MoreThanReserved);
        let exact = reserve(1, object.bytes(), 100);
        assert_ok!(object.activate(1, exact));
        let record = Deals::<Test>::get(exact).expect("it is made");
        assert_eq!((record.bytes, record.stripe_count, record.group_count), (16 * 2_048, 4, 2));
        let groups: Vec<_> = (0..2).map(|group| Groups::<Test>::get(exact, group)).collect();
        let firsts = groups.into_iter().map(|group| group.expect("it is there").stripe_first);
        assert_eq!(firsts.collect::<Vec<_>>(), [0, 3]);
        for node in 0..6 {
            let holding = Holdings::<Test>::get(node, exact).expect("it holds");
            assert_eq!((holding.slots, holding.bytes), object.held(node));
        }
    });
}
