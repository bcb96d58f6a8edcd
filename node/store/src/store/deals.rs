// SPDX-License-Identifier: MIT OR Apache-2.0
//! What follows the chain: deal leases, and proofs of what they cover.
//!
//! Whoever calls these has read finalised blocks and keeps the rules for it (the buffer against
//! reorganisations, the word of other endpoints). The store does what it is told, at once, and says
//! so when it is on disk, whatever the durability setting: nobody will tell it again. What a deal
//! covers may lie on several disks; it is one deal to whoever asks.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use supernode_protocol::ids::{Cid, LeaseId, ShardId, Slot};
use supernode_protocol::tree::ChunkProof;
use supernode_protocol::wire::Ack;

use super::{Store, merge};
use crate::catalog::{DealLease, DealSlot};
use crate::error::StoreError;
use crate::record::Span;
use crate::writer::Op;

/// Bytes kept with a group at most.
const SPAN_BYTES_MAX: usize = 16 << 10;

impl Store {
    /// Deal leases in order, after a cursor; of disks that are online, here and below.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub async fn deals(
        &self,
        after: Option<LeaseId>,
        limit: usize,
    ) -> Result<Vec<DealLease>, StoreError> {
        let parts = self.shared.all(|lane| lane.deals(after, limit)).await?;
        Ok(merge::deals(parts, limit))
    }

    /// One deal lease; `None` also for leases of other kinds.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub async fn deal(&self, lease: LeaseId) -> Result<Option<DealLease>, StoreError> {
        let deal = merge::deal(self.shared.all(|lane| lane.deal(lease)).await?);
        self.unless_offline(deal.is_none())?;
        Ok(deal)
    }

    /// The stored end of a deal lease, by one lookup; `None` if there is no such lease on a disk
    /// that is online.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub async fn deal_end(&self, lease: LeaseId) -> Result<Option<u64>, StoreError> {
        // No error because a disk is offline: most news of the chain is of other nodes' deals, and
        // whoever follows it would get stuck at the first. What this says of a deal on a disk
        // that is offline is made good later: the chain is asked again before any deal ends.
        let ends = self.shared.all(|lane| lane.deal_end(lease)).await?;
        Ok(ends.into_iter().flatten().max())
    }

    /// Groups of an object that a lease covers here, in order.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub async fn groups_of(&self, lease: LeaseId, object: Cid) -> Result<Vec<u32>, StoreError> {
        let parts = self.shared.all(|lane| lane.groups_of(lease, object)).await?;
        let groups: BTreeSet<u32> = parts.into_iter().flatten().collect();
        self.unless_offline(groups.is_empty())?;
        Ok(groups.into_iter().collect())
    }

    /// Deal leases whose end is at a finalised height or before it, in the order of `(end, lease)`,
    /// after one such pair. Costs what is returned, however much is kept.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub async fn deals_due(
        &self,
        height: u64,
        after: Option<(u64, LeaseId)>,
        limit: usize,
    ) -> Result<Vec<DealLease>, StoreError> {
        let parts = self.shared.all(|lane| lane.deals_due(height, after, limit)).await?;
        Ok(merge::deals_due(parts, limit))
    }

    /// Moves the end of a deal lease, earlier or later, as the chain says; from then on no commit
    /// moves it. Says whether anything changed: the same word twice is one record.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`], also for a lease that is no deal's.
    pub async fn move_deal(&self, lease: LeaseId, height: u64) -> Result<bool, StoreError> {
        let is_news = AtomicBool::new(false);
        let moved = self.shared.change(|lane| async {
            if lane.move_deal(lease, height).await? {
                is_news.store(true, Ordering::Relaxed);
            }
            Ok(())
        });
        moved.await?;
        Ok(is_news.into_inner())
    }

    /// Ends a deal lease now; groups that nothing else covers go to the trash.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`], also for a lease that is no deal's.
    pub async fn end_deal(&self, lease: LeaseId) -> Result<Ack, StoreError> {
        self.perform(|| Op::EndDeal { lease }).await
    }

    /// What is here of a slot of an object that a lease covers; `None` if nothing is.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub async fn slot(
        &self,
        lease: LeaseId,
        object: Cid,
        slot: Slot,
    ) -> Result<Option<DealSlot>, StoreError> {
        self.shared.first(|lane| lane.slot(lease, object, slot)).await
    }

    /// Keeps bytes with a group that is held here: what a holder needs of the object's list of
    /// shards to prove its own place in it. A later call replaces them; they go with the group.
    ///
    /// # Errors
    /// [`StoreError::GroupNotFound`], [`StoreError::TooMany`] beyond 16 KiB.
    pub async fn keep_span(
        &self,
        object: Cid,
        group: u32,
        bytes: Bytes,
    ) -> Result<Ack, StoreError> {
        if bytes.len() > SPAN_BYTES_MAX {
            let (count, max) = (bytes.len(), SPAN_BYTES_MAX);
            return Err(StoreError::TooMany { what: "bytes of a span", count, max });
        }
        let span = Span { group, bytes: bytes.into() };
        self.perform(|| Op::KeepSpan { object, span: span.clone() }).await
    }

    /// What [`Self::keep_span`] kept with a group, if the group is held here.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], or what the disk says.
    pub async fn span(&self, object: Cid, group: u32) -> Result<Option<Bytes>, StoreError> {
        self.shared.first(|lane| lane.span(object, group)).await
    }

    /// Proves chunks of a shard, in the order asked for, from the disk and never from memory.
    ///
    /// # Errors
    /// [`StoreError::ShardNotFound`], [`StoreError::Damaged`], [`StoreError::BadRange`] for a chunk
    /// that does not exist, [`StoreError::TooMany`].
    pub async fn prove(
        &self,
        shard: ShardId,
        chunks: Vec<u64>,
    ) -> Result<Vec<ChunkProof>, StoreError> {
        let proven = self.shared.first(|lane| {
            let chunks = chunks.clone();
            async move { lane.prove(shard, chunks).await.map(Some) }
        });
        proven.await?.ok_or(StoreError::ShardNotFound { shard })
    }
}
