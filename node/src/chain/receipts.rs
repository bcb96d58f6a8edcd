// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deals at this node's door: which of them may be committed, and what it signs about them.
//!
//! A client that commits under a deal's lease is believed nothing: the chain must know the
//! reservation, at its best block, and the lease may last no longer than the reservation does. What
//! becomes of the deal after that is for the audit actor to follow. Without a healthy chain no deal
//! is taken, while pins and reads go on.

use std::collections::BTreeMap;
use std::time::Duration;

use libp2p_identity::Keypair;
use supernode_chain::{Chain, ChainError, DealState};
use supernode_protocol::deal::{DealId, HeldDigest, ReceiptClaim, deal_of};
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot};
use supernode_protocol::lease::{Commit, Expiry};
use supernode_protocol::manifest::{Page, Root};
use supernode_protocol::tree::{SpanProof, verify_span};
use supernode_protocol::wire::{ErrorCode, HeldIndexes, Receipt, WireError};
use supernode_store::{GroupRead, Store, StoreError};
use tokio::time::timeout;

use crate::backend::told as told_of;

/// How long news of a reservation may take to this node.
const NEWS_PATIENCE: Duration = Duration::from_secs(15);

/// The chain and the key this node signs with.
#[derive(Clone)]
pub struct Notary {
    /// The configured chain.
    pub chain: Chain,
    /// The node's own key.
    pub identity: Keypair,
    /// Its name.
    pub node: NodeId,
}

impl Notary {
    /// Whether a lease id is one that a deal of this chain gives; nothing else may use those.
    pub fn is_deals(&self, lease: LeaseId) -> bool {
        deal_of(&self.chain.genesis(), lease).is_some()
    }

    /// Decides whether a commit may put its group under a deal's lease. What an earlier attempt
    /// left under the reservation makes room for another object of the same writer.
    ///
    /// # Errors
    /// Says which rule of the chain it breaks, or that the chain cannot be asked.
    pub async fn admit(
        &self,
        store: &Store,
        caller: NodeId,
        commit: &Commit,
    ) -> Result<(), WireError> {
        let lease = commit.terms.lease;
        let deal = self.deal(lease)?;
        let refuse = |message: String| Err(told(ErrorCode::Refused, message));
        let ends = match self.state(deal).await? {
            DealState::Reserved(it) => {
                let here = match store.deal(lease).await {
                    // New deals go to the disks that work.
                    Err(StoreError::Offline { .. }) => None,
                    here => here.map_err(told_of)?,
                };
                if let Some(here) = here.filter(|here| here.owner == caller) {
                    if here.object.is_some_and(|object| object != commit.object) {
                        store.end_deal(lease).await.map_err(told_of)?;
                    } else if here.bytes > it.bytes {
                        let bytes = it.bytes;
                        return refuse(format!("reservation {deal} is for {bytes} bytes in all"));
                    }
                }
                it.activates_by
            }
            // Its holders have signed for what they have; nobody would pay for more.
            DealState::Active(_) => {
                return refuse(format!("deal {deal} runs; what it keeps is settled"));
            }
            DealState::Ended(it) => {
                return refuse(format!("deal {deal} ended at block {}; reserve a new one", it.at));
            }
            DealState::Unknown => {
                return refuse(format!("the chain knows no reservation {deal}; reserve first"));
            }
        };
        match commit.terms.expiry {
            Expiry::FinalisedHeight(height) if height <= ends => Ok(()),
            _ => {
                refuse(format!("a lease of reservation {deal} ends at block {ends} at the latest"))
            }
        }
    }

    /// What this node holds of the wanted slots of an object under a deal's lease, signed.
    ///
    /// # Errors
    /// `NotFound` when the lease does not cover the object here, `Refused` for an object whose
    /// audits could not be answered, or what the store says.
    pub async fn receipt(
        &self,
        store: &Store,
        (lease, object): (LeaseId, Cid),
        wanted: &[HeldIndexes],
    ) -> Result<Receipt, WireError> {
        let deal = self.deal(lease)?;
        let groups = store.groups_of(lease, object).await.map_err(told_of)?;
        let mut held = Vec::new();
        let (mut bytes, mut shape) = (0, None);
        for group in groups {
            let read = store.group(object, group).await.map_err(told_of)?;
            let part = GroupSlots::of(group, &read)?;
            shape = Some(part.shape);
            // Without the siblings outside its group no audit of it could be answered.
            let is_provable =
                part.is_only || store.span(object, group).await.map_err(told_of)?.is_some();
            let Some(asked) = wanted.iter().find(|asked| asked.group == group) else { continue };
            if !is_provable {
                tracing::warn!(%object, group, "no receipt: the writer left no span proof");
                continue;
            }
            let slots = store.held(object, group).await.map_err(told_of)?;
            let mut indexes = part.whole_indexes(&slots);
            indexes.retain(|index| asked.indexes.contains(index));
            bytes += indexes.len() as u64 * part.index_bytes;
            if !indexes.is_empty() {
                let GroupSlots { stripe_first, stripe_count, .. } = part;
                held.push(HeldIndexes { group, stripe_first, stripe_count, indexes });
            }
        }
        let absent = || told(ErrorCode::NotFound, "there is no such lease here".to_owned());
        let shape = shape.ok_or_else(absent)?;
        self.sign(deal, object, shape, (bytes, held))
    }

    fn sign(
        &self,
        deal: DealId,
        object: Cid,
        shape: ObjectShape,
        (bytes, held): (u64, Vec<HeldIndexes>),
    ) -> Result<Receipt, WireError> {
        let mut digest = HeldDigest::default();
        for part in &held {
            for index in &part.indexes {
                digest.push(part.group, part.stripe_first, part.stripe_count, *index);
            }
        }
        let ObjectShape { shards_root, width, stripe_count } = shape;
        let claim = ReceiptClaim {
            genesis: self.chain.genesis(),
            deal,
            object,
            shards_root,
            width,
            stripe_count,
            node: self.node,
            bytes,
            held: digest.finish(),
        };
        let signature = self.identity.sign(&claim.message()).map_err(|error| {
            told(ErrorCode::Internal, format!("the node's key cannot sign: {error}"))
        })?;
        Ok(Receipt { shards_root, bytes, held, signature })
    }

    fn deal(&self, lease: LeaseId) -> Result<DealId, WireError> {
        deal_of(&self.chain.genesis(), lease).ok_or_else(|| {
            let message = format!("lease {lease} is no deal of this node's chain");
            told(ErrorCode::Refused, message)
        })
    }

    /// What the best block knows of a deal. A reservation that the client made a moment ago may not
    /// have reached this node's endpoint yet: then the next blocks are waited for.
    async fn state(&self, deal: DealId) -> Result<DealState, WireError> {
        let mut view = self.chain.view();
        let mut seen = None;
        let known = async {
            loop {
                view.borrow_and_update();
                let state = self.chain.at_best().await?.deal(deal).await?;
                if state != DealState::Unknown {
                    return Ok(state);
                }
                seen = Some(state);
                if view.changed().await.is_err() {
                    return Ok(DealState::Unknown);
                }
            }
        };
        let known: Result<DealState, ChainError> = match timeout(NEWS_PATIENCE, known).await {
            Ok(known) => known,
            Err(_) => seen.ok_or_else(|| {
                let reason = "no block could be read in time".to_owned();
                ChainError::Unreachable { endpoint: "the first endpoint".to_owned(), reason }
            }),
        };
        known.map_err(|error| {
            tracing::warn!(%deal, %error, "a deal cannot be looked up");
            let message = "this node cannot ask its chain now; no deal is taken".to_owned();
            told(ErrorCode::Unavailable, message)
        })
    }
}

/// What a receipt says of the whole object: how audits count its slots.
#[derive(Debug, Clone, Copy)]
struct ObjectShape {
    shards_root: [u8; 32],
    width: u16,
    stripe_count: u32,
}

/// One group, from its manifest.
struct GroupSlots {
    shape: ObjectShape,
    /// The object has no other group.
    is_only: bool,
    stripe_first: u32,
    stripe_count: u32,
    /// Bytes of one slot index over all stripes of the group.
    index_bytes: u64,
}

impl GroupSlots {
    fn of(group: u32, read: &GroupRead) -> Result<Self, WireError> {
        let broken = |error: &dyn std::fmt::Display| {
            tracing::error!(group, %error, "a manifest on disk cannot be read");
            told(ErrorCode::Internal, "the node's manifest cannot be read".to_owned())
        };
        let root = Root::decode(&read.root).map_err(|error| broken(&error))?;
        let span = root.groups().find(|span| span.group == group);
        let span = span.ok_or_else(|| broken(&"the root has no such group"))?;
        let page = match &read.page {
            Some(block) => root.open_page(group, block).map_err(|error| broken(&error))?,
            None => root.page_0.clone(),
        };
        let shape = shape_of(&root, &page).ok_or_else(|| {
            let message = "a deal's object has stripes of one width; this one has not";
            told(ErrorCode::Refused, message.to_owned())
        })?;
        let is_only = root.pages.is_empty();
        if is_only {
            let entries: Vec<_> = page.entries().collect();
            let whole = SpanProof::default();
            verify_span(&root.shards_root, root.slot_count(), 0, &entries, &whole).map_err(
                |_| {
                    let message = "the manifest's shards_root is not that of its shards";
                    told(ErrorCode::Refused, message.to_owned())
                },
            )?;
        }
        let index_bytes = page.stripes().map(|stripe| stripe.shard_len).sum();
        let (stripe_first, stripe_count) = (span.stripe_first, span.stripe_count);
        Ok(Self { shape, is_only, stripe_first, stripe_count, index_bytes })
    }

    /// Indexes of which every stripe's slot is here, in ascending order.
    fn whole_indexes(&self, slots: &[(Slot, ShardId)]) -> Vec<u16> {
        let mut counts = BTreeMap::<u16, u32>::new();
        for (slot, _) in slots {
            *counts.entry(slot.index).or_default() += 1;
        }
        let whole = counts.into_iter().filter(|(_, count)| *count == self.stripe_count);
        whole.map(|(index, _)| index).collect()
    }
}

/// The shape of an object whose stripes all have one width, as far as the root and one of its
/// pages show; a page that is elsewhere is judged by the sums the root states of it.
fn shape_of(root: &Root, page: &Page) -> Option<ObjectShape> {
    let width = page.stripes().next()?.width();
    let stripes = |count: u32| u64::from(count) * width as u64;
    let is_uniform = page.stripes().all(|stripe| stripe.width() == width)
        && u64::from(root.page_0.slot_count()) == stripes(root.page_0.stripe_count())
        && root.pages.iter().all(|it| u64::from(it.slot_count) == stripes(it.stripe_count));
    let rest: u32 = root.pages.iter().map(|page| page.stripe_count).sum();
    let stripe_count = root.page_0.stripe_count() + rest;
    let width = u16::try_from(width).ok()?;
    is_uniform.then_some(ObjectShape { shards_root: root.shards_root, width, stripe_count })
}

fn told(code: ErrorCode, message: String) -> WireError {
    WireError { code, message, retry_after_ms: None }
}

#[cfg(test)]
mod tests;
