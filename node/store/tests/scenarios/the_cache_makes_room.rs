// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cache in a store keeps its bound, remembers over restarts and crashes what it evicted, and
//! neither takes nor keeps anything from what is leased.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use supernode_protocol::ids::{LeaseId, ShardId, Slot, UploadId};
use supernode_protocol::wire::ByteRange;
use supernode_store::catalog::cached_upload;
use supernode_store::evicting::{Admission, ShardCache, ShardCacheConfig};
use supernode_store::offline::{Source, dump_map, fsck};
use supernode_store::{Store, StoreConfig, StoreError};

use super::damage_is_never_served::rot;
use super::freed_bytes_come_back::until;
use super::support::{assert_readable, config, node, open, put, put_shard};
use crate::sample::{Client, Recipe, Terms, bytes_of, object};

const KIB: usize = 1 << 10;

/// A cache of 256 KiB, so of shards up to 16 KiB.
pub fn small() -> ShardCacheConfig {
    ShardCacheConfig { bytes_max: 256 << 10, probe_interval_secs: 0, ..ShardCacheConfig::default() }
}

/// A shard of a few KiB that follows from its number.
pub fn shard(number: u64) -> (ShardId, Bytes) {
    let bytes = bytes_of(number, KIB + usize::try_from(number % 7).expect("small") * 2 * KIB);
    (ShardId::of(&bytes), bytes)
}

/// Puts shards into the cache, one after the other.
pub async fn insert(cache: &ShardCache, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let (id, bytes) = shard(number);
        assert_eq!(cache.insert(id, bytes).await.expect("a sound disk"), Admission::Kept);
    }
}

/// Which of the shards are there; those that are must be exact.
async fn present(cache: &ShardCache, numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut found = Vec::new();
    for number in numbers {
        let (id, bytes) = shard(number);
        if let Some(read) = cache.get(id).await {
            assert_eq!(read.bytes, bytes);
            found.push(number);
        }
    }
    found
}

fn slot() -> Slot {
    Slot { stripe: 0, index: 0 }
}

/// What the store counts for open uploads, all of which are the cache's in these tests.
fn cached_bytes(store: &Store) -> u64 {
    store.usage().leases[1].bytes
}

/// Closes a store and checks its directory from outside.
async fn close(store: &Store, path: &Path) {
    store.close().await.expect("an orderly stop");
    assert!(fsck(path).expect("a check").is_clean());
    let log = dump_map(path, Source::Log, true).expect("at rest");
    assert_eq!(log, dump_map(path, Source::Index, true).expect("at rest"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_bound_is_kept_whoever_comes_at_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    let bytes_max = small().bytes_max;
    let tasks: Vec<_> = (0..8_u64)
        .map(|task| {
            let (store, cache) = (store.clone(), cache.clone());
            tokio::spawn(async move {
                for round in 0..60 {
                    // Two tasks each offer the same, and all read what others offer.
                    let (id, bytes) = shard(task / 2 * 1000 + round);
                    let admission = cache.insert(id, bytes).await.expect("a sound disk");
                    assert!(matches!(admission, Admission::Kept | Admission::Known));
                    assert!(cached_bytes(&store) <= bytes_max, "{}", cached_bytes(&store));
                    assert!(cache.stats().bytes <= bytes_max);
                    present(&cache, [task * 100 + round, round]).await;
                    if round % 16 == 0 {
                        cache.remove(id).await.expect("a sound disk");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("within bounds");
    }
    let stats = cache.stats();
    assert_eq!((stats.bytes, stats.refusals), (cached_bytes(&store), 0));
    assert!(stats.bytes > bytes_max / 2 && stats.evictions > 20, "{stats:?}");
    assert_eq!(stats.entries, store.usage().leases[1].count);
    close(&store, directory.path()).await;
}

#[tokio::test]
async fn entries_are_bounded_and_what_is_too_large_is_told() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let settings = ShardCacheConfig { entries_max: 3, ..small() };
    let cache = ShardCache::open(store.clone(), settings).await.expect("a cache");
    insert(&cache, 0..8).await;
    assert_eq!((cache.stats().entries, cache.stats().evictions), (3, 5));
    let large = bytes_of(1, 16 * KIB + 1);
    let admission = cache.insert(ShardId::of(&large), large).await.expect("an answer");
    assert_eq!(admission, Admission::TooLarge { bytes_max: 16 << 10 });
    let (id, _) = shard(9);
    let lie = cache.insert(id, bytes_of(10, KIB)).await;
    assert!(matches!(lie, Err(StoreError::BodyMismatch { .. })), "{lie:?}");
    assert_eq!(cache.stats().entries, 3, "nobody is evicted for a lie");
    let second = ShardCache::open(store.clone(), small()).await;
    assert!(matches!(second, Err(StoreError::Config { .. })), "one cache a store");
    let (id, bytes) = shard(7);
    let range = ByteRange { offset: 10, len: 20 };
    let part = cache.range(id, range).await.expect("a good range").expect("it is here");
    assert_eq!(part.bytes, bytes, "widened to a group");
    let beyond = cache.range(id, ByteRange { offset: 1 << 20, len: 1 }).await;
    assert!(matches!(beyond, Err(StoreError::BadRange { .. })), "{beyond:?}");
    assert!(cache.remove(id).await.expect("a sound disk"));
    assert!(!cache.remove(id).await.expect("a sound disk"));
    assert!(cache.get(id).await.is_none());
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.refusals), (1, 1, 1));
    close(&store, directory.path()).await;
}

#[tokio::test]
async fn a_peer_that_squats_on_an_id_keeps_one_shard_out() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    let (id, bytes) = shard(1);
    let peer = Client::new(1);
    let refused = put_shard(&store, &peer, cached_upload(id), slot(), &bytes).await;
    assert!(matches!(refused, Err(StoreError::NotOwner { .. })), "{refused:?}");
    put_shard(&store, &peer, cached_upload(id), slot(), &shard(2).1).await.expect("room");
    assert_eq!(cache.insert(id, bytes).await.expect("an answer"), Admission::Taken);
    insert(&cache, [3]).await;
    assert_eq!(present(&cache, 1..4).await, [3]);
    close(&store, directory.path()).await;
}

#[tokio::test]
async fn a_damaged_shard_leaves_the_cache_and_can_come_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let store = open(config(path)).await.expect("a new store");
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    insert(&cache, 0..3).await;
    let (id, bytes) = shard(1);
    rot(path, &bytes);
    assert_eq!(present(&cache, 0..3).await, [0, 2]);
    assert_eq!(cache.stats().bytes, cached_bytes(&store));
    assert_eq!(cache.stats().entries, 2);
    assert_eq!(cache.insert(id, bytes).await.expect("a sound disk"), Admission::Kept);
    assert_eq!(present(&cache, 0..3).await, [0, 1, 2]);
    close(&store, path).await;
}

/// Copies a data directory while its store works on: what a crash leaves.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).expect("room");
        }
    }
}

#[tokio::test]
async fn what_was_evicted_stays_so_over_restarts_and_crashes() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (path, crashed) = (directory.path().join("life"), directory.path().join("crash"));
    let store = open(config(&path)).await.expect("a new store");
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    insert(&cache, 0..20).await;
    for _ in 0..3 {
        assert_eq!(present(&cache, 0..5).await, [0, 1, 2, 3, 4]);
    }
    insert(&cache, 20..100).await;
    let before = present(&cache, 0..100).await;
    assert!(before.starts_with(&[0, 1, 2, 3, 4]), "what was asked for stays: {before:?}");
    assert!(before.len() < 60 && before.contains(&99), "{before:?}");
    let stats = cache.stats();
    copy(&path, &crashed);
    close(&store, &path).await;
    for path in [path, crashed] {
        let store = open(config(&path)).await.expect("an old store");
        let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
        assert_eq!(present(&cache, 0..100).await, before);
        let now = cache.stats();
        assert_eq!((now.bytes, now.entries), (stats.bytes, stats.entries));
        assert_eq!(now.bytes, cached_bytes(&store));
        close(&store, &path).await;
        // A smaller cache begins with what fits, the newest.
        let store = open(config(&path)).await.expect("an old store");
        let less = ShardCacheConfig { bytes_max: 64 << 10, ..small() };
        let cache = ShardCache::open(store.clone(), less).await.expect("a cache");
        let kept = present(&cache, 0..100).await;
        assert!(cached_bytes(&store) <= less.bytes_max);
        assert!(before.ends_with(&kept) && kept.len() > 5, "{kept:?} of {before:?}");
        close(&store, &path).await;
    }
}

#[tokio::test]
async fn a_leased_shard_survives_its_eviction() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let store = open(StoreConfig { trash_secs: 0, ..config(path) }).await.expect("a new store");
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    let client = Client::new(1);
    let recipe = |seed| Recipe { stripe_bytes: 8 << 10, ..Recipe::small(seed) };
    let (first, second) = (object(recipe(1)), object(recipe(2)));
    let offer = async |object: &crate::sample::Object| {
        for (_, id, bytes) in &object.groups[0].shards {
            let admission = cache.insert(*id, bytes.clone()).await.expect("a sound disk");
            assert_eq!(admission, Admission::Kept);
        }
    };
    // One is leased first and cached then, the other the other way round.
    put(&store, &client, &first, Terms::pin(1, 1)).await.expect("room");
    offer(&first).await;
    offer(&second).await;
    let log_bytes = store.usage().log_bytes;
    put(&store, &client, &second, Terms::pin(2, 2)).await.expect("room");
    assert!(store.usage().log_bytes < log_bytes + (8 << 10), "the bytes were there");
    insert(&cache, 0..100).await;
    for (_, id, _) in first.groups[0].shards.iter().chain(&second.groups[0].shards) {
        assert!(cache.get(*id).await.is_none(), "evicted");
    }
    assert_readable(&store, &first).await;
    assert_readable(&store, &second).await;
    // The other way: what is cached outlives its lease.
    offer(&first).await;
    for lease in [1, 2] {
        let lease = LeaseId::from_bytes([lease; 16]);
        store.release(client.id, lease).await.expect("its own lease");
    }
    let is_over = |store: &Store| store.usage().trash_groups == 0;
    until("the end of the trash", &store, is_over).await;
    for (_, id, bytes) in &first.groups[0].shards {
        assert_eq!(cache.get(*id).await.expect("cached").bytes, *bytes);
    }
    close(&store, path).await;
}

#[tokio::test]
async fn evicted_bytes_come_back_whatever_stays_between_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let store = open(StoreConfig { segment_bytes_max: 1 << 20, ..config(path) }).await;
    let store = store.expect("a new store");
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    // Some are asked for all the time, so they stay, and compaction moves them out of the way.
    for first in (0..1000).step_by(10) {
        insert(&cache, first..first + 10).await;
        assert_eq!(present(&cache, 0..5).await, [0, 1, 2, 3, 4]);
    }
    until("old segments gone", &store, |store| store.metrics().reclaimed_segments >= 3).await;
    assert!(store.metrics().compacted_bytes > 0);
    assert_eq!(present(&cache, 0..5).await, [0, 1, 2, 3, 4]);
    assert_eq!(cache.stats().bytes, cached_bytes(&store));
    close(&store, path).await;
    let store = open(config(path)).await.expect("an old store");
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    assert_eq!(present(&cache, 0..5).await, [0, 1, 2, 3, 4]);
    close(&store, path).await;
}

/// Peers put into a store that a cache has filled; at once, and more than there is room for.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_gives_way_to_what_is_leased() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let capacity_bytes = 300 << 10;
    let store = open(StoreConfig { capacity_bytes, ..config(path) }).await.expect("a new store");
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    insert(&cache, 0..80).await;
    assert!(cached_bytes(&store) > 200 << 10);
    let piece = |number: u64| bytes_of(5000 + number, 20 << 10);
    let leased: Arc<Mutex<BTreeMap<ShardId, Bytes>>> = Arc::default();
    let puts: Vec<_> = (0..20_u8)
        .map(|number| {
            let (store, leased) = (store.clone(), Arc::clone(&leased));
            tokio::spawn(async move {
                let (client, bytes) = (Client::new(number), piece(number.into()));
                let upload = UploadId::from_bytes([number; 16]);
                match put_shard(&store, &client, upload, slot(), &bytes).await {
                    Ok(_) => drop(leased.lock().insert(ShardId::of(&bytes), bytes)),
                    Err(StoreError::Full { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            })
        })
        .collect();
    for put in puts {
        put.await.expect("room, or none");
    }
    // 15 times 20 KiB fit; the cache has what is left.
    let leased = leased.lock().clone();
    assert_eq!(leased.len(), 15);
    assert_eq!(cache.stats().bytes, 0);
    for (id, bytes) in leased {
        assert_eq!(store.shard(id).await.expect("leased").bytes, bytes);
    }
    let (id, bytes) = shard(1);
    assert_eq!(cache.insert(id, bytes).await.expect("an answer"), Admission::NoRoom);
    // As soon as there is room again, the cache has it.
    let lease = LeaseId::from_bytes([0; 16]);
    let mut released = store.release(Client::new(0).id, lease).await;
    for number in 1..20 {
        if released.is_ok() {
            break;
        }
        let lease = LeaseId::from_bytes([number; 16]);
        released = store.release(Client::new(number).id, lease).await;
    }
    released.expect("one of them is leased");
    insert(&cache, 0..4).await;
    // Nothing is evicted in vain.
    let before = cache.stats();
    let large = bytes_of(1, 64 << 10);
    let refused =
        put_shard(&store, &Client::new(99), UploadId::from_bytes([99; 16]), slot(), &large).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    assert_eq!(cache.stats(), before);
    close(&store, path).await;
}

#[tokio::test]
async fn one_insert_that_needs_the_capacity_evicts_for_itself() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    // The cache may be larger than the store.
    let store = open(StoreConfig { capacity_bytes: 100 << 10, ..config(path) }).await;
    let store = store.expect("a new store");
    assert_eq!(Client::new(200).id, node());
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    insert(&cache, 0..60).await;
    assert!((80 << 10..=100 << 10).contains(&cached_bytes(&store)), "{}", cached_bytes(&store));
    assert_eq!(present(&cache, [59]).await, [59]);
    close(&store, path).await;
}
