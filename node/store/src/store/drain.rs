// SPDX-License-Identifier: MIT OR Apache-2.0
//! Emptying a disk while the store serves: it takes no new records, and a thread of its own moves
//! what it has to the others.
//!
//! - That a disk is to be empty is written down in the data directory; a start goes on with it.
//!   How far it is follows from what lies where.
//! - Kept groups are moved ([`mover`]). Open uploads are let finish, or end when they have rested
//!   for long enough; what is in the trash waits there for its time, unless another disk has it.
//! - It goes on until nothing is left; then the disk says so and stays empty until it is named no
//!   more, or the drain is cancelled.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread::Builder;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use supernode_protocol::ids::ShardId;
use supernode_protocol::lease::LeaseKind;
use tokio::sync::watch;
use tokio::time::timeout;

use super::disks::Drain;
use super::lane::Lane;
use super::{Shared, Store};
use crate::error::StoreError;

mod mover;
mod step;

use self::mover::{Mover, Stop};

/// How long it waits when there is nothing to move; ever longer, up to so long, while something
/// cannot be moved.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// How far a disk is from being empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainStatus {
    /// What is done about it.
    pub state: DrainState,
    /// Bytes of shards and manifests that are left, the trash's included.
    pub left_bytes: u64,
    /// Kept groups that are left.
    pub left_groups: u64,
    /// Groups that wait in the trash, and go by themselves.
    pub trash_groups: u64,
    /// Uploads that are open, and end by themselves.
    pub open_uploads: u64,
    /// Bytes moved since the node's start.
    pub moved_bytes: u64,
    /// Groups moved since then.
    pub moved_groups: u64,
    /// Slots that had to be left out because their shard is damaged.
    pub damaged_slots: u64,
    /// When the kept groups will have been moved, at the pace of this run.
    pub eta_secs: Option<u64>,
    /// Why something could not be moved; it is tried again.
    pub error: Option<String>,
}

/// What is done about a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrainState {
    /// Nothing: it is used.
    #[default]
    Off,
    /// Its records are moved.
    Draining,
    /// It is empty and takes nothing; it can be removed.
    Done,
}

/// Drains by lane.
pub(super) type Drains = HashMap<u64, Running>;

/// A drain under way, or done.
pub(super) struct Running {
    /// Ends its thread, which holds the other end for as long as it runs.
    stop: Arc<watch::Sender<bool>>,
    progress: Arc<Mutex<Progress>>,
}

/// What a drain has done since it began.
#[derive(Debug)]
struct Progress {
    begun: Instant,
    bytes: u64,
    groups: u64,
    damaged: u64,
    /// How often the disk failed to read a shard.
    unreadable: HashMap<ShardId, u32>,
    error: Option<String>,
    is_done: bool,
}

impl Store {
    /// Begins to empty a disk, by its id in [`Store::disks`], and goes on after a restart.
    ///
    /// # Errors
    /// [`StoreError::Drain`] says why it cannot be emptied.
    pub async fn drain(&self, disk: &str) -> Result<DrainStatus, StoreError> {
        let _alone = self.shared.draining.lock().await;
        let lane = self.lane_named(disk)?;
        if !self.shared.has_drain(lane) {
            if !lane.is_draining() {
                self.demand_room_elsewhere(lane)?;
            }
            self.remember_drain(lane, Drain::Asked).await?;
            lane.set_draining(true);
            self.begin_drain(lane)?;
        }
        Ok(self.shared.drain_status(lane))
    }

    /// Uses a disk again that was being emptied. What was moved stays where it is.
    ///
    /// # Errors
    /// [`StoreError::Drain`] for a disk that is not there.
    pub async fn cancel_drain(&self, disk: &str) -> Result<DrainStatus, StoreError> {
        let _alone = self.shared.draining.lock().await;
        let lane = self.lane_named(disk)?;
        self.remember_drain(lane, Drain::No).await?;
        let stop = self.shared.drains.lock().get(&lane.id()).map(|running| running.stop.clone());
        if let Some(stop) = stop {
            let _ = stop.send(true);
            // While it moves things, nothing may take this disk for one of those they go to.
            stop.closed().await;
        }
        self.shared.drains.lock().remove(&lane.id());
        lane.set_draining(false);
        Ok(self.shared.drain_status(lane))
    }

    /// How far a disk is from being empty.
    ///
    /// # Errors
    /// [`StoreError::Drain`] for a disk that is not there.
    pub fn drain_status(&self, disk: &str) -> Result<DrainStatus, StoreError> {
        Ok(self.shared.drain_status(self.lane_named(disk)?))
    }

    /// Goes on with every drain that was asked for before the start.
    pub(super) fn resume_drains(&self) -> Result<(), StoreError> {
        let draining = self.shared.lanes.iter().filter(|lane| lane.is_draining());
        draining.into_iter().try_for_each(|lane| self.begin_drain(lane))
    }

    fn lane_named(&self, disk: &str) -> Result<&Arc<Lane>, StoreError> {
        let lane = self.shared.lanes.iter().find(|lane| lane.name() == disk);
        let lane = lane.ok_or_else(|| {
            let reason = "no disk of this id is there".to_owned();
            StoreError::Drain { disk: disk.to_owned(), reason }
        })?;
        if lane.is_online() { Ok(lane) } else { Err(lane.offline_error()) }
    }

    fn demand_room_elsewhere(&self, lane: &Lane) -> Result<(), StoreError> {
        let others = self.shared.online().filter(|other| other.id() != lane.id());
        let free = others.filter(|other| !other.is_draining()).map(|other| other.free_bytes());
        let (free, needed) = (free.fold(0, u64::saturating_add), lane.used_bytes());
        if free > needed {
            return Ok(());
        }
        let reason = format!("the other disks have room for {free} bytes, and it has {needed}");
        Err(StoreError::Drain { disk: lane.path().display().to_string(), reason })
    }

    async fn remember_drain(&self, lane: &Lane, drain: Drain) -> Result<(), StoreError> {
        let (shared, id) = (Arc::clone(&self.shared), lane.id());
        let written = tokio::task::spawn_blocking(move || shared.remember_drain(id, drain)).await;
        written.unwrap_or_else(|_| Err(StoreError::stopped("writing the list of disks panicked")))
    }

    fn begin_drain(&self, lane: &Arc<Lane>) -> Result<(), StoreError> {
        let progress = Progress {
            begun: Instant::now(),
            bytes: 0,
            groups: 0,
            damaged: 0,
            unreadable: HashMap::new(),
            error: None,
            is_done: false,
        };
        let progress = Arc::new(Mutex::new(progress));
        let (stop, stopped) = watch::channel(false);
        let drainer = Drainer {
            shared: Arc::downgrade(&self.shared),
            lane: Arc::downgrade(lane),
            stopped,
            progress: Arc::clone(&progress),
        };
        let failed = |error| StoreError::io("start a drain's thread", error);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let run = move || {
            // Reads that it left at a disk that hangs must not hold up its end.
            let mut drainer = drainer;
            runtime.block_on(drainer.run());
            runtime.shutdown_background();
        };
        Builder::new().name("store-drain".to_owned()).spawn(run).map_err(failed)?;
        self.shared.drains.lock().insert(lane.id(), Running { stop: Arc::new(stop), progress });
        Ok(())
    }
}

impl Shared {
    /// Whether a disk is being emptied, or was. One that was told to stop ends, and counts no more.
    fn has_drain(&self, lane: &Lane) -> bool {
        self.drains.lock().get(&lane.id()).is_some_and(|running| !*running.stop.borrow())
    }

    fn remember_drain(&self, id: u64, drain: Drain) -> Result<(), StoreError> {
        match &mut *self.known.lock() {
            Some(known) => known
                .set_drain(id, drain)
                .map_err(|error| StoreError::io("write the list of disks", error)),
            // Opened on given disks: whoever gave them remembers.
            None => Ok(()),
        }
    }

    /// Ends the threads; nothing is waited for.
    pub(super) fn stop_drains(&self) {
        for running in self.drains.lock().values() {
            let _ = running.stop.send(true);
        }
    }

    fn drain_status(&self, lane: &Lane) -> DrainStatus {
        let usage = lane.usage();
        let status = DrainStatus {
            left_bytes: lane.used_bytes(),
            left_groups: usage.live_groups,
            trash_groups: usage.trash_groups,
            open_uploads: usage.leases_of_kind(LeaseKind::Upload).count,
            ..DrainStatus::default()
        };
        let drains = self.drains.lock();
        let Some(running) = drains.get(&lane.id()) else { return status };
        let progress = running.progress.lock();
        let secs = progress.begun.elapsed().as_secs().max(1);
        let left = usage.shards.live.bytes;
        let eta_secs = left.checked_mul(secs).and_then(|work| work.checked_div(progress.bytes));
        DrainStatus {
            state: if progress.is_done { DrainState::Done } else { DrainState::Draining },
            moved_bytes: progress.bytes,
            moved_groups: progress.groups,
            damaged_slots: progress.damaged,
            eta_secs: eta_secs.filter(|_| !progress.is_done),
            error: progress.error.clone(),
            ..status
        }
    }
}

/// Whether nothing is left on a disk.
fn is_empty(lane: &Lane) -> bool {
    let usage = lane.usage();
    let uploads = usage.leases_of_kind(LeaseKind::Upload).count;
    lane.used_bytes() + usage.live_groups + usage.trash_groups + uploads == 0
}

/// What a drain's thread owns.
struct Drainer {
    shared: Weak<Shared>,
    lane: Weak<Lane>,
    stopped: watch::Receiver<bool>,
    progress: Arc<Mutex<Progress>>,
}

impl Drainer {
    /// Rounds, until the disk is empty or it is stopped.
    async fn run(&mut self) {
        let mut pause = PAUSE;
        loop {
            let (shared, lane) = (self.shared.clone(), self.lane.clone());
            let mover = Mover::new(shared, lane, self.stopped.clone(), Arc::clone(&self.progress));
            let outcome = mover.round().await;
            let error = match outcome {
                Err(Stop::Asked) => return,
                Err(Stop::Failed(error)) => Some(error.to_string()),
                Ok(()) => None,
            };
            if error.is_some() && self.progress.lock().error != error {
                tracing::warn!(error, "a drain could not move everything; it tries again");
            }
            pause = if error.is_some() { PAUSE_MAX.min(2 * pause) } else { PAUSE };
            let is_done = error.is_none() && self.finish().await;
            self.note(error, is_done);
            if is_done || self.rest(pause).await {
                return;
            }
        }
    }

    fn note(&self, error: Option<String>, is_done: bool) {
        let mut progress = self.progress.lock();
        (progress.error, progress.is_done) = (error, is_done);
    }

    /// Waits a little; says whether it is to stop.
    async fn rest(&mut self, pause: Duration) -> bool {
        let asked = timeout(pause, self.stopped.wait_for(|stopped| *stopped)).await;
        asked.is_ok()
    }

    /// Writes down that nothing is left, if that is so.
    async fn finish(&self) -> bool {
        let (Some(shared), Some(lane)) = (self.shared.upgrade(), self.lane.upgrade()) else {
            return false;
        };
        if !is_empty(&lane) {
            return false;
        }
        // A put that chose this disk before the drain began may still be on its way to it.
        shared.grace.wait().await;
        if !is_empty(&lane) {
            return false;
        }
        let disk = lane.path().display();
        match shared.remember_drain(lane.id(), Drain::Done) {
            Ok(()) => tracing::info!(%disk, "a disk is drained and can be removed"),
            Err(error) => {
                tracing::warn!(%disk, %error, "a disk is drained, but nobody wrote it down")
            }
        }
        true
    }
}
