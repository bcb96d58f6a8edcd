// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps of a move, each of which can be done again: what is on other disks already is left
//! there, and what is equal there is not said again.

use std::collections::BTreeSet;
use std::sync::Arc;

use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry, LeaseKind};
use supernode_protocol::placement::precedence;

use super::super::Shared;
use super::super::choice::{Candidate, key, order};
use super::super::lane::{Lane, Part, TermsLeft};
use super::super::put::Item;
use crate::catalog::{CACHED_SLOT, Thing, cached_upload};
use crate::error::StoreError;
use crate::reader::Way;
use crate::record::Span;
use crate::writer::Op;

/// How often a lease that keeps changing is followed before it is left for the next round.
const FOLLOW_MAX: usize = 16;
/// Clocks of two disks may differ by so much: an end this close is the same.
const CLOCK_SECS: u64 = 5;

/// A group that a lease covers: its object, its number, and how many slots of it are there.
pub(super) type CoveredGroup = (Cid, u32, u32);

/// The store and the disk, held for as long as a step takes.
pub(super) struct Step {
    pub(super) shared: Arc<Shared>,
    pub(super) source: Arc<Lane>,
}

impl Step {
    /// Disks that things are moved to: none that is itself drained, or two could each rely on what
    /// the other is about to let go.
    fn others(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.peers().filter(|lane| !lane.is_draining())
    }

    /// All other disks.
    fn peers(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.shared.online().filter(|lane| lane.id() != self.source.id())
    }

    /// Slots of a group that other disks keep; `None` if none of them keeps the group.
    pub(super) async fn held_elsewhere(
        &self,
        object: Cid,
        group: u32,
    ) -> Result<Option<BTreeSet<Slot>>, StoreError> {
        let mut held = None;
        for lane in self.others() {
            if let Some(slots) = lane.held(object, group).await? {
                held.get_or_insert_with(BTreeSet::new).extend(slots.iter().map(|(slot, _)| *slot));
            }
        }
        Ok(held)
    }

    /// Slots of a group whose shards another disk keeps and can read. The word of its index is not
    /// enough: what is let go here may be the only whole one.
    pub(super) async fn whole_elsewhere(
        &self,
        object: Cid,
        group: u32,
    ) -> Result<BTreeSet<Slot>, StoreError> {
        let mut whole = BTreeSet::new();
        for lane in self.others() {
            for (slot, shard) in lane.held(object, group).await?.into_iter().flatten() {
                if !whole.contains(&slot) && lane.seen(Thing::Shard(shard)).await?.is_some() {
                    whole.insert(slot);
                }
            }
        }
        Ok(whole)
    }

    /// Fails unless all that can be read of a group here is whole and durable elsewhere.
    pub(super) async fn demand_elsewhere(&self, object: Cid, group: u32) -> Result<(), StoreError> {
        let whole = self.whole_elsewhere(object, group).await?;
        for (slot, shard) in self.source.held(object, group).await?.into_iter().flatten() {
            if !whole.contains(&slot) && self.source.seen(Thing::Shard(shard)).await?.is_some() {
                let disk = self.source.path().display().to_string();
                let reason = format!("group {group} of {object} is not whole elsewhere yet");
                return Err(StoreError::Drain { disk, reason });
            }
        }
        if !self.shared.config.acknowledges_early() {
            return Ok(());
        }
        // What was there already may have been acknowledged early; what is written after it and
        // durable makes it so.
        for lane in self.others() {
            match lane.group(object, group).await {
                Err(StoreError::GroupNotFound { .. }) => {}
                there => {
                    let op = Op::Place { record: Box::new(there?.1) };
                    lane.perform(Op::Durably(Box::new(op))).await?;
                }
            }
        }
        Ok(())
    }

    /// Puts a cached shard on another disk; the bytes that went there. One that is lost here, or
    /// has no room there, is let go.
    pub(super) async fn cached(&self, shard: ShardId) -> Result<u64, StoreError> {
        let (owner, upload) = (self.shared.config.node, cached_upload(shard));
        match self.shard(owner, upload, CACHED_SLOT, shard).await {
            Err(StoreError::Full { .. } | StoreError::Io { .. }) => Ok(0),
            moved => Ok(moved?.unwrap_or(0)),
        }
    }

    /// Ends a cached shard here; also there, if it was evicted while it was moved.
    pub(super) async fn let_go(&self, shard: ShardId) -> Result<(), StoreError> {
        let caller = self.shared.config.node;
        let release = || {
            let lease = LeaseId::from_bytes(*cached_upload(shard).as_bytes());
            Op::Durably(Box::new(Op::Release { caller, lease }))
        };
        match self.source.perform(release()).await {
            Err(StoreError::LeaseNotFound { .. }) => {}
            ended => return ended.map(drop),
        }
        for lane in self.others() {
            match lane.perform(release()).await {
                Ok(_) | Err(StoreError::LeaseNotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts a shard on another disk; its length, or `None` if it is lost here.
    pub(super) async fn shard(
        &self,
        caller: NodeId,
        upload: UploadId,
        slot: Slot,
        shard: ShardId,
    ) -> Result<Option<u64>, StoreError> {
        let read = match self.source.shard(shard, Way::Once).await {
            // What is lost here is lost wherever the group is; repair brings it from elsewhere.
            Err(StoreError::Damaged { .. } | StoreError::ShardNotFound { .. }) => return Ok(None),
            read => read?,
        };
        let len = read.bytes.len() as u64;
        let mut buffer = self.shared.buffers.take(len).await?;
        buffer.extend(&read.bytes)?;
        let filled = buffer.finish(shard)?;
        let item = Item { caller, upload, slot: Some(slot), thing: Thing::Shard(shard), len };
        let op = |seen_at| {
            let filled = filled.clone();
            Op::PutShard { caller, upload, slot, shard, filled, seen_at }
        };
        self.shared.put_elsewhere(item, op).await?;
        Ok(Some(len))
    }

    /// Commits a group wherever something of it is but here; durable when it returns.
    pub(super) async fn commit(&self, commit: Commit, bytes: u64) -> Result<(), StoreError> {
        let mut parts = Vec::new();
        for lane in self.others() {
            parts.push((lane, lane.part(commit.terms.owner, commit.clone()).await?));
        }
        let mut targets: Vec<_> =
            parts.iter().filter(|(_, part)| part.has_slots || part.is_known).copied().collect();
        if targets.is_empty() {
            targets.extend(roomiest(&parts, &commit, bytes));
        }
        if targets.is_empty() {
            let (wanted_bytes, reason) = (bytes, "no disk takes new records");
            return Err(StoreError::Full { wanted_bytes, reason });
        }
        for (lane, part) in targets {
            let is_done = part.is_here && part.is_covered && !part.has_slots;
            if !is_done {
                self.shared.complete(lane, &part, &commit).await?;
                lane.import(commit.clone()).await?;
            }
        }
        Ok(())
    }

    /// Makes placement and span of a group on the other disks those that are here.
    pub(super) async fn follow_group(&self, object: Cid, group: u32) -> Result<(), StoreError> {
        let here = match self.source.group(object, group).await {
            // It ended meanwhile.
            Err(StoreError::GroupNotFound { .. }) => return Ok(()),
            here => here?.1,
        };
        let span = self.source.span(object, group).await?;
        for lane in self.peers() {
            let there = match lane.group(object, group).await {
                Err(StoreError::GroupNotFound { .. }) => continue,
                there => there?.1,
            };
            if precedence(&here, &there).is_gt() {
                let op = Op::Place { record: Box::new(here.clone()) };
                lane.perform(Op::Durably(Box::new(op))).await?;
            }
            let Some(bytes) = &span else { continue };
            if lane.span(object, group).await?.as_ref() != Some(bytes) {
                let span = Span { group, bytes: bytes.clone().into() };
                lane.perform(Op::Durably(Box::new(Op::KeepSpan { object, span }))).await?;
            }
        }
        Ok(())
    }

    /// Makes the end of a lease on the other disks the one that it has here, until it has stayed
    /// the same for long enough that no change under way has met one of them only.
    pub(super) async fn follow_lease(
        &self,
        lease: LeaseId,
        moved: &[CoveredGroup],
    ) -> Result<(), StoreError> {
        for _ in 0..FOLLOW_MAX {
            let here = self.source.terms_left(lease).await?;
            let mut has_changed = false;
            for lane in self.peers() {
                let Some(there) = lane.terms_left(lease).await? else { continue };
                let change = match &here {
                    Some(here) => following(lease, here, &there),
                    None => ending(lane, lease, &there, moved).await?,
                };
                if let Some(op) = change {
                    lane.perform(Op::Durably(Box::new(op))).await?;
                    has_changed = true;
                }
            }
            self.shared.grace.wait().await;
            let again = self.source.terms_left(lease).await?;
            if !has_changed && is_same(here.as_ref(), again.as_ref()) {
                return Ok(());
            }
        }
        let reason = format!("lease {lease} changes all the time");
        Err(StoreError::Drain { disk: self.source.path().display().to_string(), reason })
    }

    /// Frees a group in the trash here that other disks keep whole.
    pub(super) async fn bury(&self, object: Cid, group: u32) -> Result<(), StoreError> {
        let Some(here) = self.source.trashed_slots(object, group).await? else { return Ok(()) };
        let there = self.held_elsewhere(object, group).await?;
        if !there.is_some_and(|there| here.iter().all(|(slot, _)| there.contains(slot))) {
            return Ok(());
        }
        let whole = self.whole_elsewhere(object, group).await?;
        if !here.iter().all(|(slot, _)| whole.contains(slot)) {
            return Ok(());
        }
        match self.source.perform(Op::Bury { object, group }).await {
            // It was revived, or nothing may be freed on this disk.
            Ok(_) | Err(StoreError::GroupNotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Where a group goes of which nothing is anywhere else.
fn roomiest<'a>(
    parts: &[(&'a Arc<Lane>, Part)],
    commit: &Commit,
    bytes: u64,
) -> Option<(&'a Arc<Lane>, Part)> {
    let candidate = |(lane, _): &(&Arc<Lane>, Part)| Candidate {
        id: lane.id(),
        free_bytes: lane.free_bytes(),
        hangs: lane.hangs(),
        ..Candidate::default()
    };
    let candidates: Vec<_> = parts.iter().map(candidate).collect();
    let best = order(&key(commit.upload, None), bytes, &candidates).into_iter().next();
    best.map(|best| parts[best])
}

/// What a lease that is moved lacks there. What is longer there stays: it was made so meanwhile.
fn following(lease: LeaseId, here: &TermsLeft, there: &TermsLeft) -> Option<Op> {
    match (here.expiry, there.expiry) {
        (Expiry::FinalisedHeight(height), end)
            if here.is_settled && !(there.is_settled && end == here.expiry) =>
        {
            Some(Op::MoveDeal { lease, height })
        }
        (Expiry::RunningSeconds(left), Expiry::RunningSeconds(left_there))
            if left_there + CLOCK_SECS < left =>
        {
            let expiry = Expiry::RunningSeconds(left);
            Some(Op::Renew { caller: there.owner, lease, expiry })
        }
        _ => None,
    }
}

/// How a lease ends there that has ended here while it was moved: its end may have missed the other
/// disk. One that covers more there was opened anew.
async fn ending(
    lane: &Lane,
    lease: LeaseId,
    there: &TermsLeft,
    moved: &[CoveredGroup],
) -> Result<Option<Op>, StoreError> {
    let Some(groups) = lane.groups_under(lease).await? else { return Ok(None) };
    let moved: BTreeSet<_> = moved.iter().map(|(object, group, _)| (*object, *group)).collect();
    if !groups.iter().all(|(object, group, _)| moved.contains(&(*object, *group))) {
        return Ok(None);
    }
    Ok(Some(match there.kind {
        LeaseKind::Deal => Op::EndDeal { lease },
        _ => Op::Release { caller: there.owner, lease },
    }))
}

/// Whether the terms are the same, but for the time that has passed.
fn is_same(before: Option<&TermsLeft>, after: Option<&TermsLeft>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => match (before.expiry, after.expiry) {
            (Expiry::RunningSeconds(before), Expiry::RunningSeconds(after)) => {
                after <= before && before - after <= CLOCK_SECS
            }
            (earlier, later) => earlier == later && before.is_settled == after.is_settled,
        },
        (None, None) => true,
        _ => false,
    }
}
