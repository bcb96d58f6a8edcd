// SPDX-License-Identifier: MIT OR Apache-2.0
//! The handle: cheap to clone, async, and all that other crates see of a store.
//!
//! - Puts, commits and lease changes go through the actor's mailbox.
//! - Reads go beside it, on blocking threads whose number `reads_max` bounds, through a cache that
//!   holds verified bytes only and loads once however many wait.
//! - After [`Store::close`] every clone answers [`StoreError::Stopped`].

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::{Commit, Expiry};
use supernode_protocol::limits::ROOT_BLOCK_BYTES_MAX;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::{Ack, ByteRange, LeaseEntry};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};

use crate::actor::{Actor, Message};
use crate::buffer::{BufferPool, FilledShard, ShardBuffer};
use crate::catalog::{Event, GroupEvent, Thing, Usage};
use crate::config::StoreConfig;
use crate::disk::{self, DirectoryLock, Disk, LockError};
use crate::error::StoreError;
use crate::index::SledOptions;
use crate::metrics::{Counters, MeteredDisk, StoreMetrics, bump};
use crate::reader::{RangeRead, Reader, Shard, cut};
use crate::record::{Holder, Placed};
use crate::recovery::{IndexSource, Recovery, SledSource};
use crate::scrub::{Scrub, ScrubCommand, ScrubConfig, ScrubStatus};
use crate::writer::{Done, Op, Writer, WriterParts};

mod cache;
mod deals;
mod facts;
mod room;

use self::cache::Cache;
pub(crate) use self::room::Evictable;
use self::room::Room;

/// Events that a slow listener may fall behind by; then it is told how many it missed.
const EVENTS_MAX: usize = 1024;
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

/// An open store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    config: StoreConfig,
    mailbox: mpsc::Sender<Message>,
    reader: Arc<Reader>,
    cache: Cache,
    /// Bounds disk reads; closed with the store.
    reads: Arc<Semaphore>,
    buffers: BufferPool,
    counters: Arc<Counters>,
    events: broadcast::Sender<GroupEvent>,
    scrub: Scrub,
    room: Room,
}

impl Store {
    /// Opens (or creates) the store in a directory and brings it up to date. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Config`], [`StoreError::Locked`], [`StoreError::ForeignNode`],
    /// [`StoreError::NewerFormat`], or what the disk says.
    pub fn open(config: StoreConfig) -> Result<Self, StoreError> {
        config.validate()?;
        let path = config.path.clone();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(|error| StoreError::io(format!("create {}", path.display()), error))?;
        let lock = lock_directory(&path)?;
        let index = SledSource {
            options: SledOptions {
                path: path.join(INDEX_DIRECTORY),
                cache_bytes: config.index_cache_bytes,
                timeout: Duration::from_secs(config.index_open_timeout_secs),
            },
        };
        let disk = disk::open(&path, config.io).map_err(|error| match error.kind() {
            io::ErrorKind::Unsupported => {
                let reason = format!("{} cannot ({error}); set \"auto\"", path.display());
                StoreError::Config { key: "storage.io", reason }
            }
            _ => StoreError::io(format!("try out {}", path.display()), error),
        })?;
        Self::open_on(config, Arc::new(disk), &index, Some(lock))
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
        let counters = Arc::new(Counters::default());
        let disk = Arc::new(MeteredDisk { disk, counters: Arc::clone(&counters) });
        let relaxed = config.acknowledges_early();
        let recovered = Recovery { disk, node: Some(config.node), index, relaxed }.run()?;
        if let Some(reason) = recovered.rebuilt {
            counters.count_rebuild(reason);
        }
        let damage = recovered.replayed.damage.len() + recovered.bad_segments.len();
        bump(&counters.damaged_ranges, damage as u64);
        let overlay = Arc::clone(&recovered.overlay);
        let segments = Arc::clone(&recovered.segments);
        let reader = Arc::new(Reader::new(segments, Arc::clone(&overlay), Arc::clone(&counters)));
        let cache = Cache::new(&config, Arc::clone(&counters));
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let writer = Writer::new(
            WriterParts {
                config: config.clone(),
                reader: Arc::clone(&reader),
                counters: Arc::clone(&counters),
                on_event: sink(events.clone(), cache.clone()),
            },
            &recovered,
        )?;
        // A simulated disk has no directory, and nobody locks it.
        let directory = lock.as_ref().map(|_| config.path.clone());
        let (mailbox, receiver) = mpsc::channel(config.mailbox_messages_max);
        Actor { writer, mailbox: receiver, overlay, config: config.clone(), lock }.spawn()?;
        let reads = Arc::new(Semaphore::new(config.reads_max));
        let buffers = BufferPool::new(config.buffer_bytes_max);
        let pace = ScrubConfig {
            interval_secs: config.scrub_interval_secs,
            bytes_per_sec: config.scrub_bytes_per_sec,
        };
        let (scrubbed, counted) = (Arc::clone(&reader), Arc::clone(&counters));
        let scrub = Scrub::spawn(scrubbed, counted, pace, directory)?;
        let room = Room::default();
        let shared = Shared {
            config,
            mailbox,
            reader,
            cache,
            reads,
            buffers,
            counters,
            events,
            scrub,
            room,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Stops: writes what waits, marks the log as orderly ended, frees the directory.
    ///
    /// # Errors
    /// When the end could not be made durable; everything acknowledged is, all the same.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.shared.buffers.close();
        let shared = Arc::clone(&self.shared);
        let scrub_ended = tokio::task::spawn_blocking(move || shared.scrub.close()).await;
        scrub_ended.map_err(|_| StoreError::stopped("its scrub panicked"))?;
        let all = u32::try_from(self.shared.config.reads_max).unwrap_or(u32::MAX);
        // Once all reads are back none begins any more, and nobody holds the index's files.
        if let Ok(permits) = self.shared.reads.acquire_many(all).await {
            self.shared.reads.close();
            drop(permits);
        }
        let (reply, closed) = oneshot::channel();
        let sent = self.shared.mailbox.send(Message::Close(reply)).await;
        sent.map_err(|_| StoreError::stopped("it is closed already"))?;
        closed.await.unwrap_or_else(|_| Err(gone()))
    }

    // --- writing ---------------------------------------------------------------------------

    /// A buffer for a shard of exactly `len` bytes; waits until the byte budget has room.
    ///
    /// # Errors
    /// [`StoreError::ShardLength`] before anything is allocated.
    pub async fn buffer(&self, len: u64) -> Result<ShardBuffer, StoreError> {
        self.shared.buffers.take(len).await
    }

    /// Stores a shard under an upload; the first put of an upload opens it for its caller.
    ///
    /// # Errors
    /// [`StoreError::BodyMismatch`], [`StoreError::Full`], [`StoreError::NotOwner`].
    pub async fn put_shard(&self, put: PutShard) -> Result<Ack, StoreError> {
        let PutShard { caller, upload, slot, shard, buffer } = put;
        let filled = buffer.finish(shard)?;
        let placed = Placed { holder: Holder { upload, owner: caller }, slot };
        self.put_filled(placed, shard, filled).await
    }

    /// Stores a shard whose bytes are known to be its own.
    pub(crate) async fn put_filled(
        &self,
        placed: Placed,
        shard: ShardId,
        filled: FilledShard,
    ) -> Result<Ack, StoreError> {
        let Placed { holder: Holder { upload, owner: caller }, slot } = placed;
        let seen_at = self.seen(Thing::Shard(shard)).await?;
        let _claim = self.claim_room(filled.bytes().len() as u64).await;
        let op = Op::PutShard { caller, upload, slot, shard, filled, seen_at };
        Ok(self.perform(op).await?.ack)
    }

    /// Stores a manifest root or page under an upload.
    ///
    /// # Errors
    /// As [`Self::put_shard`].
    pub async fn put_block(&self, put: PutBlock) -> Result<Ack, StoreError> {
        let PutBlock { caller, upload, cid, bytes } = put;
        let (len, max) = (bytes.len() as u64, ROOT_BLOCK_BYTES_MAX as u64);
        if len == 0 || len > max {
            return Err(StoreError::ShardLength { len, max });
        }
        let actual = Cid::of(&bytes);
        if actual != cid {
            let reason = format!("the bytes hash to {actual}, announced was {cid}");
            return Err(StoreError::BodyMismatch { reason });
        }
        let seen_at = self.seen(Thing::Block(cid)).await?;
        let _claim = self.claim_room(len).await;
        let op = Op::PutBlock { caller, upload, cid, bytes, seen_at };
        Ok(self.perform(op).await?.ack)
    }

    /// Binds an upload to an object and covers it with a lease. Returns the acknowledgement and
    /// how many slots of the group are held here now.
    ///
    /// # Errors
    /// [`StoreError::BadCommit`], [`StoreError::UnknownUpload`], [`StoreError::NotOwner`],
    /// [`StoreError::BadExpiry`].
    pub async fn commit(&self, caller: NodeId, commit: Commit) -> Result<(Ack, u32), StoreError> {
        let commit = Box::new(commit);
        let (commit, facts) = self
            .blocking(move |reader| {
                let facts = facts::read(reader, &commit)?;
                Ok((commit, facts))
            })
            .await?;
        let done = self.perform(Op::Commit { caller, commit, facts }).await?;
        Ok((done.ack, done.slot_count))
    }

    /// Keeps a placement record if it has precedence over the one here.
    ///
    /// # Errors
    /// [`StoreError::GroupNotFound`], or [`StoreError::BadCommit`] for a bad signature.
    pub async fn place(&self, record: Signed<PlacementRecord>) -> Result<Ack, StoreError> {
        facts::check_placement(&record)?;
        Ok(self.perform(Op::Place { record: Box::new(record) }).await?.ack)
    }

    /// Ends a lease (or an upload, by its id).
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`], [`StoreError::NotOwner`].
    pub async fn release(&self, caller: NodeId, lease: LeaseId) -> Result<Ack, StoreError> {
        Ok(self.perform(Op::Release { caller, lease }).await?.ack)
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
        Ok(self.perform(Op::Renew { caller, lease, expiry }).await?.ack)
    }

    async fn perform(&self, op: Op) -> Result<Done, StoreError> {
        let (send, receive) = oneshot::channel();
        let answer = Box::new(move |outcome| {
            // A caller that left does not want to know.
            let _ = send.send(outcome);
        });
        self.shared.mailbox.send(Message::Op(op, answer)).await.map_err(|_| gone())?;
        receive.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Where whole bytes of a thing are, if they are here: adopting them needs no second look.
    async fn seen(&self, thing: Thing) -> Result<Option<crate::record::Position>, StoreError> {
        self.blocking(move |reader| {
            let kept = reader.catalog().kept(thing)?;
            Ok(kept.filter(|kept| reader.verify(thing, kept).is_ok()).map(|kept| kept.at))
        })
        .await
    }

    // --- reading ---------------------------------------------------------------------------

    /// A whole shard, verified.
    ///
    /// # Errors
    /// [`StoreError::ShardNotFound`], [`StoreError::Damaged`].
    pub async fn shard(&self, shard: ShardId) -> Result<Shard, StoreError> {
        let load = self.blocking(move |reader| reader.shard(shard));
        self.shared.cache.shard(shard, load).await
    }

    /// A part of a shard, widened to whole groups, with its proof; both verified.
    ///
    /// # Errors
    /// As [`Self::shard`], and [`StoreError::BadRange`].
    pub async fn shard_range(
        &self,
        shard: ShardId,
        range: ByteRange,
    ) -> Result<RangeRead, StoreError> {
        match self.shared.cache.cached_shard(shard).await {
            Some(whole) => cut(shard, &whole, range),
            None => self.blocking(move |reader| reader.shard_range(shard, range)).await,
        }
    }

    /// Whether a shard is here and kept.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub async fn has_shard(&self, shard: ShardId) -> Result<bool, StoreError> {
        self.blocking(move |reader| match reader.live_shard(shard) {
            Ok(_) => Ok(true),
            Err(StoreError::ShardNotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    /// Manifest and placement of a group.
    ///
    /// # Errors
    /// [`StoreError::GroupNotFound`], [`StoreError::Damaged`].
    pub async fn group(&self, object: Cid, group: u32) -> Result<GroupRead, StoreError> {
        let (entry, placement) =
            self.blocking(move |reader| reader.placement(object, group)).await?;
        let absent = StoreError::GroupNotFound { object, group };
        if entry.trashed_secs.is_some() {
            return Err(absent);
        }
        let root = self.block(object).await?.ok_or(absent.clone())?;
        let page = match entry.page {
            Some(page) => Some(self.block(page).await?.ok_or(absent)?),
            None => None,
        };
        Ok(GroupRead { root, page, placement })
    }

    async fn block(&self, cid: Cid) -> Result<Option<Bytes>, StoreError> {
        let load = self.blocking(move |reader| reader.block(cid));
        self.shared.cache.block(cid, load).await
    }

    /// Slots of a group that are here; empty if the group is not.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub async fn held(&self, object: Cid, group: u32) -> Result<Vec<(Slot, ShardId)>, StoreError> {
        self.blocking(move |reader| {
            let catalog = reader.catalog();
            let entry = catalog.group(object, group)?;
            match entry.filter(|entry| entry.trashed_secs.is_none()) {
                Some(_) => Ok(catalog.slots(object, group)?),
                None => Ok(Vec::new()),
            }
        })
        .await
    }

    /// Slots that no holder had when the group was committed, as its writer reported.
    ///
    /// # Errors
    /// [`StoreError::GroupNotFound`].
    pub async fn missing(&self, object: Cid, group: u32) -> Result<Vec<Slot>, StoreError> {
        self.blocking(move |reader| reader.missing(object, group)).await
    }

    /// Groups that leases of an owner cover, in `(lease, object, group)` order.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub async fn leases_of(
        &self,
        owner: NodeId,
        after: Option<(LeaseId, Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<LeaseEntry>, StoreError> {
        let now = self.shared.counters.running_secs.load(Ordering::Relaxed);
        self.blocking(move |reader| {
            let covered = reader.catalog().covered_by(owner, after, limit)?;
            let entry = |group: crate::catalog::CoveredGroup| LeaseEntry {
                lease: group.lease,
                kind: group.state.kind,
                remaining: match group.state.expiry {
                    Expiry::RunningSeconds(end) => Expiry::RunningSeconds(end.saturating_sub(now)),
                    other => other,
                },
                object: group.object,
                group: group.group,
                object_bytes: group.object_bytes,
            };
            Ok(covered.into_iter().map(entry).collect())
        })
        .await
    }

    /// Groups that are held here, in order, after a cursor.
    ///
    /// # Errors
    /// When the index cannot be read. A group whose placement is damaged is left out and logged.
    pub async fn announcements(
        &self,
        after: Option<(Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<Announcement>, StoreError> {
        self.blocking(move |reader| {
            let mut announcements = Vec::new();
            for (held, _) in reader.catalog().held_groups(after, limit)? {
                let (object, group, page) = (held.object, held.group, held.page);
                match reader.placement(object, group) {
                    Ok((_, placement)) => {
                        announcements.push(Announcement { object, group, page, placement });
                    }
                    Err(error) => tracing::warn!(%object, group, %error, "cannot be announced"),
                }
            }
            Ok(announcements)
        })
        .await
    }

    /// Commits and releases from now on.
    pub fn events(&self) -> broadcast::Receiver<GroupEvent> {
        self.shared.events.subscribe()
    }

    /// Hears of every shard and block that is found damaged, by a read or by the scrub: what is
    /// lost here and has to come from elsewhere.
    pub fn damage(&self) -> broadcast::Receiver<Thing> {
        self.shared.reader.damage()
    }

    /// How far the scrub is.
    pub fn scrub_status(&self) -> ScrubStatus {
        self.shared.scrub.status()
    }

    /// Starts, pauses or resumes the scrub; says what it then does.
    pub fn scrub(&self, command: ScrubCommand) -> ScrubStatus {
        self.shared.scrub.command(command)
    }

    /// Whether the storage actor runs: false after [`Store::close`], and after it died.
    pub fn is_open(&self) -> bool {
        !self.shared.mailbox.is_closed()
    }

    /// Returns when the storage actor has ended, for whatever reason.
    pub async fn ended(&self) {
        self.shared.mailbox.closed().await;
    }

    /// Figures of what is kept; never touches the disk.
    pub fn usage(&self) -> Usage {
        *self.shared.counters.usage.lock()
    }

    /// Bytes this node offers.
    pub fn capacity_bytes(&self) -> u64 {
        self.shared.config.capacity_bytes
    }

    /// Everything countable.
    pub fn metrics(&self) -> StoreMetrics {
        let shared = &self.shared;
        let mailbox_depth = shared.mailbox.max_capacity() - shared.mailbox.capacity();
        StoreMetrics {
            capacity_bytes: shared.config.capacity_bytes,
            free_bytes: shared.reader.segments().disk().free_bytes().unwrap_or(0),
            cache_bytes: shared.cache.bytes(),
            mailbox_depth: mailbox_depth as u64,
            buffer_free_bytes: shared.buffers.free_bytes(),
            index_pending: shared.reader.overlay().pending_entries() as u64,
            quarantined: shared.reader.quarantined(),
            scrub: shared.scrub.status(),
            ..shared.counters.snapshot()
        }
    }

    /// Runs a read on a blocking thread, as one of at most `reads_max`.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.shared.reads).acquire_owned().await.map_err(|_| gone())?;
        let reader = Arc::clone(&self.shared.reader);
        let task = tokio::task::spawn_blocking(move || {
            let outcome = read(&reader);
            drop(permit);
            outcome
        });
        task.await.unwrap_or_else(|_| Err(StoreError::stopped("a read panicked")))
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

fn sink(events: broadcast::Sender<GroupEvent>, cache: Cache) -> crate::writer::EventSink {
    Box::new(move |event| match event {
        // Nobody listening is fine.
        Event::Group(event) => drop(events.send(event)),
        Event::Unwanted(thing) => cache.forget(thing),
    })
}
