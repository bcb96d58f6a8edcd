// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle: cheap to clone, async, and all that other crates see of a store.
//!
//! - A store is one or several lanes, one to a directory, each complete in itself. It owns what
//!   they share (the cache, the memory for shards on their way) and decides which of them is asked.
//! - What one lane has is asked of all at once, and the first that has it answers; nobody waits for
//!   the others. Changes go to every lane that knows what is changed.
//! - A lane whose disk fails is taken offline while another one serves. What is found nowhere else
//!   then is [`StoreError::Offline`], and not absent.
//! - Reads go through a cache that holds verified bytes only and loads once however many wait.
//! - After [`Store::close`] every clone answers [`StoreError::Stopped`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use supernode_protocol::ids::{Cid, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use tokio::sync::broadcast;
use tokio::time::timeout;

use crate::buffer::{BufferPool, ShardBuffer};
use crate::catalog::{Thing, Usage};
use crate::config::StoreConfig;
use crate::disk::{DirectoryLock, Disk, LockError};
use crate::error::StoreError;
use crate::metrics::{Counters, DiskMetrics, StoreMetrics};
use crate::recovery::IndexSource;
use crate::scrub::{ScrubCommand, ScrubStatus};

mod cache;
mod choice;
mod commit;
mod deals;
mod disks;
mod drain;
mod events;
mod grace;
mod lane;
mod level;
mod merge;
mod open;
mod put;
mod read;
mod room;
mod silence;

use self::cache::Cache;
use self::commit::DealsUnderWay;
use self::disks::{Absent, KnownDisks};
use self::drain::Drains;
pub use self::drain::{DrainState, DrainStatus};
pub use self::events::GroupEvents;
use self::grace::Grace;
use self::lane::{Company, Lane};
pub use self::open::{OpenShard, PIECE_BYTES};
pub(crate) use self::room::Evictable;
use self::room::Room;
use self::silence::{Sign, Suspicions};

/// Events that a slow listener may fall behind by; then it is told how many it missed.
const EVENTS_MAX: usize = 1024;
/// How often a thing that is not found is looked for while things are moved between lanes. It was
/// moved once at most, but for a lane that is itself drained by then.
const LOOKS_MAX: usize = 4;
/// How long a stop waits for lanes that are offline.
const OFFLINE_PATIENCE: Duration = Duration::from_secs(1);
/// Name of the index directory.
pub(crate) const INDEX_DIRECTORY: &str = "index";

/// A shard to put.
#[derive(Debug)]
pub struct PutShard {
    /// The authenticated peer.
    pub caller: NodeId,
    /// The upload.
    pub upload: UploadId,
    /// The position.
    pub slot: Slot,
    /// What the bytes must hash to.
    pub shard: ShardId,
    /// The bytes.
    pub buffer: ShardBuffer,
}

/// A manifest root or page to put.
#[derive(Debug)]
pub struct PutBlock {
    /// The authenticated peer.
    pub caller: NodeId,
    /// The upload.
    pub upload: UploadId,
    /// What the bytes must hash to.
    pub cid: Cid,
    /// The bytes.
    pub bytes: Bytes,
}

/// Manifest and placement of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRead {
    /// The manifest root.
    pub root: Bytes,
    /// The group's page; `None` for group 0, whose page is in the root.
    pub page: Option<Bytes>,
    /// The newest placement this node has.
    pub placement: Signed<PlacementRecord>,
}

/// A group that this node can tell the network about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The object.
    pub object: Cid,
    /// Which of its groups.
    pub group: u32,
    /// The group's page, if it is not in the root.
    pub page: Option<Cid>,
    /// The newest placement this node has.
    pub placement: Signed<PlacementRecord>,
}

/// One directory to open a store on, on any disk and with any index.
pub struct Place<'a> {
    /// Its name; a simulated disk is in no directory.
    pub path: &'a Path,
    /// Bytes offered of it.
    pub capacity_bytes: u64,
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Its index.
    pub index: &'a dyn IndexSource,
    /// Its lock, if it is in a directory.
    pub lock: Option<DirectoryLock>,
}

/// An open store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    config: StoreConfig,
    /// In the order of the settings.
    lanes: Vec<Arc<Lane>>,
    /// Those that could not be opened.
    absent: Vec<Absent>,
    company: Company,
    buffers: BufferPool,
    /// What the cache counts.
    counters: Arc<Counters>,
    room: Room,
    deals: Mutex<DealsUnderWay>,
    /// Changes under way.
    grace: Grace,
    /// How often something was moved from one lane to others: counted when it is there and still
    /// here.
    moves: AtomicU64,
    is_closing: AtomicBool,
    /// Who may hang.
    suspicions: Mutex<Suspicions>,
    drains: Mutex<Drains>,
    /// Held by whoever begins a drain or ends one.
    draining: tokio::sync::Mutex<()>,
    /// The list of disks; a store on given disks has none.
    known: Mutex<Option<KnownDisks>>,
    /// The data directory's, if no lane is in it.
    lock: Mutex<Option<DirectoryLock>>,
}

impl Store {
    /// Opens (or creates) the store of a data directory and brings it up to date. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Config`], [`StoreError::Locked`], [`StoreError::ForeignNode`],
    /// [`StoreError::NewerFormat`], or what the disk says; of several disks, when none can be used.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        config.validate()?;
        let mut shared = Shared::new(config);
        disks::open(&mut shared)?;
        let store = Self { shared: Arc::new(shared) };
        store.level_ends()?;
        store.resume_drains()?;
        Ok(store)
    }

    /// Opens a store on any disk, with any index.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_on(
        config: StoreConfig,
        disk: Arc<dyn Disk>,
        index: &dyn IndexSource,
        lock: Option<DirectoryLock>,
    ) -> Result<Self, StoreError> {
        let (path, capacity_bytes) = (config.path.clone(), config.capacity_bytes);
        let place = Place { path: &path, capacity_bytes, disk, index, lock };
        Self::open_on_all(config, vec![place])
    }

    /// Opens a store on any disks.
    ///
    /// # Errors
    /// As [`Self::open`], and if one of them cannot be used.
    pub fn open_on_all(config: StoreConfig, places: Vec<Place<'_>>) -> Result<Self, StoreError> {
        let mut shared = Shared::new(config);
        for (id, place) in (0..).zip(places) {
            let Place { path, capacity_bytes, disk, index, lock } = place;
            let config = shared.config.of_disk(path, capacity_bytes);
            let company = shared.company.clone();
            let lane = Lane::open_on(id, config, company, disk, index, lock)?;
            shared.lanes.push(Arc::new(lane));
        }
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Stops: writes what waits, marks the logs as orderly ended, frees the directories.
    ///
    /// # Errors
    /// When an end could not be made durable; everything acknowledged is, all the same. Of several
    /// disks, [`StoreError::Offline`] for one that hangs: it is not waited for.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.shared.buffers.close();
        self.shared.is_closing.store(true, Ordering::Relaxed);
        self.shared.stop_drains();
        let lanes = self.shared.lanes.iter().filter(|lane| lane.is_online());
        // One that hangs must not hold up the others, nor the stop. A store on one disk waits for
        // it: there is nothing else to save.
        let is_patient = self.shared.only().is_some();
        let close = |lane: &'_ Arc<Lane>| {
            let lane = Arc::clone(lane);
            async move {
                if is_patient {
                    return lane.close().await;
                }
                lane.try_close().await
            }
        };
        let closed = join_all(lanes.map(close)).await;
        let others = join_all(self.shared.lanes.iter().map(|lane| lane.ended()));
        // What is offline was told to end, and does if its disk lets it.
        if self.shared.lanes.len() > 1 {
            let _ = timeout(OFFLINE_PATIENCE, others).await;
        }
        *self.shared.lock.lock() = None;
        closed.into_iter().collect()
    }

    /// A buffer for a shard of exactly `len` bytes; waits until the byte budget has room.
    ///
    /// # Errors
    /// [`StoreError::ShardLength`] before anything is allocated.
    pub async fn buffer(&self, len: u64) -> Result<ShardBuffer, StoreError> {
        self.shared.buffers.take(len).await
    }

    // --- figures ---------------------------------------------------------------------------

    /// Commits and releases from now on.
    pub fn events(&self) -> GroupEvents {
        let told = self.shared.company.events.subscribe();
        GroupEvents::new(told, Arc::downgrade(&self.shared))
    }

    /// Hears of every shard and block that is found damaged, by a read or by the scrub: what is
    /// lost here and has to come from elsewhere.
    pub fn damage(&self) -> broadcast::Receiver<Thing> {
        self.shared.company.damage.subscribe()
    }

    /// How far the scrub is, on all disks together.
    pub fn scrub_status(&self) -> ScrubStatus {
        merge::scrub(self.shared.online().map(|lane| lane.scrub_status()))
    }

    /// Starts, pauses or resumes the scrub; says what it then does.
    pub fn scrub(&self, command: ScrubCommand) -> ScrubStatus {
        merge::scrub(self.shared.online().map(|lane| lane.scrub(command)))
    }

    /// Whether the storage actor runs: false after [`Store::close`], and after the last one died.
    pub fn is_open(&self) -> bool {
        self.shared.lanes.iter().any(|lane| lane.is_open())
    }

    /// Returns when the last storage actor has ended, for whatever reason.
    pub async fn ended(&self) {
        join_all(self.shared.lanes.iter().map(|lane| lane.ended())).await;
    }

    /// Figures of what is kept; never touches the disk.
    pub fn usage(&self) -> Usage {
        let usages = self.shared.online().map(|lane| lane.usage());
        usages.fold(Usage::default(), |total, part| merge::usage(total, &part))
    }

    /// Bytes this node offers, on disks that are online.
    pub fn capacity_bytes(&self) -> u64 {
        let capacities = self.shared.online().map(|lane| lane.capacity_bytes());
        capacities.fold(0, u64::saturating_add)
    }

    /// Everything countable.
    pub fn metrics(&self) -> StoreMetrics {
        let shared = &self.shared;
        let own = StoreMetrics {
            cache_bytes: shared.company.cache.bytes(),
            buffer_free_bytes: shared.buffers.free_bytes(),
            scrub: self.scrub_status(),
            disks: self.disks(),
            ..shared.counters.snapshot()
        };
        shared.online().map(|lane| lane.metrics()).fold(own, merge::metrics)
    }

    /// Each disk by itself, in the order of the settings.
    pub fn disks(&self) -> Vec<DiskMetrics> {
        self.shared.notice_ailments();
        let lanes = self.shared.lanes.iter().map(|lane| DiskMetrics {
            id: lane.name(),
            path: lane.path().to_owned(),
            offline: lane.offline_reason(),
            capacity_bytes: lane.capacity_bytes(),
            used_bytes: lane.used_bytes(),
            free_bytes: lane.free_on_disk_bytes(),
        });
        let absent = self.shared.absent.iter().map(|absent| DiskMetrics {
            id: String::new(),
            path: absent.path.clone(),
            offline: Some(absent.reason.clone()),
            capacity_bytes: absent.capacity_bytes,
            used_bytes: 0,
            free_bytes: 0,
        });
        let mut disks: Vec<_> = lanes.chain(absent).collect();
        let named = &self.shared.config.disks;
        let position = |disk: &DiskMetrics| named.iter().position(|it| it.path == disk.path);
        disks.sort_by_key(|disk| position(disk).unwrap_or(named.len()));
        disks
    }
}

impl Shared {
    /// A store without lanes.
    fn new(config: StoreConfig) -> Self {
        let counters = Arc::new(Counters::default());
        let cache = Cache::new(&config, Arc::clone(&counters));
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let (damage, _) = broadcast::channel(EVENTS_MAX);
        Self {
            buffers: BufferPool::new(config.buffer_bytes_max),
            config,
            lanes: Vec::new(),
            absent: Vec::new(),
            company: Company { events, damage, cache, holds_ends: Arc::default() },
            counters,
            room: Room::default(),
            deals: Mutex::default(),
            grace: Grace::default(),
            moves: AtomicU64::new(0),
            is_closing: AtomicBool::new(false),
            suspicions: Mutex::default(),
            drains: Mutex::default(),
            draining: tokio::sync::Mutex::default(),
            known: Mutex::new(None),
            lock: Mutex::new(None),
        }
    }

    /// Lanes whose records can be reached.
    fn online(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.notice_ailments();
        self.lanes.iter().filter(|lane| lane.is_online())
    }

    /// The lane of a store that has no other.
    fn only(&self) -> Option<&Arc<Lane>> {
        match &self.lanes[..] {
            [lane] if self.absent.is_empty() => Some(lane),
            _ => None,
        }
    }

    /// Takes offline what does not work, as long as something else does.
    fn notice_ailments(&self) {
        if self.lanes.len() < 2 || self.is_closing.load(Ordering::Relaxed) {
            return;
        }
        let online: Vec<_> = self.lanes.iter().filter(|lane| lane.is_online()).collect();
        let hanging = self.hanging(&online);
        for lane in &online {
            let silence = lane.long_silence().filter(|_| hanging.contains(&lane.id()));
            let silence =
                silence.map(|silence| format!("it does not answer for {} s", silence.as_secs()));
            let Some(reason) = lane.ailment().or(silence) else { continue };
            let is_well = |other: &&&Arc<Lane>| {
                other.is_online() && other.ailment().is_none() && other.long_silence().is_none()
            };
            if online.iter().any(|other| other.id() != lane.id() && is_well(&other)) {
                lane.take_offline(&reason);
            }
        }
    }

    fn hanging(&self, online: &[&Arc<Lane>]) -> Vec<u64> {
        let sign = |lane: &&Arc<Lane>| Sign {
            lane: lane.id(),
            is_silent: lane.long_silence().is_some(),
            looks: lane.looks(),
        };
        let signs: Vec<_> = online.iter().map(sign).collect();
        self.suspicions.lock().judge(Instant::now(), &signs)
    }

    /// A disk whose records cannot be reached, if there is one.
    fn offline(&self) -> Option<StoreError> {
        let lane = self.lanes.iter().find(|lane| !lane.is_online());
        let absent = self.absent.first();
        lane.map(|lane| lane.offline_error())
            .or_else(|| absent.map(|absent| StoreError::Offline { path: absent.path.clone() }))
    }

    /// What a lane's failure is to the caller: it may have taken the lane offline.
    fn judge<T>(&self, lane: &Lane, outcome: Result<T, StoreError>) -> Result<T, StoreError> {
        outcome.map_err(|error| match error {
            StoreError::Io { .. } | StoreError::Stopped { .. } | StoreError::Index { .. } => {
                self.notice_ailments();
                if lane.is_online() { error } else { lane.offline_error() }
            }
            error => error,
        })
    }

    /// The first answer of a lane that has what is asked for. `None` only if every lane said that
    /// it has not.
    async fn first<'a, T, F>(
        &'a self,
        question: impl Fn(&'a Arc<Lane>) -> F,
    ) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = Result<Option<T>, StoreError>> + 'a,
    {
        if let Some(lane) = self.only() {
            return absence_as_none(question(lane).await);
        }
        for _ in 0..LOOKS_MAX {
            let moves = self.moves.load(Ordering::SeqCst);
            let answer = self.first_now(&question).await?;
            // It may have been moved from a lane not asked yet to one that was asked before.
            if answer.is_some() || self.moves.load(Ordering::SeqCst) == moves {
                return Ok(answer);
            }
        }
        Ok(None)
    }

    async fn first_now<'a, T, F>(
        &'a self,
        question: &impl Fn(&'a Arc<Lane>) -> F,
    ) -> Result<Option<T>, StoreError>
    where
        F: Future<Output = Result<Option<T>, StoreError>> + 'a,
    {
        let ask = |lane: &'a Arc<Lane>| {
            let answer = question(lane);
            async move { self.judge(lane, answer.await) }
        };
        let mut answers: FuturesUnordered<_> = self.online().map(ask).collect();
        let mut failure = None;
        while let Some(answer) = answers.next().await {
            match absence_as_none(answer) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) | Err(StoreError::Offline { .. }) => {}
                Err(error) => failure = Some(error),
            }
        }
        match failure.or_else(|| self.offline()) {
            Some(error) => Err(error),
            None => Ok(None),
        }
    }

    /// The answers of all lanes that are online. One that goes offline meanwhile is left out.
    async fn each<'a, T, F>(
        &'a self,
        question: impl Fn(&'a Arc<Lane>) -> F,
    ) -> Result<Vec<(&'a Arc<Lane>, T)>, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + 'a,
    {
        let ask = |lane: &'a Arc<Lane>| {
            let answer = question(lane);
            async move { (lane, self.judge(lane, answer.await)) }
        };
        // What is moved meanwhile is seen by one of the two: it is there before it leaves here.
        let (from, to): (Vec<_>, Vec<_>) = self.online().partition(|lane| lane.is_draining());
        let mut asked = join_all(from.into_iter().map(&ask)).await;
        asked.extend(join_all(to.into_iter().map(&ask)).await);
        let mut answers = Vec::new();
        for (lane, answer) in asked {
            match answer {
                Ok(answer) => answers.push((lane, answer)),
                Err(StoreError::Offline { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(answers)
    }

    /// As [`Self::each`], the answers alone.
    async fn all<'a, T, F>(
        &'a self,
        question: impl Fn(&'a Arc<Lane>) -> F,
    ) -> Result<Vec<T>, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + 'a,
    {
        let answers = self.each(question).await?;
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Has every lane change what it knows of something. Succeeds when one of them did and none
    /// failed; what failed is repeated by whoever asked.
    async fn change<'a, T, F>(
        &'a self,
        change: impl Fn(&'a Arc<Lane>) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + 'a,
    {
        if let Some(lane) = self.only() {
            return change(lane).await;
        }
        let _change = self.grace.begin().await;
        let ask = |lane: &'a Arc<Lane>| {
            let answer = change(lane);
            async move { self.judge(lane, answer.await) }
        };
        let (mut done, mut absence, mut failure) = (None, None, None);
        for answer in join_all(self.online().map(ask)).await {
            match answer {
                Ok(answer) => done = Some(answer),
                Err(StoreError::Offline { .. }) => {}
                Err(error) if error.is_absence() => absence = Some(error),
                Err(error) => failure = Some(error),
            }
        }
        match (failure, done) {
            (Some(error), _) => Err(error),
            (None, Some(done)) => Ok(done),
            (None, None) => Err(self.offline().or(absence).unwrap_or_else(gone)),
        }
    }
}

fn absence_as_none<T>(answer: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match answer {
        Err(error) if error.is_absence() => Ok(None),
        answer => answer,
    }
}

fn gone() -> StoreError {
    StoreError::stopped("it is closed, or its writer gave up; the log says why")
}

/// The process that works in a data directory, or `None`; 0 in the instant in which a new one has
/// not written down who it is.
///
/// # Errors
/// When the lock file cannot be opened or read.
pub fn lock_holder(path: &std::path::Path) -> std::io::Result<Option<u32>> {
    DirectoryLock::holder(path)
}

/// Locks a data directory for this process.
pub(crate) fn lock_directory(path: &std::path::Path) -> Result<DirectoryLock, StoreError> {
    DirectoryLock::acquire(path).map_err(|error| match error {
        LockError::Held { pid } => StoreError::Locked { path: path.to_owned(), pid },
        LockError::Io(error) => StoreError::io(format!("lock {}", path.display()), error),
    })
}

#[cfg(test)]
mod tests;
