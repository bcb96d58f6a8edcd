// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading: shards, manifests and listings, from whichever disk has them.

use std::collections::BTreeMap;

use bytes::Bytes;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot};
use supernode_protocol::wire::LeaseEntry;

use super::{Announcement, GroupRead, Shared, Store, merge};
use crate::error::StoreError;
use crate::reader::Shard;

impl Store {
    /// A whole shard, verified.
    ///
    /// # Errors
    /// [`StoreError::ShardNotFound`], [`StoreError::Damaged`], [`StoreError::Offline`].
    pub async fn shard(&self, shard: ShardId) -> Result<Shard, StoreError> {
        let shared = &self.shared;
        let cache = &shared.company.cache;
        let load = async || {
            let way = cache.way(shard).await;
            let found = shared.first(|lane| async move { lane.shard(shard, way).await.map(Some) });
            found.await?.ok_or(StoreError::ShardNotFound { shard })
        };
        cache.shard(shard, load).await
    }

    /// Whether a shard is here and kept.
    ///
    /// # Errors
    /// When an index cannot be read, or a disk is offline that may have it.
    pub async fn has_shard(&self, shard: ShardId) -> Result<bool, StoreError> {
        let found = self.shared.first(|lane| async move {
            let is_here = lane.has_shard(shard).await?;
            Ok(is_here.then_some(()))
        });
        Ok(found.await?.is_some())
    }

    /// Whether a group is kept here.
    pub(super) async fn has_group(&self, object: Cid, group: u32) -> Result<bool, StoreError> {
        let found = self.shared.first(|lane| async move {
            let is_here = lane.has_group(object, group).await?;
            Ok(is_here.then_some(()))
        });
        Ok(found.await?.is_some())
    }

    /// Manifest and placement of a group.
    ///
    /// # Errors
    /// [`StoreError::GroupNotFound`], [`StoreError::Damaged`], [`StoreError::Offline`].
    pub async fn group(&self, object: Cid, group: u32) -> Result<GroupRead, StoreError> {
        let found =
            self.shared.first(|lane| async move { lane.group(object, group).await.map(Some) });
        let absent = StoreError::GroupNotFound { object, group };
        let (page, placement) = found.await?.ok_or(absent.clone())?;
        let root = self.shared.block(object).await?.ok_or(absent.clone())?;
        let page = match page {
            Some(page) => Some(self.shared.block(page).await?.ok_or(absent)?),
            None => None,
        };
        Ok(GroupRead { root, page, placement })
    }

    /// Slots of a group that are here.
    ///
    /// # Errors
    /// [`StoreError::GroupNotFound`], [`StoreError::Offline`]. A group may have no slot.
    pub async fn held(&self, object: Cid, group: u32) -> Result<Vec<(Slot, ShardId)>, StoreError> {
        let parts = self.shared.all(|lane| async move { lane.held(object, group).await }).await?;
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            self.unless_offline(true)?;
            return Err(StoreError::GroupNotFound { object, group });
        }
        let held: BTreeMap<Slot, ShardId> = parts.into_iter().flatten().collect();
        Ok(held.into_iter().collect())
    }

    /// Slots that no holder had when the group was committed, as its writer reported.
    ///
    /// # Errors
    /// [`StoreError::GroupNotFound`], [`StoreError::Offline`].
    pub async fn missing(&self, object: Cid, group: u32) -> Result<Vec<Slot>, StoreError> {
        let found =
            self.shared.first(|lane| async move { lane.missing(object, group).await.map(Some) });
        found.await?.ok_or(StoreError::GroupNotFound { object, group })
    }

    /// Groups that leases of an owner cover, in `(lease, object, group)` order; of disks that are
    /// online.
    ///
    /// # Errors
    /// When an index cannot be read.
    pub async fn leases_of(
        &self,
        owner: NodeId,
        after: Option<(LeaseId, Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<LeaseEntry>, StoreError> {
        let parts =
            self.shared.all(|lane| async move { lane.leases_of(owner, after, limit).await });
        Ok(merge::leases(parts.await?, limit))
    }

    /// Groups that are held here, in order, after a cursor; on disks that are online.
    ///
    /// # Errors
    /// When an index cannot be read. A group whose placement is damaged is left out and logged.
    pub async fn announcements(
        &self,
        after: Option<(Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<Announcement>, StoreError> {
        let parts = self.shared.all(|lane| async move { lane.announcements(after, limit).await });
        Ok(merge::announcements(parts.await?, limit))
    }

    /// What is found nowhere may be on a disk that is offline.
    pub(super) fn unless_offline(&self, is_nothing: bool) -> Result<(), StoreError> {
        match self.shared.offline().filter(|_| is_nothing) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl Shared {
    /// A manifest root or page.
    pub(super) async fn block(&self, cid: Cid) -> Result<Option<Bytes>, StoreError> {
        let load = || self.first(|lane| async move { lane.block(cid).await });
        self.company.cache.block(cid, load).await
    }
}
