// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps of cleanup, and the plan, which is the same judgement without the effects.

use supernode_protocol::deal::{DealId, deal_of, lease_of};
use supernode_protocol::ids::LeaseId;

use crate::chain::{BlockRef, Chain, ChainError, DealChange, Height, Standing};
use crate::cleanup::{DealCounts, JudgedPage, Stop, Task, TaskDone};
use crate::cursor::Bookmark;
use crate::error::AuditError;
use crate::jobs::{Ground, StepError, Tools};
use crate::keeper::{Held, Keeper, KeeperError};
use crate::verdict::{End, Keep, Planned, Verdict, doubt, due_height, judge, named_end, objection};

impl<C: Chain, K: Keeper, B: Bookmark> Tools<C, K, B> {
    pub(crate) async fn clean(&self, task: Task) -> Result<TaskDone, StepError> {
        match task {
            Task::Walk { at, target, after } => self.walk(at, target, after).await,
            Task::Follow { from, to } => self.follow(from, to).await,
            Task::Due { at, after } => self.sweep(at, after).await,
            Task::Count { at, after } => self.count(at, after).await,
        }
    }

    /// Compares a page of own leases with the chain. Nothing ends here: what is due afterwards is
    /// judged like everything else.
    async fn walk(
        &self,
        at: BlockRef,
        target: BlockRef,
        after: Option<LeaseId>,
    ) -> Result<TaskDone, StepError> {
        let limit = self.config.leases_per_step_max;
        let page = self.keeper.deals(after, limit).await?;
        let next = page.last().filter(|_| page.len() >= limit).map(|held| held.lease);
        let mut moved = 0;
        for held in page {
            let Some(deal) = deal_of(self.genesis.as_bytes(), held.lease) else { continue };
            let end = named_end(self.chain.deal(deal, at).await?);
            if let Some(end) = end {
                moved += u64::from(self.steer(deal, held.height, end).await?);
            }
        }
        if next.is_none() {
            self.save(target).await?;
        }
        Ok(TaskDone::Walked { after: next, moved })
    }

    /// Processes some blocks after `from`, each of which must continue the one before it, and
    /// saves how far it came.
    async fn follow(&self, from: BlockRef, to: BlockRef) -> Result<TaskDone, StepError> {
        let (mut reached, mut moved, mut stop) = (from, 0, None);
        if to.height - from.height > self.config.catch_up_blocks_max {
            stop = Some(self.gap_after(from).await);
        }
        let last = to.height.min(from.height.saturating_add(self.config.blocks_per_step_max));
        while stop.is_none() && reached.height < last {
            match self.next_block(reached, to).await {
                Ok(Some((block, changes))) => match self.apply_changes(&changes).await {
                    Ok(count) => (reached, moved) = (block, moved + count),
                    Err(error) => stop = Some(Stop::Failed(error.to_string())),
                },
                Ok(None) => stop = Some(Stop::Differs),
                Err(ChainError::Pruned { .. }) => stop = Some(self.gap_after(reached).await),
                Err(error) => stop = Some(Stop::Failed(error.to_string())),
            }
        }
        if reached != from {
            self.save(reached).await?;
        }
        Ok(TaskDone::Followed { reached, moved, stop })
    }

    /// Whether blocks may be skipped after a processed one: only if this chain contains it. Where
    /// that cannot be shown nothing is skipped, for the chain may be another one.
    async fn gap_after(&self, processed: BlockRef) -> Stop {
        match self.chain.block_at(processed.height).await {
            Ok(block) if block == processed => Stop::Gap,
            Ok(_) => Stop::Differs,
            Err(error) => Stop::Failed(format!(
                "the processed {processed} cannot be looked up: {error}; use an endpoint that \
                 keeps block hashes, or remove the cursor file"
            )),
        }
    }

    /// The block after `block`, or nothing if the chain that ends in `to` does not contain it.
    async fn next_block(
        &self,
        block: BlockRef,
        to: BlockRef,
    ) -> Result<Option<(BlockRef, Vec<DealChange>)>, ChainError> {
        let height = block.height + 1;
        let next = if height == to.height { to } else { self.chain.block_at(height).await? };
        let facts = self.chain.changes(next).await?;
        let continues = next.height == height && facts.parent == block.hash;
        Ok(continues.then_some((next, facts.changes)))
    }

    async fn apply_changes(&self, changes: &[DealChange]) -> Result<u64, StepError> {
        let mut moved = 0;
        for change in changes {
            let lease = lease_of(self.genesis.as_bytes(), change.deal);
            let Some(end) = named_end(change.fact) else { continue };
            let Some(stored) = self.keeper.stored_end(lease).await? else { continue };
            moved += u64::from(self.steer(change.deal, stored, end).await?);
        }
        Ok(moved)
    }

    /// Moves a stored end to the one that the chain names. An endpoint that cannot confirm an
    /// earlier end yet is waited for; one that knows better keeps the stored end.
    async fn steer(&self, deal: DealId, stored: Height, end: Height) -> Result<bool, StepError> {
        if end == stored {
            return Ok(false);
        }
        if end < stored {
            match doubt(end, &self.chain.opinions(deal).await?) {
                None => {}
                Some(Keep::Unconfirmed { endpoint }) => {
                    return Err(StepError::Unconfirmed { endpoint, deal });
                }
                Some(keep) => {
                    let reason = keep.to_string();
                    tracing::warn!(%deal, stored, end, reason, "an earlier end is not taken");
                    return Ok(false);
                }
            }
        }
        let lease = lease_of(self.genesis.as_bytes(), deal);
        self.keeper.move_deal(lease, end).await?;
        Ok(true)
    }

    /// Judges a page of what is due, and acts on it.
    async fn sweep(
        &self,
        at: BlockRef,
        after: Option<(Height, LeaseId)>,
    ) -> Result<TaskDone, StepError> {
        let (due, next) = self.due(at, after, self.config.leases_per_step_max).await?;
        let mut page = JudgedPage::default();
        for held in due {
            let planned = self.consider(held, at).await?;
            match self.carry_out(&planned, at, &mut page).await {
                Ok(()) => {}
                Err(error) => {
                    let lease = planned.lease();
                    tracing::error!(%lease, %error, "a deal lease could not be moved or ended");
                    page.failed += 1;
                }
            }
        }
        Ok(TaskDone::Judged { after: next, page })
    }

    async fn due(
        &self,
        at: BlockRef,
        after: Option<(Height, LeaseId)>,
        limit: usize,
    ) -> Result<(Vec<Held>, Option<(Height, LeaseId)>), KeeperError> {
        let Some(height) = due_height(at.height, self.config.reorg_buffer_blocks) else {
            return Ok((Vec::new(), None));
        };
        let due = self.keeper.deals_due(height, after, limit).await?;
        let next = due.last().filter(|_| due.len() >= limit).map(|it| (it.height, it.lease));
        Ok((due, next))
    }

    /// What happens to one lease at a processed block: the one place where that is decided.
    async fn consider(&self, held: Held, at: BlockRef) -> Result<Planned, ChainError> {
        let Some(deal) = deal_of(self.genesis.as_bytes(), held.lease) else {
            return Ok(Planned::kept(held, None, Keep::OtherChain));
        };
        let buffer = self.config.reorg_buffer_blocks;
        let fact = self.chain.deal(deal, at).await?;
        let (moves_to, mut verdict) = judge(held.height, fact, at.height, buffer);
        if matches!(verdict, Verdict::End(_)) {
            let opinions = self.chain.opinions(deal).await?;
            let end = moves_to.unwrap_or(held.height);
            if let Some(keep) = objection(end, buffer, &opinions) {
                verdict = Verdict::Keep(keep);
            }
        }
        Ok(Planned { held, deal: Some(deal), moves_to, verdict })
    }

    async fn carry_out(
        &self,
        planned: &Planned,
        at: BlockRef,
        page: &mut JudgedPage,
    ) -> Result<(), KeeperError> {
        if let Some(height) = planned.moves_to {
            self.keeper.move_deal(planned.lease(), height).await?;
            page.moved += 1;
        }
        match &planned.verdict {
            Verdict::End(end) if self.still_trusted(at) => self.end(planned, *end, page).await?,
            // The chain fell ill while we asked: the lease is judged again when it is well.
            Verdict::End(_) => page.failed += 1,
            Verdict::Keep(Keep::Disputed { .. }) => page.disputed += 1,
            Verdict::Keep(Keep::Unconfirmed { .. }) => page.unconfirmed += 1,
            Verdict::Keep(_) => {}
        }
        Ok(())
    }

    fn still_trusted(&self, at: BlockRef) -> bool {
        let watch = self.chain.watch();
        let view = watch.borrow();
        view.standing == Standing::Healthy && view.finalised.height >= at.height
    }

    async fn end(
        &self,
        planned: &Planned,
        end: End,
        page: &mut JudgedPage,
    ) -> Result<(), KeeperError> {
        let held = &planned.held;
        self.keeper.end_deal(held.lease).await?;
        let (lease, slots, bytes) = (held.lease, held.slots, held.bytes);
        let deal = planned.deal.map(|deal| deal.0);
        tracing::info!(%lease, deal, slots, bytes, reason = %end, "a deal lease has ended");
        page.ended += 1;
        page.ended_slots += slots;
        page.ended_bytes += bytes;
        Ok(())
    }

    /// Counts a page of own leases by what is stored; the chain is not asked.
    async fn count(&self, at: Height, after: Option<LeaseId>) -> Result<TaskDone, StepError> {
        let limit = self.config.census_leases_max;
        let leases = self.keeper.deals(after, limit).await?;
        let next = leases.last().filter(|_| leases.len() >= limit).map(|held| held.lease);
        let mut page = DealCounts::default();
        for held in leases {
            if deal_of(self.genesis.as_bytes(), held.lease).is_none() {
                page.other_chain += 1;
            } else if held.height > at {
                page.active += 1;
            } else {
                page.ending += 1;
            }
        }
        Ok(TaskDone::Counted { after: next, page })
    }

    /// What would go and why: the leases that are due, judged as [`Self::sweep`] judges them.
    pub(crate) async fn plan(
        &self,
        ground: Ground,
        limit: usize,
    ) -> Result<Vec<Planned>, AuditError> {
        let (Ground::Firm(at) | Ground::Infirm(at, _)) = ground;
        let (due, _) = self.due(at, None, limit).await?;
        let mut plan = Vec::with_capacity(due.len());
        for held in due {
            plan.push(match &ground {
                Ground::Firm(_) => self.consider(held, at).await?,
                Ground::Infirm(_, keep) => {
                    let deal = deal_of(self.genesis.as_bytes(), held.lease);
                    let keep = if deal.is_some() { keep.clone() } else { Keep::OtherChain };
                    Planned::kept(held, deal, keep)
                }
            });
        }
        Ok(plan)
    }
}
