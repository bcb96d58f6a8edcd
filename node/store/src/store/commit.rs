// SPDX-License-Identifier: MIT OR Apache-2.0
//! Commits and leases: one word to every disk that has a part in it.
//!
//! A group may lie on several disks. Each of them gets the root, the page and the commit, because
//! each is to be complete in itself; the answer waits for all of them. When one fails, the caller
//! repeats the commit: a disk that has it already says so again.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use supernode_protocol::ids::{Cid, LeaseId, NodeId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::Ack;

use super::lane::{Lane, Part, check_placement, in_use};
use super::{Shared, Store};
use crate::error::StoreError;
use crate::writer::{Done, Op};

/// Objects that deals are being committed for, and by how many commits: no two disks may bind one
/// deal to two objects at the same time.
pub(super) type DealsUnderWay = HashMap<LeaseId, (Cid, usize)>;

/// One commit among [`DealsUnderWay`], for as long as it takes.
struct UnderWay<'a> {
    shared: &'a Shared,
    lease: LeaseId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut deals = self.shared.deals.lock();
        if let Some((_, count)) = deals.get_mut(&self.lease) {
            *count -= 1;
            if *count == 0 {
                deals.remove(&self.lease);
            }
        }
    }
}

impl Store {
    /// Binds an upload to an object and covers it with a lease. Returns the acknowledgement and
    /// how many slots of the group are held here now.
    ///
    /// # Errors
    /// [`StoreError::BadCommit`], [`StoreError::UnknownUpload`], [`StoreError::NotOwner`],
    /// [`StoreError::BadExpiry`].
    pub async fn commit(&self, caller: NodeId, commit: Commit) -> Result<(Ack, u32), StoreError> {
        if let Some(lane) = self.shared.only() {
            let done = lane.commit(caller, commit).await?;
            return Ok((done.ack, done.slot_count));
        }
        let _deal = self.shared.begin_commit(&commit)?;
        let _change = self.shared.grace.begin().await;
        let parts = self.shared.each(|lane| lane.part(caller, commit.clone())).await?;
        let targets = targets(&parts);
        if targets.is_empty() {
            return Err(match self.shared.offline() {
                Some(error) => error,
                None => StoreError::UnknownUpload { upload: commit.upload },
            });
        }
        if are_blocks_here(&parts) {
            let completed =
                targets.iter().map(|(lane, part)| self.shared.complete(lane, part, &commit));
            try_join_all(completed).await?;
        }
        let done = targets.iter().map(|(lane, _)| async {
            self.shared.judge(lane, lane.commit(caller, commit.clone()).await)
        });
        let done = join_all(done).await;
        let done: Vec<Done> = done.into_iter().collect::<Result<_, _>>()?;
        let (object, group) = (commit.object, commit.group);
        let slot_count = match done[..] {
            [Done { slot_count, .. }] => slot_count,
            _ => u32::try_from(self.held(object, group).await?.len()).unwrap_or(u32::MAX),
        };
        let sequence = done.iter().map(|done| done.ack.sequence).max().unwrap_or(0);
        Ok((Ack { sequence }, slot_count))
    }

    /// Keeps a placement record if it has precedence over the one here.
    ///
    /// # Errors
    /// [`StoreError::GroupNotFound`], or [`StoreError::BadCommit`] for a bad signature.
    pub async fn place(&self, record: Signed<PlacementRecord>) -> Result<Ack, StoreError> {
        check_placement(&record)?;
        self.perform(|| Op::Place { record: Box::new(record.clone()) }).await
    }

    /// Ends a lease (or an upload, by its id).
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`], [`StoreError::NotOwner`].
    pub async fn release(&self, caller: NodeId, lease: LeaseId) -> Result<Ack, StoreError> {
        self.perform(|| Op::Release { caller, lease }).await
    }

    /// Moves the end of a lease.
    ///
    /// # Errors
    /// As [`Self::release`], and [`StoreError::BadExpiry`].
    pub async fn renew(
        &self,
        caller: NodeId,
        lease: LeaseId,
        expiry: Expiry,
    ) -> Result<Ack, StoreError> {
        self.perform(|| Op::Renew { caller, lease, expiry }).await
    }

    /// Does the same on every lane that knows what it is about.
    pub(super) async fn perform(&self, op: impl Fn() -> Op) -> Result<Ack, StoreError> {
        let done = self.shared.change(|lane| lane.perform(op())).await?;
        Ok(done.ack)
    }
}

impl Shared {
    /// Puts under the upload on a lane what the lane needs of root and page to be complete.
    pub(super) async fn complete(
        &self,
        lane: &Lane,
        part: &Part,
        commit: &Commit,
    ) -> Result<(), StoreError> {
        let root = part.lacks_root().then_some(commit.object);
        let page = commit.page.filter(|_| part.lacks_page());
        for cid in root.into_iter().chain(page) {
            // What another lane says it has and cannot read, the commit itself will miss.
            let Some(bytes) = self.block(cid).await? else { continue };
            let (caller, upload) = (commit.terms.owner, commit.upload);
            let op = Op::CopyBlock { caller, upload, cid, bytes };
            self.judge(lane, lane.perform(op).await)?;
        }
        Ok(())
    }

    /// Refuses a deal's commit while the same deal is being committed for another object.
    fn begin_commit(&self, commit: &Commit) -> Result<Option<UnderWay<'_>>, StoreError> {
        if commit.terms.kind != LeaseKind::Deal {
            return Ok(None);
        }
        let lease = commit.terms.lease;
        let mut deals = self.deals.lock();
        let (object, count) = deals.entry(lease).or_insert((commit.object, 0));
        if *object != commit.object {
            return Err(in_use(commit));
        }
        *count += 1;
        Ok(Some(UnderWay { shared: self, lease }))
    }
}

/// Where the commit goes: wherever something of its group is.
fn targets<'a>(parts: &[(&'a Arc<Lane>, Part)]) -> Vec<(&'a Arc<Lane>, Part)> {
    let of = |wanted: fn(&Part) -> bool| -> Vec<_> {
        parts.iter().filter(|(_, part)| wanted(part)).copied().collect()
    };
    if !parts.iter().any(|(_, part)| part.is_open) {
        // Its upload is used up: a commit whose answer was lost, on the disks that had it.
        return of(|part| part.is_here && part.is_covered);
    }
    let holders = of(|part| part.has_slots || part.is_known);
    if !holders.is_empty() {
        return holders;
    }
    let rooted = of(|part| part.has_root);
    let open = of(|part| part.is_open);
    // A group without slots here is kept once.
    let first = rooted.first().or(open.first()).copied();
    first.into_iter().collect()
}

/// Whether root and page were uploaded, to any disk; if not, the commit is refused by the first.
fn are_blocks_here(parts: &[(&Arc<Lane>, Part)]) -> bool {
    let any = |has: fn(&Part) -> bool| parts.iter().any(|(_, part)| has(part));
    any(|part| part.has_root || part.is_here || part.holds_object)
        && any(|part| part.has_page || part.is_here)
}
