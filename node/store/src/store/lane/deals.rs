// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deal leases of one lane, and proofs of what they cover.

use bytes::Bytes;
use supernode_protocol::ids::{Cid, LeaseId, ShardId, Slot};
use supernode_protocol::lease::{Expiry, LeaseKind};
use supernode_protocol::tree::ChunkProof;

use super::Lane;
use crate::catalog::{DealLease, DealSlot};
use crate::error::StoreError;
use crate::writer::Op;

impl Lane {
    pub(crate) async fn deals(
        &self,
        after: Option<LeaseId>,
        limit: usize,
    ) -> Result<Vec<DealLease>, StoreError> {
        self.blocking(move |reader| Ok(reader.catalog().deals(after, limit)?)).await
    }

    pub(crate) async fn deal(&self, lease: LeaseId) -> Result<Option<DealLease>, StoreError> {
        self.blocking(move |reader| Ok(reader.catalog().deal(lease)?)).await
    }

    /// By one lookup.
    pub(crate) async fn deal_end(&self, lease: LeaseId) -> Result<Option<u64>, StoreError> {
        self.blocking(move |reader| {
            let state = reader.catalog().lease(lease)?;
            Ok(state.and_then(|state| match (state.kind, state.expiry) {
                (LeaseKind::Deal, Expiry::FinalisedHeight(height)) => Some(height),
                _ => None,
            }))
        })
        .await
    }

    pub(crate) async fn groups_of(
        &self,
        lease: LeaseId,
        object: Cid,
    ) -> Result<Vec<u32>, StoreError> {
        self.blocking(move |reader| Ok(reader.catalog().leased_groups(lease, object)?)).await
    }

    /// Costs what is returned, however much is kept.
    pub(crate) async fn deals_due(
        &self,
        height: u64,
        after: Option<(u64, LeaseId)>,
        limit: usize,
    ) -> Result<Vec<DealLease>, StoreError> {
        self.blocking(move |reader| Ok(reader.catalog().deals_due(height, after, limit)?)).await
    }

    /// The same word twice is one record; says whether it was the first time.
    pub(crate) async fn move_deal(&self, lease: LeaseId, height: u64) -> Result<bool, StoreError> {
        let said = self.blocking(move |reader| Ok(reader.is_settled_at(lease, height)?)).await?;
        if !said {
            self.perform(Op::MoveDeal { lease, height }).await?;
        }
        Ok(!said)
    }

    pub(crate) async fn slot(
        &self,
        lease: LeaseId,
        object: Cid,
        slot: Slot,
    ) -> Result<Option<DealSlot>, StoreError> {
        self.blocking(move |reader| Ok(reader.catalog().leased_slot(lease, object, slot)?)).await
    }

    pub(crate) async fn span(&self, object: Cid, group: u32) -> Result<Option<Bytes>, StoreError> {
        self.blocking(move |reader| {
            let entry = reader.catalog().group(object, group)?;
            match entry.filter(|entry| entry.trashed_secs.is_none()) {
                Some(_) => reader.span(object, group),
                None => Ok(None),
            }
        })
        .await
    }

    pub(crate) async fn prove(
        &self,
        shard: ShardId,
        chunks: Vec<u64>,
    ) -> Result<Vec<ChunkProof>, StoreError> {
        self.blocking(move |reader| reader.prove(shard, &chunks)).await
    }
}
