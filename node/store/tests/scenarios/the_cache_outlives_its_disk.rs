// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cache on a disk that refuses, is full, or hangs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use supernode_protocol::ids::ShardId;
use supernode_store::disk::{Disk, DiskFile, RealDisk, SimDisk};
use supernode_store::evicting::{Admission, ShardCache, ShardCacheConfig};
use supernode_store::index::{Index, MemoryIndex, OpenFailure};
use supernode_store::offline::fsck;
use supernode_store::recovery::IndexSource;
use supernode_store::{Store, StoreConfig};

use super::freed_bytes_come_back::until;
use super::support::config;
use super::the_cache_makes_room::{insert, shard, small};
use crate::sample::bytes_of;

/// An index in memory, lost with the store.
pub struct NoIndex;

impl IndexSource for NoIndex {
    fn open(&self) -> Result<Arc<dyn Index>, OpenFailure> {
        Ok(Arc::new(MemoryIndex::default()))
    }

    fn discard(&self) -> io::Result<()> {
        Ok(())
    }
}

/// How a disk behaves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    Refuses(io::ErrorKind),
    Hangs,
}

/// A disk whose writes and syncs do as they are told. Reads always work.
#[derive(Clone)]
struct Moody {
    disk: Arc<dyn Disk>,
    mood: Arc<(Mutex<(Mood, u64)>, Condvar)>,
}

struct MoodyFile {
    file: Arc<dyn DiskFile>,
    disk: Moody,
}

impl Moody {
    fn new(path: &Path) -> Self {
        Self {
            disk: Arc::new(RealDisk::new(path)),
            mood: Arc::new((Mutex::new((Mood::Well, 0)), Condvar::new())),
        }
    }

    fn set(&self, mood: Mood) {
        self.mood.0.lock().0 = mood;
        self.mood.1.notify_all();
    }

    /// Writes and syncs that were asked for so far.
    fn count(&self) -> u64 {
        self.mood.0.lock().1
    }

    fn admit(&self) -> io::Result<()> {
        let mut state = self.mood.0.lock();
        state.1 += 1;
        while state.0 == Mood::Hangs {
            self.mood.1.wait(&mut state);
        }
        match state.0 {
            Mood::Refuses(kind) => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn file(&self, file: io::Result<Arc<dyn DiskFile>>) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(MoodyFile { file: file?, disk: self.clone() }))
    }

    fn open_store(&self, path: &Path) -> Store {
        Store::open_on(config(path), Arc::new(self.clone()), &NoIndex, None).expect("a new store")
    }
}

impl Disk for Moody {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.admit()?;
        self.file(self.disk.create(name))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.file(self.disk.open(name, writable))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.disk.sync_dir()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn nonce(&self) -> io::Result<u64> {
        self.disk.nonce()
    }
}

impl DiskFile for MoodyFile {
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> io::Result<()> {
        self.disk.admit()?;
        self.file.write_at(offset, parts)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_cold_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_cold_at(offset, buffer)
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
        self.disk.admit()?;
        self.file.sync_data()
    }
}

async fn offer(cache: &ShardCache, number: u64) -> Admission {
    let (id, bytes) = shard(number);
    cache.insert(id, bytes).await.expect("an answer")
}

/// Whether a shard is served; if it is, then exactly.
async fn is_served(cache: &ShardCache, number: u64) -> bool {
    let (id, bytes) = shard(number);
    let read = cache.get(id).await;
    assert!(read.as_ref().is_none_or(|read| read.bytes == bytes));
    read.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_makes_the_cache_go_on_in_memory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let disk = Moody::new(path);
    let store = disk.open_store(path);
    let memory = ShardCacheConfig { memory_bytes_max: 64 << 10, ..small() };
    let cache = ShardCache::open(store.clone(), memory).await.expect("a cache");
    insert(&cache, 0..100).await;
    let before = cache.stats();
    assert!(is_served(&cache, 99).await);

    disk.set(Mood::Refuses(io::ErrorKind::Other));
    for number in 100..105 {
        assert_eq!(offer(&cache, number).await, Admission::InMemory);
        assert!(is_served(&cache, number).await, "from memory");
    }
    let stats = cache.stats();
    assert!(stats.is_degraded);
    assert_eq!((stats.degradations, stats.refusals), (1, 5));
    assert_eq!((stats.bytes, stats.entries), (before.bytes, before.entries), "nobody is lost");
    assert!(is_served(&cache, 99).await && is_served(&cache, 98).await, "reads work");
    for number in 200..400 {
        offer(&cache, number).await;
        let bytes = cache.stats().memory_bytes;
        assert!(bytes <= 2 * memory.memory_bytes_max, "{bytes}");
    }
    until("a bound on memory", &store, |_| cache.stats().memory_bytes <= memory.memory_bytes_max)
        .await;

    disk.set(Mood::Well);
    assert_eq!(offer(&cache, 500).await, Admission::Kept, "a probe that works");
    let stats = cache.stats();
    assert_eq!((stats.is_degraded, stats.degradations), (false, 1));
    assert!(stats.bytes <= stats.bytes_max);
    assert!(!is_served(&cache, 104).await, "what was in memory only is given up");
    insert(&cache, 501..600).await;
    assert_eq!(cache.stats().bytes, store.usage().leases[1].bytes);
    store.close().await.expect("an orderly stop");
    assert!(fsck(path).expect("a check").is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refused_is_left_alone_for_a_while() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let disk = Moody::new(path);
    let store = disk.open_store(path);
    let patient = ShardCacheConfig { probe_interval_secs: 3600, ..small() };
    let cache = ShardCache::open(store.clone(), patient).await.expect("a cache");
    insert(&cache, [1]).await;
    disk.set(Mood::Refuses(io::ErrorKind::Other));
    assert_eq!(offer(&cache, 2).await, Admission::InMemory);
    let count = disk.count();
    disk.set(Mood::Well);
    assert_eq!(offer(&cache, 3).await, Admission::InMemory);
    let lie = cache.insert(shard(4).0, shard(5).1).await;
    assert!(lie.is_err(), "bytes are verified in memory as well");
    assert_eq!(disk.count(), count);
    // The next start has no grudge, and nothing but what was on disk.
    store.close().await.expect("an orderly stop");
    let store = disk.open_store(path);
    let cache = ShardCache::open(store.clone(), patient).await.expect("a cache");
    assert!(!cache.stats().is_degraded);
    assert_eq!(cache.stats().entries, 1);
    assert!(is_served(&cache, 1).await && !is_served(&cache, 3).await);
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stopped_leaves_what_is_in_memory() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let disk = Moody::new(directory.path());
    let store = disk.open_store(directory.path());
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    insert(&cache, 0..3).await;
    assert!(is_served(&cache, 1).await, "which makes it hot");
    store.close().await.expect("an orderly stop");
    assert!(is_served(&cache, 1).await);
    assert!(!is_served(&cache, 2).await);
    assert_eq!(offer(&cache, 4).await, Admission::InMemory);
    assert!(is_served(&cache, 4).await);
    assert!(cache.stats().is_degraded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_evicts_and_is_no_failure() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let disk = Moody::new(path);
    let store = disk.open_store(path);
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    insert(&cache, 0..30).await;
    let before = cache.stats();
    disk.set(Mood::Refuses(io::ErrorKind::StorageFull));
    assert_eq!(offer(&cache, 50).await, Admission::NoRoom);
    assert!(!cache.stats().is_degraded);
    assert_eq!(cache.stats().bytes, before.bytes, "the eviction found no room either");
    disk.set(Mood::Well);
    insert(&cache, [50]).await;
    store.close().await.expect("an orderly stop");
    assert!(fsck(path).expect("a check").is_clean());
}

/// The reserve of the file system is met: evicted bytes come back, and then there is room.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_down_to_its_reserve_evicts_as_much_as_it_needs() {
    let disk = SimDisk::new(1);
    let settings = StoreConfig { reserve_bytes: 1 << 20, ..config(Path::new("nowhere")) };
    let store = Store::open_on(settings, Arc::new(disk.clone()), &NoIndex, None);
    let store = store.expect("a new store");
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    insert(&cache, 0..30).await;
    disk.set_free_bytes(1 << 20);
    for _ in 0..20 {
        assert_eq!(offer(&cache, 50).await, Admission::NoRoom);
    }
    let stats = cache.stats();
    // A few each time that some can have come back.
    assert!((1..10).contains(&stats.evictions), "not all of it for one: {stats:?}");
    assert!(!stats.is_degraded);
    disk.set_free_bytes(1 << 40);
    insert(&cache, [50]).await;
    store.close().await.expect("an orderly stop");
}

/// 96 MiB for a disk that hangs, through a budget of 64 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_inserts_faster_than_the_disk_writes_waits() {
    const MIB: usize = 1 << 20;
    const BUDGET: u64 = 64 << 20;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let disk = Moody::new(path);
    let store = disk.open_store(path);
    assert_eq!(store.metrics().buffer_free_bytes, BUDGET);
    let settings = ShardCacheConfig { bytes_max: 256 << 20, ..small() };
    let cache = ShardCache::open(store.clone(), settings).await.expect("a cache");
    insert(&cache, [1, 2]).await;
    assert!(is_served(&cache, 1).await);
    disk.set(Mood::Hangs);
    let writers: Vec<_> = (0..96)
        .map(|number| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let bytes = bytes_of(10_000 + number, MIB);
                cache.insert(ShardId::of(&bytes), bytes).await
            })
        })
        .collect();
    until("a used up budget", &store, |store| store.metrics().buffer_free_bytes == 0).await;
    assert!(!writers.iter().any(|writer| writer.is_finished()), "all of them wait");
    assert!(is_served(&cache, 1).await, "from memory");
    assert!(is_served(&cache, 2).await, "from the disk");
    assert!(!is_served(&cache, 3).await);
    // Some leave; what they began is finished, and what they waited for is nobody's.
    writers[..3].iter().chain(&writers[93..]).for_each(|writer| writer.abort());
    disk.set(Mood::Well);
    let mut left = 0;
    for writer in writers {
        match writer.await {
            Ok(admission) => assert_eq!(admission.expect("a sound disk"), Admission::Kept),
            Err(error) => left += u32::from(error.is_cancelled()),
        }
    }
    assert_eq!(left, 6);
    // Those who left had begun, or not.
    until("all accounted for", &store, |store| {
        let is_idle = store.metrics().buffer_free_bytes == BUDGET;
        is_idle && cache.stats().bytes == store.usage().leases[1].bytes
    })
    .await;
    let stats = cache.stats();
    assert!(stats.bytes >= 90 << 20 && !stats.is_degraded);
    store.close().await.expect("an orderly stop");
}
