// SPDX-License-Identifier: MIT OR Apache-2.0
//! Money: what keeping bytes costs, and the one account through which all of it passes.
//!
//! The pallet's account (the pot) holds exactly: one existential deposit, the escrow of every
//! reservation, deal and closing deal, the unclaimed rewards of every node, and refunds that
//! their receivers could not take. Credits move money between these sums without a transfer.
//!
//! Costs are rounded up where somebody pays and down where somebody earns. A deal's holders
//! together hold what the deal pays for, and each is paid for every block at most once, so the
//! sum of all credits never exceeds the escrow.

use frame_support::ensure;
use frame_support::traits::tokens::{Fortitude, Preservation};
use frame_support::traits::{Get, fungible::Inspect, fungible::Mutate};
use frame_system::pallet_prelude::BlockNumberFor;
use sp_runtime::traits::{AccountIdConversion, SaturatedConversion, Saturating, Zero};
use sp_runtime::{DispatchError, DispatchResult};

use crate::pallet::{Config, Error, Event, Owed, Pallet, Rewards};
use crate::types::{AccountOf, BalanceOf, DealOf, HoldingOf};

/// Bytes in a GiB, as a shift.
const GIB_BITS: u32 = 30;

/// What a GiB has earned since the deal began, at block `at`; saturating, since the escrow that
/// bounds it was computed with checks.
pub(crate) fn mark<T: Config>(deal: &DealOf<T>, at: BlockNumberFor<T>) -> u128 {
    let blocks: u128 = at.saturating_sub(deal.priced_at).saturated_into();
    let price: u128 = deal.price.saturated_into();
    deal.accrued.saturating_add(price.saturating_mul(blocks))
}

impl<T: Config> Pallet<T> {
    /// The account that holds everything this pallet has taken and not yet paid.
    pub fn pot() -> AccountOf<T> {
        T::PalletId::get().into_account_truncating()
    }

    /// What `bytes` for `blocks` cost at `price` per GiB and block, rounded up.
    ///
    /// # Errors
    /// [`Error::Overflow`] where the product leaves 128 bits or the chain's balances.
    pub fn cost(
        bytes: u64,
        blocks: BlockNumberFor<T>,
        price: BalanceOf<T>,
    ) -> Result<BalanceOf<T>, DispatchError> {
        let blocks: u128 = blocks.try_into().map_err(|_| Error::<T>::Overflow)?;
        let price: u128 = price.try_into().map_err(|_| Error::<T>::Overflow)?;
        let product = u128::from(bytes)
            .checked_mul(blocks)
            .and_then(|byte_blocks| byte_blocks.checked_mul(price))
            .ok_or(Error::<T>::Overflow)?;
        let cost = product.div_ceil(1 << GIB_BITS);
        Ok(cost.try_into().map_err(|_| Error::<T>::Overflow)?)
    }

    /// Takes money from an account that must survive it.
    pub(crate) fn take(from: &AccountOf<T>, amount: BalanceOf<T>) -> DispatchResult {
        if amount.is_zero() {
            return Ok(());
        }
        let spendable =
            T::Currency::reducible_balance(from, Preservation::Preserve, Fortitude::Polite);
        ensure!(amount <= spendable, Error::<T>::NotEnoughMoney);
        T::Currency::transfer(from, &Self::pot(), amount, Preservation::Preserve).map(|_| ())
    }

    /// Pays from the pot, which must survive it.
    pub(crate) fn pay(to: &AccountOf<T>, amount: BalanceOf<T>) -> DispatchResult {
        if amount.is_zero() {
            return Ok(());
        }
        T::Currency::transfer(&Self::pot(), to, amount, Preservation::Preserve).map(|_| ())
    }

    /// Gives escrow back. It never fails: what an account cannot take (it is gone, and the amount
    /// is below the existential deposit) is owed to it and comes with its next refund.
    pub(crate) fn refund(to: &AccountOf<T>, amount: BalanceOf<T>) {
        let owed = Owed::<T>::get(to);
        let whole = amount.saturating_add(owed);
        if Self::pay(to, whole).is_ok() {
            if !owed.is_zero() {
                Owed::<T>::remove(to);
            }
        } else {
            Owed::<T>::insert(to, whole);
        }
    }

    /// Credits a holder for the time since it was last settled and moves the mark to `at`.
    pub(crate) fn credit(
        node: u32,
        deal: &mut DealOf<T>,
        holding: &mut HoldingOf<T>,
        at: BlockNumberFor<T>,
    ) {
        let now = mark::<T>(deal, at);
        let earned = now.saturating_sub(holding.settled_mark);
        let amount = u128::from(holding.bytes).saturating_mul(earned) >> GIB_BITS;
        let amount: BalanceOf<T> = amount.saturated_into();
        // The rounding argument above makes this bound idle; it stays so that no mistake in it
        // could ever pay one deal's holders with another deal's money.
        let amount = amount.min(deal.escrow);
        deal.escrow = deal.escrow.saturating_sub(amount);
        if !amount.is_zero() {
            Rewards::<T>::mutate(node, |reward| *reward = reward.saturating_add(amount));
        }
        holding.settled_at = at;
        holding.settled_mark = now;
    }

    /// Lets a holder's pay since it was last settled go; the money stays in the escrow. From here
    /// on it earns again.
    pub(crate) fn forfeit(deal: &DealOf<T>, holding: &mut HoldingOf<T>, at: BlockNumberFor<T>) {
        holding.settled_at = at;
        holding.settled_mark = mark::<T>(deal, at);
        holding.failed_since = false;
    }

    /// Pays a node's rewards to its owner.
    pub(crate) fn do_claim(node: u32, caller: &AccountOf<T>) -> DispatchResult {
        let record = Self::node(node)?;
        ensure!(record.owner == *caller || record.operator == *caller, Error::<T>::NotOwner);
        let amount = Rewards::<T>::take(node);
        ensure!(!amount.is_zero(), Error::<T>::NothingToClaim);
        Self::pay(&record.owner, amount)?;
        Self::deposit_event(Event::RewardsClaimed { node, to: record.owner, amount });
        Ok(())
    }

    /// Gives the pot its existential deposit, so that the smallest escrow can enter and the last
    /// one can leave. Part of genesis.
    pub(crate) fn fund_pot() {
        let (pot, deposit) = (Self::pot(), T::Currency::minimum_balance());
        let missing = deposit.saturating_sub(T::Currency::balance(&pot));
        if !missing.is_zero() {
            T::Currency::mint_into(&pot, missing).expect("a genesis may mint a minimum balance");
        }
    }
}
