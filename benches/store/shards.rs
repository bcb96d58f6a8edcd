// SPDX-License-Identifier: MIT OR Apache-2.0
//! Distinct shards of one size, and many operations on them at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use supernode_benches::seeded;
use supernode_protocol::ids::{NodeId, ShardId, Slot, UploadId};
use supernode_store::{PutShard, Store};
use tokio::task::JoinSet;

use crate::stock;

/// Bytes behind all shards: more than a processor keeps near.
const NOISE_BYTES: usize = 128 << 20;
/// How far apart shards of one place in the noise begin.
const STEP_BYTES: usize = 64;
/// As much as a connection hands over at once.
const PIECE_BYTES: usize = 64 << 10;

/// Windows into one stretch of noise. Their ids are known beforehand, as a client knows them.
#[derive(Debug)]
pub struct Shards {
    noise: Vec<u8>,
    shard_bytes: usize,
    ids: Vec<ShardId>,
    caller: NodeId,
}

impl Shards {
    /// So many of so many bytes.
    pub fn new(count: usize, shard_bytes: usize) -> Arc<Self> {
        let noise = seeded(NOISE_BYTES + shard_bytes + count * STEP_BYTES);
        let mut shards = Self { noise, shard_bytes, ids: Vec::new(), caller: stock::client() };
        shards.ids = (0..count).map(|number| ShardId::of(shards.bytes(number))).collect();
        Arc::new(shards)
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.ids.len()
    }

    /// Bytes of all of them.
    pub fn total_bytes(&self) -> u64 {
        (self.count() * self.shard_bytes) as u64
    }

    /// Bytes of one.
    pub fn bytes(&self, number: usize) -> &[u8] {
        let places = NOISE_BYTES / self.shard_bytes;
        let start = number % places * self.shard_bytes + number * STEP_BYTES;
        &self.noise[start..start + self.shard_bytes]
    }

    /// The id of one.
    pub fn id(&self, number: usize) -> ShardId {
        self.ids[number]
    }

    /// All numbers, in another random order for each round.
    pub fn shuffled(&self, round: u32) -> Vec<usize> {
        let mut numbers: Vec<_> = (0..self.count()).collect();
        let draw = |number: &usize| {
            let hash = blake3::Hasher::new()
                .update(&round.to_le_bytes())
                .update(&number.to_le_bytes())
                .finalize();
            *hash.as_bytes()
        };
        numbers.sort_by_cached_key(draw);
        numbers
    }

    /// Puts all of them under one upload.
    pub async fn put_all(self: &Arc<Self>, store: &Store, in_flight: usize) {
        let (shards, store) = (Arc::clone(self), store.clone());
        perform(self.count(), in_flight, move |number| {
            let (shards, store) = (Arc::clone(&shards), store.clone());
            async move { shards.put(&store, number).await }
        })
        .await;
    }

    /// As a connection does: room first, then bytes, hashed as they come.
    async fn put(&self, store: &Store, number: usize) {
        let mut buffer = store.buffer(self.shard_bytes as u64).await.expect("a possible length");
        for piece in self.bytes(number).chunks(PIECE_BYTES) {
            buffer.extend(piece).expect("as announced");
        }
        let upload = UploadId::from_bytes([1; 16]);
        let slot = Slot { stripe: u32::try_from(number).expect("few shards"), index: 0 };
        let (caller, shard) = (self.caller, self.id(number));
        let put = PutShard { caller, upload, slot, shard, buffer };
        store.put_shard(put).await.expect("room");
    }

    /// Gets all of them in random order; returns how long each took.
    pub async fn read_all(&self, store: &Store, in_flight: usize, round: u32) -> Vec<Duration> {
        let ids: Arc<[ShardId]> =
            self.shuffled(round).into_iter().map(|number| self.id(number)).collect();
        let store = store.clone();
        perform(self.count(), in_flight, move |turn| {
            let (id, store) = (ids[turn], store.clone());
            async move { drop(std::hint::black_box(store.shard(id).await.expect("whole"))) }
        })
        .await
    }
}

/// Does numbered things, so many at a time; returns how long each took.
pub async fn perform<F: Future<Output = ()> + Send>(
    count: usize,
    in_flight: usize,
    one: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Vec<Duration> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        let (next, one) = (Arc::clone(&next), one.clone());
        workers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return took;
                }
                let started = Instant::now();
                one(number).await;
                took.push(started.elapsed());
            }
        });
    }
    workers.join_all().await.concat()
}
