// SPDX-License-Identifier: MIT OR Apache-2.0
//! The life of a deal: reserved, activated, renewed, ended, settled, forgotten.
//!
//! - A **reservation** holds the money while the object is uploaded. It becomes a deal by
//!   receipts of every holder, or lapses and is refunded.
//! - A **deal** ends by block number: from `expires_at` on nothing of it works, even in a block
//!   that has not come round to noticing. Noticing writes the tombstone; paying the holders
//!   follows, some in each block, out of [`Closing`].
//! - The **tombstone** stays for a stated time, so that nodes which were away can read that the
//!   deal is over and need not infer it from an absence.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use frame_support::ensure;
use frame_system::pallet_prelude::BlockNumberFor;
use sp_runtime::traits::{CheckedAdd, One, SaturatedConversion, Saturating};
use sp_runtime::{DispatchError, DispatchResult};
use supernode_protocol::deal::{DealId, HeldDigest, ReceiptClaim};
use supernode_protocol::ids::{Cid, NodeId};
use supernode_protocol::limits::PAGE_EXTENTS_MAX;

use crate::agenda::{Budget, Progress};
use crate::money::mark;
use crate::pallet::{
    Closings, Config, Deals, EndedDeals, Error, Event, Groups, Holdings, NextDeal, NextNode,
    Pallet, Parameters, Reservations,
};
use crate::registry::signed_by;
use crate::types::{
    AccountOf, BalanceOf, Closing, Deal, DealOf, EndedDeal, Group, GroupAssignment, Holding,
    NOBODY, ParametersOf, Queue, Receipt, Reservation, ReservationOf,
};

/// What an owner says about the object of a deal.
pub(crate) struct Content {
    pub(crate) object: [u8; 32],
    pub(crate) shards_root: [u8; 32],
    pub(crate) data: u16,
    pub(crate) width: u16,
}

/// What one node is assigned, group after group.
#[derive(Default)]
struct Share {
    digest: HeldDigest,
    slots: u32,
}

/// All groups of a deal, checked.
struct Layout {
    groups: Vec<Group>,
    stripe_count: u32,
    shares: BTreeMap<u32, Share>,
}

impl<T: Config> Pallet<T> {
    pub(crate) fn do_reserve(
        owner: AccountOf<T>,
        bytes: u64,
        duration: BlockNumberFor<T>,
        max_price: BalanceOf<T>,
    ) -> DispatchResult {
        let parameters = Parameters::<T>::get();
        ensure!(bytes > 0, Error::<T>::NoBytes);
        let price = Self::agreed_price(&parameters, duration, max_price)?;
        let escrow = Self::cost(bytes, duration, price)?;
        let now = frame_system::Pallet::<T>::block_number();
        let activates_by = Self::after(now, parameters.activation_window)?;
        let lapses_at = Self::after(activates_by, One::one())?;
        Self::take(&owner, escrow)?;
        let deal = NextDeal::<T>::get().checked_add(1).ok_or(Error::<T>::Overflow)?;
        NextDeal::<T>::put(deal);
        let reservation =
            Reservation { owner: owner.clone(), bytes, duration, escrow, price, activates_by };
        Reservations::<T>::insert(deal, reservation);
        Self::schedule(Queue::Lapses, lapses_at, deal);
        Self::deposit_event(Event::Reserved { deal, owner, bytes, escrow, activates_by });
        Ok(())
    }

    /// The current price, if duration and price suit both sides.
    fn agreed_price(
        parameters: &ParametersOf<T>,
        duration: BlockNumberFor<T>,
        max_price: BalanceOf<T>,
    ) -> Result<BalanceOf<T>, DispatchError> {
        let range = parameters.duration_min..=parameters.duration_max;
        ensure!(range.contains(&duration), Error::<T>::DurationOutOfRange);
        ensure!(parameters.price_per_gib_block <= max_price, Error::<T>::PriceTooHigh);
        Ok(parameters.price_per_gib_block)
    }

    fn after(
        block: BlockNumberFor<T>,
        blocks: BlockNumberFor<T>,
    ) -> Result<BlockNumberFor<T>, DispatchError> {
        block.checked_add(&blocks).ok_or_else(|| Error::<T>::Overflow.into())
    }

    pub(crate) fn do_activate(
        caller: &AccountOf<T>,
        id: u64,
        content: &Content,
        groups: Vec<GroupAssignment>,
        receipts: &[Receipt],
    ) -> DispatchResult {
        let now = frame_system::Pallet::<T>::block_number();
        let reservation = Reservations::<T>::get(id).ok_or(Error::<T>::UnknownReservation)?;
        ensure!(reservation.owner == *caller, Error::<T>::NotOwner);
        ensure!(now <= reservation.activates_by, Error::<T>::ReservationLapsed);
        let layout = Self::layout(content, groups, receipts.len())?;
        let held = Self::check_receipts(id, content, &layout, receipts)?;
        let bytes = held
            .iter()
            .try_fold(0_u64, |sum, (_, bytes)| sum.checked_add(*bytes))
            .ok_or(Error::<T>::Overflow)?;
        ensure!(bytes > 0, Error::<T>::NoBytes);
        ensure!(bytes <= reservation.bytes, Error::<T>::MoreThanReserved);
        let escrow = Self::cost(bytes, reservation.duration, reservation.price)?;
        let expires_at = Self::after(now, reservation.duration)?;
        Self::unlist_reservation(id, &reservation)?;

        let refunded = reservation.escrow.saturating_sub(escrow);
        let deal = Deal {
            owner: reservation.owner,
            object: content.object,
            shards_root: content.shards_root,
            data: content.data,
            width: content.width,
            stripe_count: layout.stripe_count,
            group_count: layout.groups.len().saturated_into(),
            bytes,
            price: reservation.price,
            priced_at: now,
            accrued: 0,
            activated_at: now,
            expires_at,
            escrow,
            round: None,
        };
        Self::write_deal(id, &deal, layout, held)?;
        Self::refund(&deal.owner, refunded);
        let Deal { owner, object, .. } = deal;
        Self::deposit_event(Event::DealActivated { deal: id, owner, object, expires_at, refunded });
        Ok(())
    }

    fn write_deal(
        id: u64,
        deal: &DealOf<T>,
        layout: Layout,
        held: Vec<(u32, u64)>,
    ) -> DispatchResult {
        for (number, group) in layout.groups.into_iter().enumerate() {
            Groups::<T>::insert(id, u32::saturated_from(number), group);
        }
        for (node, bytes) in held {
            let slots = layout.shares.get(&node).map_or(0, |share| share.slots);
            let holding = Holding {
                bytes,
                slots,
                settled_at: deal.activated_at,
                settled_mark: 0,
                passed: 0,
                failed: 0,
                open: 0,
                failed_since: false,
            };
            Holdings::<T>::insert(node, id, holding);
        }
        let first_round = Self::after(deal.activated_at, Parameters::<T>::get().audit_interval)?;
        Self::schedule(Queue::Expiries, deal.expires_at, id);
        Self::schedule(Queue::Rounds, first_round, id);
        Deals::<T>::insert(id, deal);
        Ok(())
    }

    /// Checks every group by itself and against the limits on what one node may hold.
    fn layout(
        content: &Content,
        assignments: Vec<GroupAssignment>,
        receipt_count: usize,
    ) -> Result<Layout, DispatchError> {
        let Content { data, width, .. } = *content;
        ensure!(data >= 1 && data <= width, Error::<T>::BadWidth);
        let registered = NextNode::<T>::get();
        let even = u32::from(width).div_ceil(registered.max(1));
        let slots_max = u32::from(width - data).max(even);
        let mut layout = Layout { groups: Vec::new(), stripe_count: 0, shares: BTreeMap::new() };
        for (number, assignment) in assignments.into_iter().enumerate() {
            let GroupAssignment { stripe_count, nodes } = assignment;
            ensure!(nodes.len() == usize::from(width), Error::<T>::BadWidth);
            ensure!(usize::from(stripe_count) <= PAGE_EXTENTS_MAX, Error::<T>::BadStripeCount);
            let stripe_first = layout.stripe_count;
            let stripes = u32::from(stripe_count);
            let mut in_group = BTreeMap::<u32, u32>::new();
            for (index, node) in (0_u16..).zip(&nodes) {
                if *node == NOBODY {
                    continue;
                }
                ensure!(*node < registered, Error::<T>::UnknownNode);
                let slots = in_group.entry(*node).or_default();
                *slots += 1;
                ensure!(*slots <= slots_max, Error::<T>::TooManySlotsOnNode);
                let share = layout.shares.entry(*node).or_default();
                share.digest.push(number.saturated_into(), stripe_first, stripes, index);
                share.slots = share.slots.saturating_add(stripes);
                // Checked on the way: what is kept here is bounded by what the caller paid for.
                ensure!(layout.shares.len() <= receipt_count, Error::<T>::MissingReceipt);
            }
            let assigned: u32 = in_group.values().sum();
            ensure!(assigned >= u32::from(data), Error::<T>::TooFewHolders);
            layout.stripe_count = stripe_first.checked_add(stripes).ok_or(Error::<T>::Overflow)?;
            layout.groups.push(Group { stripe_first, stripe_count, nodes });
        }
        ensure!(layout.stripe_count > 0, Error::<T>::BadStripeCount);
        Ok(layout)
    }

    /// Demands exactly one receipt of every holder, and every signature; gives bytes by node.
    fn check_receipts(
        id: u64,
        content: &Content,
        layout: &Layout,
        receipts: &[Receipt],
    ) -> Result<Vec<(u32, u64)>, DispatchError> {
        let genesis = Self::genesis();
        let mut held = BTreeMap::new();
        for Receipt { node, bytes, signature } in receipts {
            let share = layout.shares.get(node).ok_or(Error::<T>::UnexpectedReceipt)?;
            ensure!(held.insert(*node, *bytes).is_none(), Error::<T>::UnexpectedReceipt);
            let peer = Self::node(*node)?.peer;
            let claim = ReceiptClaim {
                genesis,
                deal: DealId(id),
                object: Cid::from_bytes(content.object),
                shards_root: content.shards_root,
                width: content.width,
                stripe_count: layout.stripe_count,
                node: NodeId::from_bytes(peer),
                bytes: *bytes,
                held: share.digest.finish(),
            };
            ensure!(signed_by(&peer, &claim.message(), signature), Error::<T>::BadReceipt);
        }
        ensure!(held.len() == layout.shares.len(), Error::<T>::MissingReceipt);
        Ok(held.into_iter().collect())
    }

    fn unlist_reservation(id: u64, reservation: &ReservationOf<T>) -> DispatchResult {
        let lapses_at = Self::after(reservation.activates_by, One::one())?;
        Reservations::<T>::remove(id);
        Self::unschedule(Queue::Lapses, lapses_at, id);
        Ok(())
    }

    /// Buys more blocks at today's price. What is owed so far stays at the old price; from now on
    /// the deal has one price again, the mean of both weighted by the blocks they were paid for.
    pub(crate) fn do_renew(
        caller: &AccountOf<T>,
        id: u64,
        duration: BlockNumberFor<T>,
        max_price: BalanceOf<T>,
    ) -> DispatchResult {
        let now = frame_system::Pallet::<T>::block_number();
        let mut deal = Self::living_deal(id, now)?;
        ensure!(deal.owner == *caller, Error::<T>::NotOwner);
        let parameters = Parameters::<T>::get();
        let price = Self::agreed_price(&parameters, duration, max_price)?;
        let expires_at = Self::after(deal.expires_at, duration)?;
        let ahead = expires_at.saturating_sub(now);
        ensure!(ahead <= parameters.duration_max, Error::<T>::DurationOutOfRange);
        let added = Self::cost(deal.bytes, duration, price)?;
        Self::take(caller, added)?;
        let blended = Self::blend(&deal, now, (price, duration))?;
        Self::unschedule(Queue::Expiries, deal.expires_at, id);
        Self::schedule(Queue::Expiries, expires_at, id);
        deal.accrued = mark::<T>(&deal, now);
        deal.price = blended;
        deal.priced_at = now;
        deal.expires_at = expires_at;
        deal.escrow = deal.escrow.checked_add(&added).ok_or(Error::<T>::Overflow)?;
        Deals::<T>::insert(id, deal);
        Self::deposit_event(Event::DealRenewed { deal: id, expires_at });
        Ok(())
    }

    /// The mean price over what is left and what is added, rounded down: never more than is paid.
    fn blend(
        deal: &DealOf<T>,
        now: BlockNumberFor<T>,
        added: (BalanceOf<T>, BlockNumberFor<T>),
    ) -> Result<BalanceOf<T>, DispatchError> {
        let left: u128 = deal.expires_at.saturating_sub(now).saturated_into();
        let (price, blocks): (u128, u128) = (added.0.saturated_into(), added.1.saturated_into());
        let old: u128 = deal.price.saturated_into();
        let total = old
            .checked_mul(left)
            .zip(price.checked_mul(blocks))
            .and_then(|(old, new)| old.checked_add(new))
            .ok_or(Error::<T>::Overflow)?;
        let mean = total / left.saturating_add(blocks).max(1);
        Ok(mean.try_into().map_err(|_| Error::<T>::Overflow)?)
    }

    /// A deal that has not ended at `now`, noticed or not.
    pub(crate) fn living_deal(id: u64, now: BlockNumberFor<T>) -> Result<DealOf<T>, DispatchError> {
        let deal = Deals::<T>::get(id).ok_or(Error::<T>::UnknownDeal)?;
        ensure!(now < deal.expires_at, Error::<T>::DealOver);
        Ok(deal)
    }

    pub(crate) fn do_cancel(caller: &AccountOf<T>, id: u64) -> DispatchResult {
        let now = frame_system::Pallet::<T>::block_number();
        if let Some(reservation) = Reservations::<T>::get(id) {
            ensure!(reservation.owner == *caller, Error::<T>::NotOwner);
            Self::unlist_reservation(id, &reservation)?;
            Self::end_reservation(id, &reservation);
            return Ok(());
        }
        let deal = Self::living_deal(id, now)?;
        ensure!(deal.owner == *caller, Error::<T>::NotOwner);
        Self::unschedule(Queue::Expiries, deal.expires_at, id);
        Self::end_deal(id, deal, now, now);
        Ok(())
    }

    fn end_reservation(id: u64, reservation: &ReservationOf<T>) {
        Self::refund(&reservation.owner, reservation.escrow);
        Self::deposit_event(Event::ReservationEnded { deal: id, refunded: reservation.escrow });
    }

    /// Refunds a reservation that nobody activated in time.
    pub(crate) fn lapse(id: u64) {
        if let Some(reservation) = Reservations::<T>::take(id) {
            Self::end_reservation(id, &reservation);
        }
    }

    /// Notices that a deal is over.
    pub(crate) fn expire(id: u64, now: BlockNumberFor<T>) {
        let over = Deals::<T>::get(id).filter(|deal| deal.expires_at <= now);
        if let Some(deal) = over {
            let at = deal.expires_at;
            Self::end_deal(id, deal, at, now);
        }
    }

    fn end_deal(id: u64, deal: DealOf<T>, at: BlockNumberFor<T>, now: BlockNumberFor<T>) {
        let cancelled = at < deal.expires_at;
        let (owner, object) = (deal.owner.clone(), deal.object);
        Deals::<T>::remove(id);
        EndedDeals::<T>::insert(id, EndedDeal { owner, object, at, cancelled });
        Closings::<T>::insert(id, Closing { deal, ended_at: at, group: 0 });
        Self::schedule(Queue::Settlements, now.saturating_add(One::one()), id);
        Self::deposit_event(Event::DealEnded { deal: id, at, cancelled });
    }

    /// Pays the holders of an ended deal, group by group, but for those of whom an audit failed
    /// and was not decided; gives the rest back.
    pub(crate) fn settle(id: u64, now: BlockNumberFor<T>, budget: &mut Budget) -> Progress {
        let Some(mut closing) = Closings::<T>::get(id) else { return Progress::Done };
        while closing.group < closing.deal.group_count {
            // Groups are as wide as the deal, so each costs at least a unit.
            if !budget.has_room() {
                Closings::<T>::insert(id, closing);
                return Progress::Unfinished;
            }
            let group = Groups::<T>::take(id, closing.group);
            closing.group += 1;
            for node in group.into_iter().flat_map(|group| group.nodes) {
                budget.spend(1);
                if node == NOBODY {
                    continue;
                }
                let holding = Holdings::<T>::take(node, id);
                // What is still open is dropped and counts neither way; what failed has failed.
                if let Some(mut holding) = holding.filter(|holding| !holding.failed_since) {
                    let ended_at = closing.ended_at;
                    Self::credit(node, &mut closing.deal, &mut holding, ended_at);
                }
            }
        }
        Closings::<T>::remove(id);
        let refunded = closing.deal.escrow;
        Self::refund(&closing.deal.owner, refunded);
        let kept = Parameters::<T>::get().tombstone_blocks;
        let prune_at = closing.ended_at.saturating_add(kept).max(now.saturating_add(One::one()));
        Self::schedule(Queue::Tombstones, prune_at, id);
        Self::deposit_event(Event::DealSettled { deal: id, refunded });
        Progress::Done
    }

    /// Forgets a deal whose tombstone has stood long enough.
    pub(crate) fn prune_deal(id: u64) {
        EndedDeals::<T>::remove(id);
        Self::deposit_event(Event::DealPruned { deal: id });
    }
}
