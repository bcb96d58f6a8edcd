// SPDX-License-Identifier: MIT OR Apache-2.0
//! Audits: who is asked when, and what an answer or its absence does.
//!
//! A round of audits starts at a random slot of a deal and visits the slots that follow. It is
//! not begun when its deadline would fall beyond the deal's end, since nobody has to keep the
//! bytes until then; an audit that is open when the deal is cancelled is dropped without harm.
//! The next round is counted from the end of this one, and a window is shorter than an interval,
//! so a slot has one open audit at most.
//!
//! A node is paid for its whole holding of a deal or not at all, whatever order its answers come
//! in: when the last open audit of a holding is resolved, its pay since it was last settled is
//! credited if all were passed, and forfeited if one failed. What is forfeited stays in the escrow
//! and goes back to the deal's owner at the end.

use codec::Encode;
use frame_support::ensure;
use frame_support::traits::Randomness;
use frame_system::pallet_prelude::BlockNumberFor;
use sp_io::hashing::blake2_256;
use sp_runtime::DispatchResult;
use sp_runtime::traits::{One, Saturating};
use supernode_protocol::audit::{AuditError, AuditProof, Question, verify};

use crate::agenda::{Budget, Progress};
use crate::pallet::{
    AuditResults, Closings, Config, Deals, EndedDeals, Error, Event, Groups, Holdings, NextAudit,
    OpenAudits, Pallet, Parameters,
};
use crate::types::{
    AccountOf, Audit, AuditOf, AuditResult, DealOf, Group, NOBODY, ParametersOf, ProofBytes, Queue,
    Rejection, Round,
};

/// Where the randomness of a block is asked for.
const SUBJECT: &[u8] = b"supernode/audits";

/// What all audits that one round opens in one block have in common.
struct Opening<'a, T: Config> {
    id: u64,
    deal: &'a DealOf<T>,
    parameters: &'a ParametersOf<T>,
    random: T::Hash,
    now: BlockNumberFor<T>,
    deadline: BlockNumberFor<T>,
}

impl<T: Config> Pallet<T> {
    /// Opens the audits of a deal that is due, as many as the block has room for.
    pub(crate) fn open_round(id: u64, now: BlockNumberFor<T>, budget: &mut Budget) -> Progress {
        // A deal that has ended takes its place on the agenda with it.
        let Ok(mut deal) = Self::living_deal(id, now) else { return Progress::Done };
        let parameters = Parameters::<T>::get();
        let deadline = now.saturating_add(parameters.audit_window);
        let mut round = None;
        if deadline < deal.expires_at {
            let random = T::Randomness::random(SUBJECT).0;
            let begun = deal.round.take();
            let begun = begun.or_else(|| Self::begin_round(id, &deal, &parameters, &random));
            let opening =
                Opening { id, deal: &deal, parameters: &parameters, random, now, deadline };
            round = begun.and_then(|round| Self::visit_slots(&opening, round, budget));
        }
        let unfinished = round.is_some();
        deal.round = round;
        Deals::<T>::insert(id, deal);
        if unfinished {
            return Progress::Unfinished;
        }
        Self::schedule(Queue::Rounds, now.saturating_add(parameters.audit_interval), id);
        Progress::Done
    }

    fn begin_round(
        id: u64,
        deal: &DealOf<T>,
        parameters: &ParametersOf<T>,
        random: &T::Hash,
    ) -> Option<Round> {
        let slots = deal.slot_count();
        let draw = blake2_256(&(random, id).encode());
        let (word, _) = draw.split_first_chunk().expect("32 bytes hold 8");
        let product = u128::from(u64::from_le_bytes(*word)) * u128::from(slots);
        let slot = u64::try_from(product >> 64).expect("the upper half of 128 bits");
        let group = Self::group_of(id, deal, slot)?;
        Some(Round { slot, group, left: slots.min(parameters.slots_per_round.into()) })
    }

    /// Visits slots until the round or the budget is over; gives back what is left of the round.
    fn visit_slots(
        opening: &Opening<'_, T>,
        mut round: Round,
        budget: &mut Budget,
    ) -> Option<Round> {
        let (id, deal) = (opening.id, opening.deal);
        let mut group = Groups::<T>::get(id, round.group)?;
        while round.left > 0 {
            if !budget.has_room() {
                return Some(round);
            }
            budget.spend(1);
            let stripe = deal.stripe_of(round.slot);
            if !group.holds(stripe) {
                round.group = Self::group_of(id, deal, round.slot)?;
                group = Groups::<T>::get(id, round.group)?;
            }
            Self::open_audit(opening, &group, round.slot);
            round.left -= 1;
            round.slot = (round.slot + 1) % deal.slot_count();
        }
        None
    }

    /// The group that a slot lies in, by bisection: groups are in the order of their stripes, and
    /// the last one that begins at or before a stripe holds it.
    fn group_of(id: u64, deal: &DealOf<T>, slot: u64) -> Option<u32> {
        let stripe = deal.stripe_of(slot);
        let (mut first, mut end) = (0, deal.group_count);
        while end - first > 1 {
            let middle = first + (end - first) / 2;
            if Groups::<T>::get(id, middle)?.stripe_first <= stripe {
                first = middle;
            } else {
                end = middle;
            }
        }
        Some(first)
    }

    fn open_audit(opening: &Opening<'_, T>, group: &Group, slot: u64) {
        let Opening { id, deal, parameters, random, now, deadline } = opening;
        let (stripe, index) = (deal.stripe_of(slot), deal.index_of(slot));
        let node = group.nodes.get(usize::from(index)).copied().unwrap_or(NOBODY);
        let audit = NextAudit::<T>::get().saturating_add(1);
        if node == NOBODY || audit == u64::MAX {
            return;
        }
        let Some(mut holding) = Holdings::<T>::get(node, id) else { return };
        holding.open = holding.open.saturating_add(1);
        Holdings::<T>::insert(node, id, holding);
        NextAudit::<T>::put(audit);
        let record = Audit {
            deal: *id,
            object: deal.object,
            stripe,
            index,
            seed: blake2_256(&(random, audit).encode()),
            chunk_count: parameters.chunks_per_audit,
            opened_at: *now,
            deadline: *deadline,
        };
        OpenAudits::<T>::insert(node, audit, record);
        Self::schedule_deadline(deadline.saturating_add(One::one()), audit, node);
        let (deal, deadline) = (*id, *deadline);
        Self::deposit_event(Event::AuditOpened { audit, node, deal, stripe, index, deadline });
    }

    /// Judges each proof by itself; a bad one harms neither its own audit nor the others.
    pub(crate) fn do_submit(
        caller: &AccountOf<T>,
        node: u32,
        proofs: impl IntoIterator<Item = (u64, ProofBytes)>,
    ) -> DispatchResult {
        ensure!(Self::node(node)?.operator == *caller, Error::<T>::NotOperator);
        let now = frame_system::Pallet::<T>::block_number();
        for (audit, bytes) in proofs {
            match Self::judge(node, audit, &bytes, now) {
                Ok((record, deal)) => Self::pass(node, audit, &record, deal, now),
                Err(reason) => {
                    Self::deposit_event(Event::ProofRejected { audit, node, reason });
                }
            }
        }
        Ok(())
    }

    fn judge(
        node: u32,
        audit: u64,
        bytes: &[u8],
        now: BlockNumberFor<T>,
    ) -> Result<(AuditOf<T>, DealOf<T>), Rejection> {
        let record = OpenAudits::<T>::get(node, audit).ok_or(Rejection::NotOpen)?;
        // The sweep may be late; the deadline is not.
        if now > record.deadline {
            return Err(Rejection::Late);
        }
        let deal = Self::living_deal(record.deal, now).map_err(|_| Rejection::DealEnded)?;
        let proof = AuditProof::decode(bytes).map_err(|_| Rejection::Malformed)?;
        let question = Question {
            shards_root: deal.shards_root,
            slot_count: deal.slot_count(),
            slot: deal.slot(record.stripe, record.index),
            seed: record.seed,
            chunk_count: record.chunk_count,
        };
        verify(&question, &proof).map_err(|error| match error {
            AuditError::Entry(_) | AuditError::ShardLen { .. } => Rejection::WrongEntry,
            _ => Rejection::WrongChunks,
        })?;
        Ok((record, deal))
    }

    fn pass(
        node: u32,
        audit: u64,
        record: &AuditOf<T>,
        mut deal: DealOf<T>,
        now: BlockNumberFor<T>,
    ) {
        let swept_at = record.deadline.saturating_add(One::one());
        Self::unschedule(Queue::Deadlines, swept_at, audit);
        if let Some(mut holding) = Holdings::<T>::get(node, record.deal) {
            let decided = holding.resolve(true);
            if decided && holding.failed_since {
                Self::forfeit(&deal, &mut holding, now);
            } else if decided {
                Self::credit(node, &mut deal, &mut holding, now);
                Deals::<T>::insert(record.deal, deal);
            }
            Holdings::<T>::insert(node, record.deal, holding);
        }
        Self::resolve(node, audit, record, true, now);
        Self::deposit_event(Event::AuditPassed { audit, node, deal: record.deal });
    }

    /// Notices that no proof came in time.
    pub(crate) fn miss(node: u32, audit: u64, now: BlockNumberFor<T>) {
        let Some(record) = OpenAudits::<T>::get(node, audit) else { return };
        let id = record.deal;
        // A sweep that comes late must not spare a node because the deal ended meanwhile; only a
        // deal that ended before the deadline takes its audits with it.
        let ended = EndedDeals::<T>::get(id);
        let deal = Deals::<T>::get(id).or_else(|| Closings::<T>::get(id).map(|it| it.deal));
        // A deal without even a tombstone has long been settled.
        let is_over = ended.as_ref().map_or(deal.is_none(), |ended| ended.at <= record.deadline);
        if is_over {
            OpenAudits::<T>::remove(node, audit);
            Self::deposit_event(Event::AuditDropped { audit, node, deal: id });
            return;
        }
        if let Some((deal, mut holding)) = deal.zip(Holdings::<T>::get(node, id)) {
            if holding.resolve(false) {
                Self::forfeit(&deal, &mut holding, now.min(deal.expires_at));
            }
            Holdings::<T>::insert(node, id, holding);
        }
        Self::resolve(node, audit, &record, false, now);
        Self::deposit_event(Event::AuditFailed { audit, node, deal: id });
    }

    fn resolve(node: u32, audit: u64, record: &AuditOf<T>, passed: bool, now: BlockNumberFor<T>) {
        OpenAudits::<T>::remove(node, audit);
        let Audit { deal, stripe, index, opened_at, .. } = *record;
        let result = AuditResult { node, deal, stripe, index, passed, opened_at, resolved_at: now };
        AuditResults::<T>::insert(audit, result);
        let kept = Parameters::<T>::get().tombstone_blocks;
        Self::schedule(Queue::Results, now.saturating_add(kept), audit);
    }

    /// Forgets a result that has been readable long enough.
    pub(crate) fn prune_result(audit: u64) {
        AuditResults::<T>::remove(audit);
    }
}
