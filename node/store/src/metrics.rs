// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of a running store. Counters are atomics that anybody may bump; [`StoreMetrics`] is a
//! plain snapshot, so this crate knows no metrics library.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use supernode_protocol::limits::SHARD_BYTES_MAX;

use crate::catalog::Usage;
use crate::disk::{Disk, DiskFile};
use crate::scrub::ScrubStatus;

/// Failures in a row, weighed, after which a disk counts as dead.
const FAILURES_MAX: u32 = 64;
/// A read may fail because of one bad spot, which anybody may ask for again and again: each spot
/// is weighed once.
const READ_FAILURE: u32 = 1;
/// What one spot is in a file: a record is in two of them at most.
const SPOT_BYTES: u64 = SHARD_BYTES_MAX;
/// A write that fails is made again elsewhere on the disk.
const WRITE_FAILURE: u32 = 12;
/// The system says that there is no disk any more.
const GONE_FAILURE: u32 = 16;
/// A disk whose actor does nothing for so long hangs; it looks at the free space every second.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// New records go elsewhere long before.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Bytes and operations of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IoFigures {
    /// Operations.
    pub ios: u64,
    /// Bytes.
    pub bytes: u64,
    /// Operations that failed.
    pub errors: u64,
}

/// A snapshot of everything countable.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StoreMetrics {
    /// What is kept, by state and lease kind.
    pub usage: Usage,
    /// Bytes this node offers.
    pub capacity_bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// Reads from disk.
    pub read: IoFigures,
    /// Writes to disk.
    pub write: IoFigures,
    /// Syncs.
    pub sync: IoFigures,
    /// Reads answered from memory.
    pub cache_hits: u64,
    /// Reads that had to load.
    pub cache_misses: u64,
    /// Entries that made room for others.
    pub cache_evictions: u64,
    /// Bytes in the cache.
    pub cache_bytes: u64,
    /// Operations that wait for the writer.
    pub mailbox_depth: u64,
    /// Buffer bytes not handed out.
    pub buffer_free_bytes: u64,
    /// Batches written.
    pub batches: u64,
    /// Records in them.
    pub batch_records: u64,
    /// Bytes in them.
    pub batch_bytes: u64,
    /// Index rebuilds by reason.
    pub index_rebuilds: BTreeMap<&'static str, u64>,
    /// Entries that wait for the index.
    pub index_pending: u64,
    /// Shards and blocks that were found damaged since the start.
    pub damaged: u64,
    /// Shards and blocks that are not served because they are damaged.
    pub quarantined: u64,
    /// The scrub.
    pub scrub: ScrubStatus,
    /// Payload bytes given back to the file system since the start.
    pub reclaimed_bytes: u64,
    /// Segment files removed since the start.
    pub reclaimed_segments: u64,
    /// Bytes of shards and blocks that compaction copied.
    pub compacted_bytes: u64,
    /// Ranges of the log that could not be read at the start.
    pub damaged_ranges: u64,
    /// The node's running time.
    pub running_secs: u64,
    /// Each disk by itself; the figures above are sums over those that are online.
    pub disks: Vec<DiskMetrics>,
}

/// One disk of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMetrics {
    /// What it is called, wherever it is mounted; empty for one that could not be opened.
    pub id: String,
    /// Its directory.
    pub path: PathBuf,
    /// Why its records cannot be reached, if they cannot.
    pub offline: Option<String>,
    /// Bytes offered of it.
    pub capacity_bytes: u64,
    /// Bytes of shards and manifests on it that count as used.
    pub used_bytes: u64,
    /// Free bytes of its file system.
    pub free_bytes: u64,
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    read: IoCounters,
    write: IoCounters,
    sync: IoCounters,
    pub(crate) cache_hits: AtomicU64,
    pub(crate) cache_misses: AtomicU64,
    pub(crate) cache_evictions: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) batch_records: AtomicU64,
    pub(crate) batch_bytes: AtomicU64,
    pub(crate) damaged: AtomicU64,
    pub(crate) damaged_ranges: AtomicU64,
    pub(crate) reclaimed_bytes: AtomicU64,
    pub(crate) reclaimed_segments: AtomicU64,
    pub(crate) compacted_bytes: AtomicU64,
    pub(crate) running_secs: AtomicU64,
    /// Leases do not end yet: their ends on other disks are being looked at.
    pub(crate) holds_ends: Arc<AtomicBool>,
    pub(crate) usage: Mutex<Usage>,
    pub(crate) index_rebuilds: Mutex<BTreeMap<&'static str, u64>>,
    free_bytes: AtomicU64,
    /// What the last sync of a file took.
    sync_micros: AtomicU64,
    /// When somebody last looked at the free space.
    looked_at: Mutex<Option<Instant>>,
    /// How often somebody did.
    looks: AtomicU64,
}

#[derive(Debug, Default)]
struct IoCounters {
    ios: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    /// What failed since the last success, weighed.
    streak: AtomicU32,
    /// Where reads failed since then.
    spots: Mutex<BTreeSet<(Arc<str>, u64)>>,
}

pub(crate) fn bump(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl IoCounters {
    fn count<T>(&self, bytes: usize, weight: u32, outcome: io::Result<T>) -> io::Result<T> {
        bump(&self.ios, 1);
        match &outcome {
            Ok(_) => {
                bump(&self.bytes, bytes as u64);
                if self.streak.swap(0, Ordering::Relaxed) > 0 {
                    self.spots.lock().clear();
                }
            }
            Err(_) => bump(&self.errors, 1),
        }
        self.note(weight, outcome)
    }

    /// Weighs a failure that speaks against the disk.
    fn note<T>(&self, weight: u32, outcome: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &outcome {
            let weight = weight_of(error, weight);
            let add = |streak: u32| Some(streak.saturating_add(weight));
            let _ = self.streak.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
        outcome
    }

    /// How much a failed read weighs; nothing if one has failed there already.
    fn weigh_read<T>(&self, name: &Arc<str>, offset: u64, outcome: &io::Result<T>) -> u32 {
        if outcome.is_ok() {
            return 0;
        }
        let mut spots = self.spots.lock();
        let is_new = spots.insert((Arc::clone(name), offset / SPOT_BYTES));
        if is_new { READ_FAILURE } else { 0 }
    }

    fn is_dead(&self) -> bool {
        self.streak.load(Ordering::Relaxed) >= FAILURES_MAX
    }

    fn figures(&self) -> IoFigures {
        IoFigures { ios: load(&self.ios), bytes: load(&self.bytes), errors: load(&self.errors) }
    }
}

/// How much a failure speaks against the disk: nothing where it is full or asked amiss.
fn weight_of(error: &io::Error, weight: u32) -> u32 {
    use io::ErrorKind::{
        AlreadyExists, Interrupted, InvalidInput, QuotaExceeded, StorageFull, Unsupported,
    };
    if let Some(code) = error.raw_os_error().map(Errno::from_raw_os_error)
        && [Errno::NODEV, Errno::NXIO, Errno::STALE, Errno::ROFS, Errno::NOTCONN].contains(&code)
    {
        return GONE_FAILURE;
    }
    match error.kind() {
        StorageFull | QuotaExceeded | Interrupted | InvalidInput | Unsupported | AlreadyExists => 0,
        _ => weight,
    }
}

impl Counters {
    /// Counters of a lane that ends no lease as long as this is set.
    pub(crate) fn holding(holds_ends: Arc<AtomicBool>) -> Self {
        Self { holds_ends, ..Self::default() }
    }

    /// Keeps what somebody has just learned of the free space.
    pub(crate) fn look_at_space(&self, free_bytes: io::Result<u64>) -> io::Result<u64> {
        *self.looked_at.lock() = Some(Instant::now());
        bump(&self.looks, 1);
        if let Ok(bytes) = &free_bytes {
            self.free_bytes.store(*bytes, Ordering::Relaxed);
        }
        free_bytes
    }

    /// Free bytes of the file system when last asked; the disk may hang by now.
    pub(crate) fn free_bytes(&self) -> u64 {
        load(&self.free_bytes)
    }

    /// What its failures say, if the disk is as good as dead.
    pub(crate) fn ailment(&self) -> Option<String> {
        let kinds = [("reads", &self.read), ("writes", &self.write), ("syncs", &self.sync)];
        let (what, _) = kinds.into_iter().find(|(_, io)| io.is_dead())?;
        Some(format!("its {what} fail one after the other"))
    }

    /// For how long it does not answer, if that is far too long: it hangs, or everything did.
    pub(crate) fn long_silence(&self) -> Option<Duration> {
        Some(self.silence()).filter(|silence| *silence > SILENCE_MAX)
    }

    /// What the last sync of a file took; nothing before the first.
    pub(crate) fn sync_took(&self) -> Duration {
        Duration::from_micros(load(&self.sync_micros))
    }

    /// How often its writer came by.
    pub(crate) fn looks(&self) -> u64 {
        load(&self.looks)
    }

    /// Operations that have ended; they grow as long as the disk answers.
    pub(crate) fn answers(&self) -> u64 {
        let kinds = [&self.read, &self.write, &self.sync];
        kinds.into_iter().map(|io| load(&io.ios)).sum::<u64>() + self.looks()
    }

    /// Whether the writer has not got round to anything for a while.
    pub(crate) fn hangs(&self) -> bool {
        self.silence() > PAUSE_MAX
    }

    fn silence(&self) -> Duration {
        self.looked_at.lock().map_or(Duration::ZERO, |at| at.elapsed())
    }

    pub(crate) fn count_rebuild(&self, reason: &'static str) {
        *self.index_rebuilds.lock().entry(reason).or_default() += 1;
    }

    /// The counters; what others own is filled in by the caller.
    pub(crate) fn snapshot(&self) -> StoreMetrics {
        StoreMetrics {
            usage: *self.usage.lock(),
            read: self.read.figures(),
            write: self.write.figures(),
            sync: self.sync.figures(),
            cache_hits: load(&self.cache_hits),
            cache_misses: load(&self.cache_misses),
            cache_evictions: load(&self.cache_evictions),
            batches: load(&self.batches),
            batch_records: load(&self.batch_records),
            batch_bytes: load(&self.batch_bytes),
            damaged: load(&self.damaged),
            damaged_ranges: load(&self.damaged_ranges),
            reclaimed_bytes: load(&self.reclaimed_bytes),
            reclaimed_segments: load(&self.reclaimed_segments),
            compacted_bytes: load(&self.compacted_bytes),
            running_secs: load(&self.running_secs),
            index_rebuilds: self.index_rebuilds.lock().clone(),
            ..StoreMetrics::default()
        }
    }
}

/// A disk whose operations are counted.
pub(crate) struct MeteredDisk {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) counters: Arc<Counters>,
}

struct MeteredFile {
    name: Arc<str>,
    file: Arc<dyn DiskFile>,
    counters: Arc<Counters>,
}

impl MeteredDisk {
    fn metered(&self, name: Arc<str>, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(MeteredFile { name, file, counters: Arc::clone(&self.counters) })
    }
}

impl Disk for MeteredDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.counters.write.note(WRITE_FAILURE, self.disk.create(name))?;
        Ok(self.metered(name.into(), file))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        let (counters, name) = (&self.counters.read, Arc::from(name));
        let outcome = self.disk.open(&name, writable);
        let weight = counters.weigh_read(&name, 0, &outcome);
        let file = counters.note(weight, outcome)?;
        Ok(self.metered(name, file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.counters.sync.count(0, WRITE_FAILURE, self.disk.sync_dir())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.counters.look_at_space(self.disk.free_bytes())
    }

    fn nonce(&self) -> io::Result<u64> {
        self.disk.nonce()
    }
}

impl MeteredFile {
    fn count_read(&self, offset: u64, outcome: io::Result<usize>) -> io::Result<usize> {
        let bytes = outcome.as_ref().copied().unwrap_or(0);
        let weight = self.counters.read.weigh_read(&self.name, offset, &outcome);
        self.counters.read.count(bytes, weight, outcome)
    }
}

impl DiskFile for MeteredFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        self.counters.write.count(bytes, WRITE_FAILURE, self.file.write_at(offset, parts))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.count_read(offset, self.file.read_at(offset, buffer))
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_cold_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.count_read(offset, self.file.read_cold_at(offset, buffer))
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.reserve(offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.punch(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let started = Instant::now();
        self.counters.sync.count(0, WRITE_FAILURE, self.file.sync_data())?;
        let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.sync_micros.store(micros, Ordering::Relaxed);
        Ok(())
    }
}
