// SPDX-License-Identifier: MIT OR Apache-2.0
//! The store as the audit actor sees it.
//!
//! A proof has two halves: chunks of the shard up to its id, which the store reads from the disk,
//! and the shard's entry up to `shards_root`, which follows from the group's page and, for objects
//! of several groups, the span proof that the writer left here.

use supernode_audit::{Challenge, Height, Held, KeeperError, ProveError};
use supernode_protocol::audit::{AuditProof, drawn_chunks};
use supernode_protocol::deal::lease_of;
use supernode_protocol::ids::{Cid, LeaseId, Slot};
use supernode_protocol::manifest::{Page, Root, Stripe};
use supernode_protocol::tree::{
    EntryProof, ShardEntry, SpanProof, chunk_count, prove_entry_in_span,
};
use supernode_store::{DealLease, Store, StoreError};

/// See the module.
#[derive(Clone)]
pub struct StoreKeeper {
    store: Store,
    genesis: [u8; 32],
}

impl StoreKeeper {
    /// A keeper of the deals of one chain.
    pub fn new(store: Store, genesis: [u8; 32]) -> Self {
        Self { store, genesis }
    }

    /// A slot's entry and its way to the root of the object's list of shards.
    async fn place(&self, object: Cid, group: u32, slot: Slot) -> Result<Placed, ProveError> {
        let read = self.store.group(object, group).await.map_err(unprovable)?;
        let root = Root::decode(&read.root).map_err(damaged)?;
        let page = match &read.page {
            Some(block) => root.open_page(group, block).map_err(damaged)?,
            None => root.page_0.clone(),
        };
        let found = root.groups().find(|span| span.group == group);
        let (span, first) = found
            .zip(root.slots_before(group))
            .ok_or_else(|| damaged("its manifest root has no such group"))?;
        let index = position_in(&page, slot.stripe.wrapping_sub(span.stripe_first), slot.index)
            .ok_or_else(|| damaged("its manifest page has no such slot"))?;
        let entries: Vec<ShardEntry> = page.entries().collect();
        let siblings = self.span(object, group, root.pages.is_empty()).await?;
        let (count, position) = (root.slot_count(), first + index as u64);
        let place = prove_entry_in_span(count, first, &entries, &siblings, position);
        Ok(Placed { entry: entries[index], place: place.map_err(damaged)? })
    }

    /// What the writer left about the slots outside the group; nothing for an object of one group.
    async fn span(&self, object: Cid, group: u32, is_only: bool) -> Result<SpanProof, ProveError> {
        if is_only {
            return Ok(SpanProof::default());
        }
        let kept = self.store.span(object, group).await.map_err(unprovable)?;
        let kept = kept.ok_or_else(|| ProveError::Absent {
            reason: format!("the writer left no span proof of group {group} of {object} here"),
        })?;
        SpanProof::decode(&kept).map_err(damaged)
    }
}

/// An entry, proven.
struct Placed {
    entry: ShardEntry,
    place: EntryProof,
}

/// Where a slot stands among the entries of a page; `stripe` counts from the page's first.
fn position_in(page: &Page, stripe: u32, index: u16) -> Option<usize> {
    let stripe = usize::try_from(stripe).ok()?;
    let width = page.stripes().nth(stripe)?.width();
    let before: usize = page.stripes().take(stripe).map(Stripe::width).sum();
    (usize::from(index) < width).then_some(before + usize::from(index))
}

impl supernode_audit::Keeper for StoreKeeper {
    async fn deals(&self, after: Option<LeaseId>, limit: usize) -> Result<Vec<Held>, KeeperError> {
        let deals = self.store.deals(after, limit).await;
        Ok(deals.map_err(failed("list deals"))?.into_iter().map(held).collect())
    }

    async fn deals_due(
        &self,
        height: Height,
        after: Option<(Height, LeaseId)>,
        limit: usize,
    ) -> Result<Vec<Held>, KeeperError> {
        let deals = self.store.deals_due(height, after, limit).await;
        Ok(deals.map_err(failed("list deals that are due"))?.into_iter().map(held).collect())
    }

    async fn stored_end(&self, lease: LeaseId) -> Result<Option<Height>, KeeperError> {
        self.store.deal_end(lease).await.map_err(failed("look up a deal"))
    }

    async fn move_deal(&self, lease: LeaseId, height: Height) -> Result<(), KeeperError> {
        match self.store.move_deal(lease, height).await {
            Ok(_) | Err(StoreError::LeaseNotFound { .. }) => Ok(()),
            Err(error) => Err(failed("move a deal")(error)),
        }
    }

    async fn end_deal(&self, lease: LeaseId) -> Result<(), KeeperError> {
        match self.store.end_deal(lease).await {
            Ok(_) | Err(StoreError::LeaseNotFound { .. }) => Ok(()),
            Err(error) => Err(failed("end a deal")(error)),
        }
    }

    async fn prove(&self, challenge: Challenge) -> Result<Vec<u8>, ProveError> {
        let Challenge { deal, object, stripe, index, seed, chunk_count: count, .. } = challenge;
        let lease = lease_of(&self.genesis, deal);
        let wanted = Slot { stripe, index };
        let found = self.store.slot(lease, object, wanted).await.map_err(unprovable)?;
        let slot = found.ok_or_else(|| ProveError::Absent {
            reason: format!("deal {deal} has no slot {index} of stripe {stripe} here"),
        })?;
        let Placed { entry, place } = self.place(object, slot.group, wanted).await?;
        if entry.id != slot.shard {
            let reason = format!("the manifest of {object} names another shard for the slot");
            return Err(ProveError::Damaged { reason });
        }
        let drawn = drawn_chunks(&seed, chunk_count(entry.shard_len), count).collect();
        let chunks = self.store.prove(slot.shard, drawn).await.map_err(unprovable)?;
        Ok(AuditProof { entry, place, chunks }.encode())
    }
}

fn held(deal: DealLease) -> Held {
    let DealLease { lease, height, object, slots, bytes, .. } = deal;
    Held { lease, height, objects: object.into_iter().collect(), slots, bytes }
}

fn failed(operation: &'static str) -> impl Fn(StoreError) -> KeeperError {
    move |error| KeeperError { operation, reason: error.to_string() }
}

fn unprovable(error: StoreError) -> ProveError {
    let reason = error.to_string();
    match error {
        StoreError::Damaged { .. } => ProveError::Damaged { reason },
        StoreError::ShardNotFound { .. }
        | StoreError::GroupNotFound { .. }
        | StoreError::LeaseNotFound { .. } => ProveError::Absent { reason },
        _ => ProveError::Failed { reason },
    }
}

fn damaged(error: impl std::fmt::Display) -> ProveError {
    ProveError::Damaged { reason: error.to_string() }
}
