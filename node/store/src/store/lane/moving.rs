// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a lane tells of its groups and leases to whoever moves them to other lanes.

use std::sync::atomic::Ordering;

use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind, LeaseTerms};

use super::Lane;
use crate::catalog::LeaseState;
use crate::error::StoreError;

/// A group as another lane is to have it.
#[derive(Debug, Clone)]
pub(crate) struct MovingGroup {
    /// Says all of it again, under an upload of the move's own.
    pub(crate) commit: Commit,
    /// What is here of it.
    pub(crate) slots: Vec<(Slot, ShardId)>,
}

/// The terms of a lease, its end counted from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TermsLeft {
    /// Who may renew and release it.
    pub(crate) owner: NodeId,
    /// Why it keeps what it keeps.
    pub(crate) kind: LeaseKind,
    /// When it ends.
    pub(crate) expiry: Expiry,
    /// Whether that is the chain's word.
    pub(crate) is_settled: bool,
}

impl Lane {
    /// Kept groups in order after a cursor, each with the leases that cover it.
    pub(crate) async fn covered_groups(
        &self,
        after: Option<(Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<(Cid, u32, Vec<LeaseId>)>, StoreError> {
        self.blocking(move |reader| {
            let catalog = reader.catalog();
            let groups = catalog.held_groups(after, limit)?.into_iter();
            let covered = groups.map(|(held, _)| {
                let leases = catalog.leases_of_group(held.object, held.group)?;
                Ok((held.object, held.group, leases))
            });
            covered.collect()
        })
        .await
    }

    /// Groups in the trash, the oldest first.
    pub(crate) async fn trashed_groups(&self, limit: usize) -> Result<Vec<(Cid, u32)>, StoreError> {
        self.blocking(move |reader| Ok(reader.catalog().trash_due(u64::MAX, limit)?)).await
    }

    /// What a lease covers: object, group, and how many slots of it are here. `None` if the lease
    /// is not here.
    pub(crate) async fn groups_under(
        &self,
        lease: LeaseId,
    ) -> Result<Option<Vec<(Cid, u32, u32)>>, StoreError> {
        self.blocking(move |reader| {
            let catalog = reader.catalog();
            if catalog.lease(lease)?.is_none() {
                return Ok(None);
            }
            let mut groups = Vec::new();
            for (object, group) in catalog.lease_groups(lease, None, usize::MAX)? {
                let entry = catalog.group(object, group)?;
                groups.push((object, group, entry.map_or(0, |entry| entry.slot_count)));
            }
            Ok(Some(groups))
        })
        .await
    }

    /// What is left of a lease's time; `None` if it is not here.
    pub(crate) async fn terms_left(&self, lease: LeaseId) -> Result<Option<TermsLeft>, StoreError> {
        let now = self.counters.running_secs.load(Ordering::Relaxed);
        self.blocking(move |reader| {
            let state = reader.catalog().lease(lease)?;
            Ok(state.map(|state| terms_left(&state, now)))
        })
        .await
    }

    /// Leases that end by running time, and what is left of each.
    pub(crate) async fn running_leases(&self) -> Result<Vec<(LeaseId, NodeId, u64)>, StoreError> {
        let now = self.counters.running_secs.load(Ordering::Relaxed);
        self.blocking(move |reader| {
            let catalog = reader.catalog();
            let mut running = Vec::new();
            for lease in catalog.leases_due(u64::MAX, usize::MAX)? {
                let Some(state) = catalog.lease(lease)? else { continue };
                if let Expiry::RunningSeconds(left) = terms_left(&state, now).expiry {
                    running.push((lease, state.owner, left));
                }
            }
            Ok(running)
        })
        .await
    }

    /// A group as a lease covers it here, to be committed elsewhere from an upload; `None` if the
    /// lease does not cover it any more.
    pub(crate) async fn moving_group(
        &self,
        object: Cid,
        group: u32,
        lease: LeaseId,
        upload: UploadId,
    ) -> Result<Option<MovingGroup>, StoreError> {
        let now = self.counters.running_secs.load(Ordering::Relaxed);
        self.blocking(move |reader| {
            let catalog = reader.catalog();
            let Some(state) = catalog.lease(lease)? else { return Ok(None) };
            if !catalog.covers(object, group, lease)? {
                return Ok(None);
            }
            let (entry, placement) = reader.placement(object, group)?;
            let TermsLeft { owner, kind, expiry, .. } = terms_left(&state, now);
            let commit = Commit {
                upload,
                object,
                group,
                page: entry.page,
                stripe_first: entry.stripe_first,
                stripe_count: entry.stripe_count,
                terms: LeaseTerms { lease, owner, kind, expiry },
                placement,
                missing: reader.missing(object, group)?,
            };
            Ok(Some(MovingGroup { commit, slots: catalog.slots(object, group)? }))
        })
        .await
    }

    /// The slots of a group in the trash; `None` if it is not there.
    pub(crate) async fn trashed_slots(
        &self,
        object: Cid,
        group: u32,
    ) -> Result<Option<Vec<(Slot, ShardId)>>, StoreError> {
        self.blocking(move |reader| {
            let entry = reader.catalog().group(object, group)?;
            let trashed = entry.filter(|entry| entry.trashed_secs.is_some());
            let slots = trashed.map(|_| reader.catalog().slots(object, group));
            Ok(slots.transpose()?)
        })
        .await
    }
}

fn terms_left(state: &LeaseState, now: u64) -> TermsLeft {
    let expiry = match state.expiry {
        Expiry::RunningSeconds(end) => Expiry::RunningSeconds(end.saturating_sub(now)),
        other => other,
    };
    TermsLeft { owner: state.owner, kind: state.kind, expiry, is_settled: state.is_settled() }
}
