// SPDX-License-Identifier: MIT OR Apache-2.0
//! Moves what a disk keeps to the others, one lease after the other, so that at every instant all
//! of it is durable on one disk at least.
//!
//! For each lease:
//!
//! 1. Every group it covers is put on other disks, shard by shard and verified, and committed
//!    there under the same lease; what is there already is not put again.
//! 2. Changes that began before are let end: they may have met this disk only. Then placements,
//!    spans and the lease's end are made equal there.
//! 3. What is there is read. Unless something is missing, the lease ends on this disk alone; and
//!    if more has come under it, it begins again.
//! 4. Its groups leave the trash of this disk, if the others have all of them.
//!
//! What is only cached is put elsewhere under the cache's own upload, or let go.
//!
//! A crash leaves what is on two disks on both; the next round finds it there and goes on.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use supernode_protocol::ids::{Cid, LeaseId, ShardId, UploadId};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::Shared;
use super::super::lane::{Lane, MovingGroup};
use super::Progress;
use super::step::Step;
use crate::error::StoreError;
use crate::writer::Op;

/// Groups listed at once.
const PAGE: usize = 256;
/// Groups in the trash that one round looks at.
const TRASH_MAX: usize = 4096;

/// Rounds in which a shard that the disk cannot read is tried again.
const UNREADABLE_MAX: u32 = 3;

/// Why a round ended early.
pub(super) enum Stop {
    /// Somebody wants that, or the store is gone.
    Asked,
    /// Something did not work; the rest was moved all the same.
    Failed(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// One round over a disk.
pub(super) struct Mover {
    shared: Weak<Shared>,
    lane: Weak<Lane>,
    stopped: watch::Receiver<bool>,
    progress: Arc<Mutex<Progress>>,
    begun: Instant,
    /// Bytes moved since then, for the pace.
    bytes: u64,
}

impl Mover {
    pub(super) fn new(
        shared: Weak<Shared>,
        lane: Weak<Lane>,
        stopped: watch::Receiver<bool>,
        progress: Arc<Mutex<Progress>>,
    ) -> Self {
        Self { shared, lane, stopped, progress, begun: Instant::now(), bytes: 0 }
    }

    /// Moves every lease that is there now. One that cannot be moved does not keep the others.
    pub(super) async fn round(mut self) -> Result<(), Stop> {
        let mut failure = None;
        let mut seen = HashSet::new();
        let mut after = None;
        loop {
            let groups = self.step()?.source.covered_groups(after, PAGE).await?;
            let Some((object, group, _)) = groups.last() else { break };
            after = Some((*object, *group));
            for lease in groups.into_iter().flat_map(|(_, _, leases)| leases) {
                if !seen.insert(lease) {
                    continue;
                }
                match self.lease(lease).await {
                    Err(Stop::Failed(error)) => failure = Some(error),
                    outcome => outcome?,
                }
            }
        }
        self.cached().await?;
        let step = self.step()?;
        for (object, group) in step.source.trashed_groups(TRASH_MAX).await? {
            step.bury(object, group).await?;
        }
        failure.map_or(Ok(()), |error| Err(Stop::Failed(error)))
    }

    /// Moves what is only cached.
    async fn cached(&mut self) -> Result<(), Stop> {
        let mut after = None;
        loop {
            let step = self.step()?;
            let node = step.shared.config.node;
            let (page, last) = step.source.cached(node, after, PAGE).await?;
            for cached in &page {
                self.step()?;
                let len = step.cached(cached.shard).await?;
                self.keep_pace(&step.shared, len).await;
            }
            if last.is_none() {
                return Ok(());
            }
            // Who evicts now meets both; who began before is waited for.
            step.shared.grace.wait().await;
            step.shared.moves.fetch_add(1, Ordering::SeqCst);
            for cached in page {
                step.let_go(cached.shard).await?;
            }
            after = last;
        }
    }

    fn step(&self) -> Result<Step, Stop> {
        let step = self.shared.upgrade().zip(self.lane.upgrade());
        let (shared, source) = step.ok_or(Stop::Asked)?;
        let is_closing = shared.is_closing.load(Ordering::Relaxed);
        if is_closing || *self.stopped.borrow() || !source.is_online() {
            return Err(Stop::Asked);
        }
        Ok(Step { shared, source })
    }

    async fn lease(&mut self, lease: LeaseId) -> Result<(), Stop> {
        let Some(groups) = self.step()?.source.groups_under(lease).await? else { return Ok(()) };
        let mut failure = None;
        for (object, group, _) in &groups {
            // One that cannot be moved yet does not keep the others.
            match self.group(lease, *object, *group).await {
                Err(Stop::Failed(error)) => failure = Some(error),
                outcome => outcome?,
            }
        }
        if let Some(error) = failure {
            return Err(error.into());
        }
        let step = self.step()?;
        step.shared.grace.wait().await;
        for (object, group, _) in &groups {
            step.follow_group(*object, *group).await?;
        }
        step.follow_lease(lease, &groups).await?;
        for (object, group, _) in &groups {
            self.step()?;
            step.demand_elsewhere(*object, *group).await?;
        }
        // From here on a reader that missed it on both looks again.
        step.shared.moves.fetch_add(1, Ordering::SeqCst);
        let op = Op::Forsake { lease, groups: groups.iter().copied().collect() };
        match step.source.perform(op).await {
            Ok(_) | Err(StoreError::LeaseNotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        for (object, group, _) in &groups {
            step.bury(*object, *group).await?;
        }
        self.progress.lock().groups += groups.len() as u64;
        Ok(())
    }

    /// Puts a group on other disks as a lease covers it here.
    async fn group(&mut self, lease: LeaseId, object: Cid, group: u32) -> Result<(), Stop> {
        let step = self.step()?;
        let upload = upload_of(&step.source, lease, object, group);
        let moving = step.source.moving_group(object, group, lease, upload).await?;
        let Some(MovingGroup { commit, slots }) = moving else { return Ok(()) };
        let there = step.whole_elsewhere(object, group).await?;
        let (mut bytes, mut failure) = (0, None);
        for (slot, shard) in slots.into_iter().filter(|(slot, _)| !there.contains(slot)) {
            self.step()?;
            match step.shard(commit.terms.owner, upload, slot, shard).await {
                Ok(Some(len)) => {
                    bytes += len;
                    self.keep_pace(&step.shared, len).await;
                }
                Ok(None) => self.progress.lock().damaged += 1,
                Err(error @ StoreError::Io { .. }) if !self.is_given_up(shard) => {
                    failure = Some(error);
                }
                Err(StoreError::Io { .. }) => self.progress.lock().damaged += 1,
                Err(error) => return Err(error.into()),
            }
        }
        step.commit(commit, bytes).await?;
        failure.map_or(Ok(()), |error| Err(Stop::Failed(error)))
    }

    /// Notes that a shard cannot be read; whether that was often enough to take it for lost.
    fn is_given_up(&self, shard: ShardId) -> bool {
        let mut progress = self.progress.lock();
        let times = progress.unreadable.entry(shard).or_default();
        *times += 1;
        *times > UNREADABLE_MAX
    }

    /// Waits until what was moved is within the pace.
    async fn keep_pace(&mut self, shared: &Shared, len: u64) {
        self.bytes += len;
        self.progress.lock().bytes += len;
        let pace = shared.config.drain_bytes_per_sec;
        let Some(millis) = self.bytes.saturating_mul(1000).checked_div(pace) else { return };
        if let Some(early) = Duration::from_millis(millis).checked_sub(self.begun.elapsed()) {
            let _ = timeout(early, self.stopped.wait_for(|stopped| *stopped)).await;
        }
    }
}

/// The upload under which a group is moved for a lease: the same one after a crash.
fn upload_of(source: &Lane, lease: LeaseId, object: Cid, group: u32) -> UploadId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"supernode drain").update(&source.id().to_le_bytes());
    hasher.update(lease.as_bytes()).update(object.as_bytes()).update(&group.to_le_bytes());
    let mut id = [0; UploadId::LEN];
    hasher.finalize_xof().fill(&mut id);
    UploadId::from_bytes(id)
}
