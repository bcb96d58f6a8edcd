// SPDX-License-Identifier: MIT OR Apache-2.0
//! One directory of a store: its own lock, log, index, actor and scrub, and nothing of any other.
//!
//! - Puts, commits and lease changes go through the actor's mailbox.
//! - Reads go beside it, on blocking threads whose number `reads_max` bounds.
//! - A lane that was taken **offline** answers [`StoreError::Offline`] at once, also to those who
//!   wait for its disk already. It does not come back before the next start.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use supernode_protocol::ids::{Cid, LeaseId, NodeId, ShardId, Slot, UploadId};
use supernode_protocol::lease::Expiry;
use supernode_protocol::placement::PlacementRecord;
use supernode_protocol::signed::Signed;
use supernode_protocol::wire::{ByteRange, LeaseEntry};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::sleep;

use super::cache::Cache;
use super::{Announcement, INDEX_DIRECTORY, gone};
use crate::actor::{Actor, Message};
use crate::catalog::{
    CachedShard, CoveredGroup, Event, GroupEvent, HeldGroup, State, Thing, Usage,
};
use crate::config::StoreConfig;
use crate::disk::{self, DirectoryLock, Disk};
use crate::error::StoreError;
use crate::index::SledOptions;
use crate::metrics::{Counters, MeteredDisk, StoreMetrics, bump};
use crate::reader::{Opened, Reader, Shard, ShardTree, Way};
use crate::record::Position;
use crate::recovery::{IndexSource, Recovery, SledSource};
use crate::scrub::{Scrub, ScrubCommand, ScrubConfig, ScrubStatus};
use crate::writer::{Done, Op, Writer, WriterParts};

mod commit;
mod deals;
mod facts;
mod moving;

pub(crate) use self::commit::{Part, in_use};
pub(crate) use self::facts::check_placement;
pub(crate) use self::moving::{MovingGroup, TermsLeft};

/// A disk that does nothing for so long while the store stops is not waited for.
const CLOSE_PATIENCE: Duration = Duration::from_secs(15);

/// See the module.
pub(crate) struct Lane {
    /// Names it in the choice of a lane, whatever the order and the paths of the others.
    id: u64,
    path: PathBuf,
    config: StoreConfig,
    mailbox: mpsc::Sender<Message>,
    reader: Arc<Reader>,
    /// Bounds disk reads; closed with the lane.
    reads: Arc<Semaphore>,
    counters: Arc<Counters>,
    scrub: Scrub,
    /// Why it is offline, once it is.
    offline: watch::Sender<Option<String>>,
    /// It takes no new records: what it has is moved to other lanes.
    is_draining: AtomicBool,
}

/// What all lanes of a store tell and forget.
#[derive(Clone)]
pub(crate) struct Company {
    pub(crate) events: broadcast::Sender<GroupEvent>,
    pub(crate) damage: broadcast::Sender<Thing>,
    pub(crate) cache: Cache,
    /// No lease ends as long as it is set.
    pub(crate) holds_ends: Arc<AtomicBool>,
}

/// What a lane knows that decides where a shard or block is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outlook {
    /// Whose the upload is, if it is open here.
    pub(crate) owner: Option<NodeId>,
    /// Whether the upload has something in this very slot here.
    pub(crate) holds_slot: bool,
    /// Whether the upload has slots of the same group here.
    pub(crate) holds_group: bool,
    /// Where whole bytes of the thing are: adopting them needs no second look.
    pub(crate) seen_at: Option<Position>,
    /// Whether they count as used already.
    pub(crate) is_counted: bool,
}

impl Lane {
    /// Opens (or begins) the lane in a directory and brings it up to date. Blocks.
    pub(crate) fn open(
        id: u64,
        config: StoreConfig,
        company: Company,
        lock: DirectoryLock,
    ) -> Result<Self, StoreError> {
        let path = config.path.clone();
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
        Self::open_on(id, config, company, Arc::new(disk), &index, Some(lock))
    }

    /// Opens a lane on any disk, with any index.
    pub(crate) fn open_on(
        id: u64,
        config: StoreConfig,
        company: Company,
        disk: Arc<dyn Disk>,
        index: &dyn IndexSource,
        lock: Option<DirectoryLock>,
    ) -> Result<Self, StoreError> {
        let holds_ends = Arc::clone(&company.holds_ends);
        let counters = Arc::new(Counters::holding(holds_ends));
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
        let Company { events, damage, cache, .. } = company;
        let reader = Reader::new(segments, Arc::clone(&overlay), Arc::clone(&counters));
        let reader = Arc::new(reader.telling(damage));
        let writer = Writer::new(
            WriterParts {
                config: config.clone(),
                reader: Arc::clone(&reader),
                counters: Arc::clone(&counters),
                on_event: sink(events, cache),
            },
            &recovered,
        )?;
        // The writer asks again every second; without an answer the first write will tell.
        let _ = reader.segments().disk().free_bytes();
        // A simulated disk has no directory, and nobody locks it.
        let directory = lock.as_ref().map(|_| config.path.clone());
        let (mailbox, receiver) = mpsc::channel(config.mailbox_messages_max);
        Actor { writer, mailbox: receiver, overlay, config: config.clone(), lock }.spawn()?;
        let reads = Arc::new(Semaphore::new(config.reads_max));
        let pace = ScrubConfig {
            interval_secs: config.scrub_interval_secs,
            bytes_per_sec: config.scrub_bytes_per_sec,
        };
        let (scrubbed, counted) = (Arc::clone(&reader), Arc::clone(&counters));
        let scrub = Scrub::spawn(scrubbed, counted, pace, directory)?;
        let (offline, _) = watch::channel(None);
        let path = config.path.clone();
        let is_draining = AtomicBool::new(false);
        Ok(Self { id, path, config, mailbox, reader, reads, counters, scrub, offline, is_draining })
    }

    /// Stops: writes what waits, marks the log as orderly ended, frees the directory.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<(), StoreError> {
        let lane = Arc::clone(self);
        let scrub_ended = tokio::task::spawn_blocking(move || lane.scrub.close()).await;
        scrub_ended.map_err(|_| StoreError::stopped("its scrub panicked"))?;
        let all = u32::try_from(self.config.reads_max).unwrap_or(u32::MAX);
        // Once all reads are back none begins any more, and nobody holds the index's files.
        if let Ok(permits) = self.reads.acquire_many(all).await {
            self.reads.close();
            drop(permits);
        }
        let (reply, closed) = oneshot::channel();
        let sent = self.mailbox.send(Message::Close(reply)).await;
        sent.map_err(|_| StoreError::stopped("it is closed already"))?;
        closed.await.unwrap_or_else(|_| Err(gone()))
    }

    /// As [`Self::close`], unless the disk does not do anything for too long: then the lane goes
    /// offline, and its next start has to replay more.
    pub(crate) async fn try_close(self: &Arc<Self>) -> Result<(), StoreError> {
        let stuck = async {
            let mut answers = self.counters.answers();
            loop {
                sleep(CLOSE_PATIENCE).await;
                let before = std::mem::replace(&mut answers, self.counters.answers());
                if before == answers {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            closed = self.close() => closed,
            () = stuck => {
                self.take_offline("it does not answer while the store stops");
                Err(self.offline_error())
            }
        }
    }

    // --- being there -----------------------------------------------------------------------

    /// Names it among the lanes.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The same, for people and programs outside.
    pub(crate) fn name(&self) -> String {
        format!("{:016x}", self.id)
    }

    /// Its directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its records can be reached, as far as is known.
    pub(crate) fn is_online(&self) -> bool {
        self.offline.borrow().is_none()
    }

    /// Why it is offline, if it is.
    pub(crate) fn offline_reason(&self) -> Option<String> {
        self.offline.borrow().clone()
    }

    /// The answer of a lane whose records cannot be reached.
    pub(crate) fn offline_error(&self) -> StoreError {
        StoreError::Offline { path: self.path.clone() }
    }

    /// What speaks against it: its actor has ended, or its disk fails.
    pub(crate) fn ailment(&self) -> Option<String> {
        if self.mailbox.is_closed() {
            return Some("its storage actor has ended".to_owned());
        }
        self.counters.ailment()
    }

    /// For how long its writer is held up, if that is far too long.
    pub(crate) fn long_silence(&self) -> Option<Duration> {
        self.counters.long_silence()
    }

    /// How often its writer came by, which it does every second.
    pub(crate) fn looks(&self) -> u64 {
        self.counters.looks()
    }

    /// Whether it takes no new records.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Says whether it takes new records.
    pub(crate) fn set_draining(&self, is_draining: bool) {
        self.is_draining.store(is_draining, Ordering::Relaxed);
    }

    /// Whether its writer is held up, as by a disk that hangs.
    pub(crate) fn hangs(&self) -> bool {
        self.counters.hangs()
    }

    /// Takes it offline: says no to everybody, and ends what it runs as far as its disk lets it.
    pub(crate) fn take_offline(&self, reason: &str) {
        let is_new = self.offline.send_if_modified(|offline| {
            let is_new = offline.is_none();
            offline.get_or_insert_with(|| reason.to_owned());
            is_new
        });
        if !is_new {
            return;
        }
        let disk = self.path.display();
        tracing::error!(
            %disk, reason,
            "a disk is OFFLINE: its records cannot be reached; mend it and start the node again"
        );
        self.scrub.ask_to_close();
        let (reply, _) = oneshot::channel();
        // A full mailbox belongs to a disk that hangs, whose actor would not hear of it either.
        let _ = self.mailbox.try_send(Message::Close(reply));
    }

    /// Whether the storage actor runs.
    pub(crate) fn is_open(&self) -> bool {
        !self.mailbox.is_closed()
    }

    /// Returns when the storage actor has ended, for whatever reason.
    pub(crate) async fn ended(&self) {
        self.mailbox.closed().await;
    }

    /// Runs something that needs the disk, until the lane goes offline.
    async fn while_online<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut offline = self.offline.subscribe();
        tokio::select! {
            biased;
            _ = offline.wait_for(Option::is_some) => Err(self.offline_error()),
            outcome = work => outcome,
        }
    }

    // --- writing ---------------------------------------------------------------------------

    /// Has the writer do something, and waits until it is what its answer promises.
    pub(crate) async fn perform(&self, op: Op) -> Result<Done, StoreError> {
        self.while_online(async {
            let (send, receive) = oneshot::channel();
            let answer = Box::new(move |outcome| {
                // A caller that left does not want to know.
                let _ = send.send(outcome);
            });
            self.mailbox.send(Message::Op(op, answer)).await.map_err(|_| gone())?;
            receive.await.unwrap_or_else(|_| Err(gone()))
        })
        .await
    }

    /// What is to be known before something is put under an upload. Blocks are in no slot. A lane
    /// that is drained adopts nothing, and does not look for it.
    pub(crate) async fn outlook(
        &self,
        upload: UploadId,
        slot: Option<Slot>,
        thing: Thing,
    ) -> Result<Outlook, StoreError> {
        let is_draining = self.is_draining();
        self.blocking(move |reader| {
            let catalog = reader.catalog();
            let kept = if is_draining { None } else { catalog.kept(thing)? };
            let seen = kept.filter(|kept| reader.verify(thing, kept).is_ok());
            let owner = catalog.upload(upload)?.map(|entry| entry.owner);
            let (holds_slot, holds_group) = match slot {
                None => (false, owner.is_some()),
                Some(slot) => {
                    let window = super::choice::window(slot);
                    let slots = catalog.upload_slots(upload, window.start, window.len)?;
                    (slots.iter().any(|(at, _)| *at == slot), !slots.is_empty())
                }
            };
            let is_counted = seen.is_some_and(|kept| kept.state() != State::Dead);
            let seen_at = seen.map(|kept| kept.at);
            Ok(Outlook { owner, holds_slot, holds_group, seen_at, is_counted })
        })
        .await
    }

    /// Where whole bytes of a thing are, if they are here: adopting them needs no second look.
    pub(crate) async fn seen(&self, thing: Thing) -> Result<Option<Position>, StoreError> {
        self.blocking(move |reader| {
            let kept = reader.catalog().kept(thing)?;
            Ok(kept.filter(|kept| reader.verify(thing, kept).is_ok()).map(|kept| kept.at))
        })
        .await
    }

    // --- reading ---------------------------------------------------------------------------

    /// As [`Reader::shard`].
    pub(crate) async fn shard(&self, shard: ShardId, way: Way) -> Result<Shard, StoreError> {
        self.blocking(move |reader| reader.shard(shard, way)).await
    }

    /// As [`Reader::open_shard`].
    pub(crate) async fn open_shard(
        &self,
        shard: ShardId,
        whole_max: u64,
        way: Way,
    ) -> Result<Opened, StoreError> {
        self.blocking(move |reader| reader.open_shard(shard, whole_max, way)).await
    }

    /// As [`Reader::shard_piece`].
    pub(crate) async fn shard_piece(
        &self,
        tree: ShardTree,
        range: ByteRange,
    ) -> Result<Bytes, StoreError> {
        self.blocking(move |reader| reader.shard_piece(&tree, range)).await
    }

    pub(crate) async fn has_shard(&self, shard: ShardId) -> Result<bool, StoreError> {
        self.blocking(move |reader| match reader.live_shard(shard) {
            Ok(_) => Ok(true),
            Err(StoreError::ShardNotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }

    /// A group's page and its newest placement here.
    pub(crate) async fn group(
        &self,
        object: Cid,
        group: u32,
    ) -> Result<(Option<Cid>, Signed<PlacementRecord>), StoreError> {
        self.blocking(move |reader| match reader.placement(object, group)? {
            (entry, placement) if entry.trashed_secs.is_none() => Ok((entry.page, placement)),
            _ => Err(StoreError::GroupNotFound { object, group }),
        })
        .await
    }

    /// Whether a group is kept here.
    pub(crate) async fn has_group(&self, object: Cid, group: u32) -> Result<bool, StoreError> {
        self.blocking(move |reader| {
            let entry = reader.catalog().group(object, group)?;
            Ok(entry.is_some_and(|entry| entry.trashed_secs.is_none()))
        })
        .await
    }

    /// Cached shards of a node among the next `limit` uploads after one, and the last of these.
    pub(crate) async fn cached(
        &self,
        node: NodeId,
        after: Option<UploadId>,
        limit: usize,
    ) -> Result<(Vec<CachedShard>, Option<UploadId>), StoreError> {
        self.blocking(move |reader| Ok(reader.catalog().cached(node, after, limit)?)).await
    }

    pub(crate) async fn block(&self, cid: Cid) -> Result<Option<Bytes>, StoreError> {
        self.blocking(move |reader| reader.block(cid)).await
    }

    pub(crate) async fn held(
        &self,
        object: Cid,
        group: u32,
    ) -> Result<Option<Vec<(Slot, ShardId)>>, StoreError> {
        self.blocking(move |reader| {
            let catalog = reader.catalog();
            let entry = catalog.group(object, group)?;
            match entry.filter(|entry| entry.trashed_secs.is_none()) {
                Some(_) => Ok(Some(catalog.slots(object, group)?)),
                None => Ok(None),
            }
        })
        .await
    }

    pub(crate) async fn missing(&self, object: Cid, group: u32) -> Result<Vec<Slot>, StoreError> {
        self.blocking(move |reader| reader.missing(object, group)).await
    }

    pub(crate) async fn leases_of(
        &self,
        owner: NodeId,
        after: Option<(LeaseId, Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<LeaseEntry>, StoreError> {
        let now = self.counters.running_secs.load(Ordering::Relaxed);
        self.blocking(move |reader| {
            let covered = reader.catalog().covered_by(owner, after, limit)?;
            let entry = |group: CoveredGroup| LeaseEntry {
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

    /// Groups that are held here, in order, after a cursor; fewer than `limit` only at the end.
    pub(crate) async fn announcements(
        &self,
        after: Option<(Cid, u32)>,
        limit: usize,
    ) -> Result<Vec<Announcement>, StoreError> {
        self.blocking(move |reader| {
            let (mut announcements, mut after) = (Vec::new(), after);
            while announcements.len() < limit {
                let wanted = limit - announcements.len();
                let held = reader.catalog().held_groups(after, wanted)?;
                let Some((last, _)) = held.last() else { break };
                after = Some((last.object, last.group));
                for (HeldGroup { object, group, page }, _) in held {
                    match reader.placement(object, group) {
                        Ok((_, placement)) => {
                            announcements.push(Announcement { object, group, page, placement });
                        }
                        Err(error) => tracing::warn!(%object, group, %error, "cannot be announced"),
                    }
                }
            }
            Ok(announcements)
        })
        .await
    }

    pub(crate) fn scrub_status(&self) -> ScrubStatus {
        self.scrub.status()
    }

    pub(crate) fn scrub(&self, command: ScrubCommand) -> ScrubStatus {
        self.scrub.command(command)
    }

    pub(crate) fn usage(&self) -> Usage {
        *self.counters.usage.lock()
    }

    /// Bytes offered here; while it is drained, what it still has.
    pub(crate) fn capacity_bytes(&self) -> u64 {
        let capacity = self.config.capacity_bytes;
        if self.is_draining() { capacity.min(self.used_bytes()) } else { capacity }
    }

    /// Bytes of the offered capacity that are used.
    pub(crate) fn used_bytes(&self) -> u64 {
        let usage = self.usage();
        usage.bytes(State::Live) + usage.bytes(State::Trash)
    }

    /// Bytes that may still be put here.
    pub(crate) fn free_bytes(&self) -> u64 {
        let on_disk = self.free_on_disk_bytes().saturating_sub(self.config.reserve_bytes);
        self.config.capacity_bytes.saturating_sub(self.used_bytes()).min(on_disk)
    }

    /// Free bytes of its file system when the writer last looked.
    pub(crate) fn free_on_disk_bytes(&self) -> u64 {
        self.counters.free_bytes()
    }

    /// Everything countable here; what the lanes share is filled in by the caller.
    pub(crate) fn metrics(&self) -> StoreMetrics {
        let mailbox_depth = self.mailbox.max_capacity() - self.mailbox.capacity();
        StoreMetrics {
            capacity_bytes: self.capacity_bytes(),
            free_bytes: self.free_on_disk_bytes(),
            mailbox_depth: mailbox_depth as u64,
            index_pending: self.reader.overlay().pending_entries() as u64,
            quarantined: self.reader.quarantined(),
            scrub: self.scrub.status(),
            ..self.counters.snapshot()
        }
    }

    /// Runs a read on a blocking thread, as one of at most `reads_max`.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.while_online(async {
            let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(|_| gone())?;
            let reader = Arc::clone(&self.reader);
            let task = tokio::task::spawn_blocking(move || {
                let outcome = read(&reader);
                drop(permit);
                outcome
            });
            task.await.unwrap_or_else(|_| Err(StoreError::stopped("a read panicked")))
        })
        .await
    }
}

/// Makes a directory that only this user reads, if it is not there.
pub(crate) fn make_directory(path: &Path) -> Result<(), StoreError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| StoreError::io(format!("create {}", path.display()), error))
}

fn sink(events: broadcast::Sender<GroupEvent>, cache: Cache) -> crate::writer::EventSink {
    Box::new(move |event| match event {
        // Nobody listening is fine.
        Event::Group(event) => drop(events.send(event)),
        Event::Unwanted(thing) => cache.forget(thing),
    })
}
