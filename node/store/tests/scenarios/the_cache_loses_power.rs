// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random lives of a cache and what is leased beside it, with power cuts: every read brings exact
//! bytes or a miss, bounds hold, and what was evicted or removed never comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use supernode_protocol::ids::{ShardId, Slot, UploadId};
use supernode_store::disk::SimDisk;
use supernode_store::evicting::{Admission, ShardCache};
use supernode_store::{Store, StoreError};

use super::support::{config, put_shard};
use super::the_cache_makes_room::{shard, small};
use super::the_cache_outlives_its_disk::NoIndex;
use crate::sample::Client;

/// Random lives of one run.
const LIVES: u64 = 12;

/// What a random life did.
#[derive(Default)]
struct Life {
    /// Shards that may be cached; those that were evicted or removed are not.
    offered: BTreeSet<u64>,
    /// Shards that are leased.
    leased: BTreeMap<ShardId, Bytes>,
}

impl Life {
    /// Compares everything with the cache: exact bytes or a miss, within the bound; what is leased
    /// is there.
    async fn compare(&mut self, store: &Store, cache: &ShardCache, seed: u64) {
        let stats = cache.stats();
        assert!(stats.bytes <= stats.bytes_max, "seed {seed}: {stats:?}");
        let mut bytes = 0;
        for number in 0..60 {
            let (id, content) = shard(number);
            let found = cache.get(id).await;
            let is_allowed = self.offered.contains(&number);
            assert!(found.is_none() || is_allowed, "seed {seed}: {number} came back");
            if found.as_ref().is_some_and(|found| found.bytes != content) {
                panic!("seed {seed}: {number} has other bytes");
            }
            if found.is_none() {
                // It does not come back by itself, whatever happens.
                self.offered.remove(&number);
            } else {
                bytes += content.len() as u64;
            }
        }
        assert_eq!(bytes, stats.bytes, "seed {seed}: what is counted is there");
        for (id, content) in &self.leased {
            let read = store.shard(*id).await;
            assert_eq!(read.expect("leased").bytes, *content, "seed {seed}");
        }
        let leased: u64 = self.leased.values().map(|bytes| bytes.len() as u64).sum();
        assert_eq!(store.usage().leases[1].bytes, bytes + leased, "seed {seed}");
    }

    async fn step(
        &mut self,
        store: &Store,
        cache: &ShardCache,
        random: &mut ChaCha8Rng,
    ) -> Result<(), StoreError> {
        let number = random.random_range(0..60);
        let (id, bytes) = shard(number);
        match random.random_range(0..10) {
            0..6 => {
                let admission = cache.insert(id, bytes).await?;
                assert!(matches!(admission, Admission::Kept | Admission::Known), "{admission:?}");
                assert!(cache.get(id).await.is_some(), "what is acknowledged is there");
                self.offered.insert(number);
            }
            6..8 => drop(cache.get(id).await),
            8 => {
                cache.remove(id).await?;
                self.offered.remove(&number);
            }
            _ => {
                let (client, mut upload) = (Client::new(1), [0; 16]);
                upload[..8].copy_from_slice(&number.to_le_bytes());
                let slot = Slot { stripe: 0, index: 0 };
                put_shard(store, &client, UploadId::from_bytes(upload), slot, &bytes).await?;
                self.leased.insert(id, bytes);
            }
        }
        Ok(())
    }
}

/// `SUPERNODE_LIVES` says how many, `SUPERNODE_SEED` where to begin, which is the only one then.
fn seeds() -> Range<u64> {
    let given = |name| env::var(name).ok().map(|text| text.parse().expect("a number"));
    let base = given("SUPERNODE_SEED");
    let lives = given("SUPERNODE_LIVES").unwrap_or(if base.is_some() { 1 } else { LIVES });
    let base = base.unwrap_or(0);
    base..base + lives
}

async fn boot(disk: &SimDisk, seed: u64) -> (Store, ShardCache) {
    let nowhere = config(Path::new("nowhere"));
    let store = Store::open_on(nowhere, Arc::new(disk.clone()), &NoIndex, None);
    let store = store.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    let cache = ShardCache::open(store.clone(), small()).await.expect("a cache");
    (store, cache)
}

/// The power goes while many insert at once. Returns the disk as the next boot finds it.
async fn cut_power(life: &mut Life, disk: &SimDisk, cache: &ShardCache, acks: usize) -> SimDisk {
    let (told, mut acknowledged) = tokio::sync::mpsc::channel(16);
    let inserts: Vec<_> = (0..16)
        .map(|number| {
            let (cache, told) = (cache.clone(), told.clone());
            tokio::spawn(async move {
                let (id, bytes) = shard(number);
                cache.insert(id, bytes).await.expect("the old disk goes on");
                told.send(number).await.expect("somebody listens");
            })
        })
        .collect();
    for _ in 0..acks {
        acknowledged.recv().await.expect("all are answered");
    }
    let crashed = disk.crash();
    life.offered.extend(0..16);
    for insert in inserts {
        insert.await.expect("the old disk goes on");
    }
    crashed
}

#[tokio::test]
async fn random_lives_with_power_cuts() {
    let seeds = seeds();
    println!("lives from seeds {seeds:?}");
    for seed in seeds {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut disk = SimDisk::new(seed);
        let mut life = Life::default();
        let (mut store, mut cache) = boot(&disk, seed).await;
        for _ in 0..6 {
            for _ in 0..*[5, 40, 80].choose(&mut random).expect("not empty") {
                let step = life.step(&store, &cache, &mut random).await;
                step.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            }
            life.compare(&store, &cache, seed).await;
            let kept = cache.stats().bytes;
            let is_quiet = random.random();
            let crashed = if is_quiet {
                disk.crash()
            } else {
                cut_power(&mut life, &disk, &cache, random.random_range(0..16)).await
            };
            store.close().await.expect("the old disk goes on");
            disk = crashed;
            (store, cache) = boot(&disk, seed).await;
            life.compare(&store, &cache, seed).await;
            // All that was acknowledged is there, and nothing that was evicted before.
            assert!(!is_quiet || cache.stats().bytes == kept, "seed {seed}");
        }
        store.close().await.expect("an orderly stop");
    }
}
