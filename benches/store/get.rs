// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does a get cost beside reading the same bytes from the disk, or from memory?
//!
//! Cold gets come from a store without a cache, each shard once per round in random order, with
//! the page cache dropped before. Every one is hashed, which fio does not do.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use supernode_benches::{Figure, Scale, interleaved, median, timed};
use supernode_store::{Durability, Store, StoreConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::fio::{Job, Pattern, Tuned};
use super::place::Place;
use super::shards::{Shards, perform};
use crate::stock;

const LARGE: &str = "random gets of 5 MiB shards from a cold disk, 8 in flight, against fio's \
                     O_DIRECT random reads of 5 MiB at this depth, want >= 0.90";
const SMALL: &str = "random gets of 64 KiB shards from a cold disk, 8 in flight, against fio's \
                     O_DIRECT random reads of 64 KiB at this depth, want >= 0.90";
const HOT: &str = "5 MiB shards from the cache, every byte read, against the same bytes from \
                   plain memory, want >= 0.90";
const P50: &str = "10000 random gets of 7 MB shards from a cold disk, 4 in flight: P50, against \
                   that of fio's O_DIRECT random reads";
const P99: &str = "the same: P99";
const MIB: f64 = (1 << 20) as f64;

const LARGE_BYTES: usize = 5 << 20;
const SMALL_BYTES: usize = 64 << 10;
/// 7 MB in whole disk blocks.
const LATENCY_BYTES: usize = 1710 * 4096;
/// Gets under way: as many reads as a node does at a time.
const COLD_DEPTH: u32 = 8;
const LATENCY_DEPTH: u32 = 4;

/// A store with shards, and fio's file of the same bytes beside it.
struct Cold {
    place: Place,
    directory: TempDir,
    shards: Arc<Shards>,
    runtime: Runtime,
    depth: u32,
}

impl Cold {
    fn fill(count: usize, shard_bytes: usize, depth: u32) -> Self {
        let place = Place::new();
        let directory = place.fresh();
        let shards = Shards::new(count, shard_bytes);
        let runtime = Runtime::new().expect("threads");
        let store = stock::open(stock::filling(directory.path()));
        runtime.block_on(async {
            shards.put_all(&store, 8).await;
            store.close().await.expect("an orderly stop");
        });
        Self { place, directory, shards, runtime, depth }
    }

    fn open(&self) -> Store {
        stock::open(StoreConfig {
            durability: Durability::Batched,
            cache_bytes_max: 0,
            ..stock::filling(self.directory.path())
        })
    }

    fn fio(&self, shard_bytes: usize) -> Tuned<'_> {
        let job = Job {
            directory: self.place.path(),
            pattern: Pattern::RandomRead,
            block_bytes: shard_bytes as u64,
            block_count: self.shards.count() as u64,
            depth: self.depth,
        };
        job.tuned()
    }

    /// Gets every shard from the disk; returns how long all took and how long each.
    fn read_all(&self, store: &Store, round: u32) -> (Duration, Vec<Duration>) {
        self.place.settle();
        let in_flight = self.depth as usize;
        timed(|| self.runtime.block_on(self.shards.read_all(store, in_flight, round)))
    }
}

/// `store.get.cold.5m`.
pub fn cold_large(scale: Scale) -> Figure {
    let (count, rounds) = scale.pick((204, 7), (40, 2));
    cold(("store.get.cold.5m", LARGE), count, LARGE_BYTES, rounds)
}

/// `store.get.cold.64k`.
pub fn cold_small(scale: Scale) -> Figure {
    let (count, rounds) = scale.pick((8192, 7), (1024, 2));
    cold(("store.get.cold.64k", SMALL), count, SMALL_BYTES, rounds)
}

fn cold(
    question: (&'static str, &'static str),
    count: usize,
    shard_bytes: usize,
    rounds: u32,
) -> Figure {
    let cold = Cold::fill(count, shard_bytes, COLD_DEPTH);
    let fio = cold.fio(shard_bytes);
    let store = cold.open();
    let mib = cold.shards.total_bytes() as f64 / MIB;
    let (ours, against) = interleaved(
        rounds,
        |round| mib / cold.read_all(&store, round).0.as_secs_f64(),
        |_| {
            cold.place.settle();
            fio.run().bytes_per_sec() / MIB
        },
    );
    cold.runtime.block_on(store.close()).expect("an orderly stop");
    let raw = json!({
        "shards": count, "shard_bytes": shard_bytes, "in_flight": COLD_DEPTH,
        "ours_rounds": ours, "against_rounds": against, "fio": fio.raw(),
    });
    Figure::new(question, (median(&ours), median(&against)), "MiB/s", raw)
}

/// `store.get.hot.5m`.
pub fn hot(scale: Scale) -> Figure {
    let (gets, rounds) = scale.pick((400, 15), (40, 3));
    let place = Place::new();
    let directory = place.fresh();
    let shards = Shards::new(12, LARGE_BYTES);
    let runtime = Runtime::new().expect("threads");
    let config = StoreConfig { cache_bytes_max: 256 << 20, ..stock::filling(directory.path()) };
    let store = stock::open(config);
    runtime.block_on(async {
        shards.put_all(&store, 4).await;
        shards.read_all(&store, 1, 0).await;
    });
    let misses = store.metrics().cache_misses;
    let mib = (gets * LARGE_BYTES) as f64 / MIB;
    let from_store = |_| {
        let (shards, store) = (Arc::clone(&shards), store.clone());
        let get = move |turn: usize| {
            let (id, store) = (shards.id(turn % shards.count()), store.clone());
            async move { consume(&store.shard(id).await.expect("whole").bytes) }
        };
        mib / timed(|| runtime.block_on(perform(gets, 1, get))).0.as_secs_f64()
    };
    let from_memory = |_| {
        let shards = Arc::clone(&shards);
        let get = move |turn: usize| {
            let shards = Arc::clone(&shards);
            async move { consume(shards.bytes(turn % shards.count())) }
        };
        mib / timed(|| runtime.block_on(perform(gets, 1, get))).0.as_secs_f64()
    };
    let (ours, against) = interleaved(rounds, from_store, from_memory);
    assert_eq!(store.metrics().cache_misses, misses, "hot shards come from the cache");
    runtime.block_on(store.close()).expect("an orderly stop");
    let raw = json!({
        "shards": shards.count(), "shard_bytes": LARGE_BYTES, "gets": gets,
        "ours_rounds": ours, "against_rounds": against,
    });
    Figure::new(("store.get.hot.5m", HOT), (median(&ours), median(&against)), "MiB/s", raw)
}

/// Reads every byte, with nothing else to do.
fn consume(bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    let rest = rest.iter().map(|byte| u64::from(*byte));
    black_box(words.chain(rest).fold(0_u64, u64::wrapping_add));
}

/// How long single gets took, of the store's and of fio's, round by round.
#[derive(Debug)]
pub struct Latencies {
    ours: [Vec<f64>; 2],
    against: [Vec<f64>; 2],
    /// Over all rounds.
    pooled: [f64; 2],
    raw: Value,
}

impl Latencies {
    /// Fills a store and asks it and fio by turns.
    pub fn measure(scale: Scale) -> Self {
        let (count, rounds) = scale.pick((500, 20), (40, 2));
        let cold = Cold::fill(count, LATENCY_BYTES, LATENCY_DEPTH);
        let fio = cold.fio(LATENCY_BYTES);
        let store = cold.open();
        let mut pooled = Vec::new();
        let (mut ours_p99, mut against_p99) = (Vec::new(), Vec::new());
        let (ours, against) = interleaved(
            rounds,
            |round| {
                let (_, took) = cold.read_all(&store, round);
                let mut millis: Vec<_> = took.iter().map(|it| it.as_secs_f64() * 1e3).collect();
                ours_p99.push(percentile(&mut millis, 99));
                let p50 = percentile(&mut millis, 50);
                pooled.extend(millis);
                p50
            },
            |_| {
                cold.place.settle();
                let report = fio.run();
                against_p99.push(report.millis(99));
                report.millis(50)
            },
        );
        cold.runtime.block_on(store.close()).expect("an orderly stop");
        let raw = json!({
            "shards": count, "shard_bytes": LATENCY_BYTES, "in_flight": LATENCY_DEPTH,
            "gets": pooled.len(), "fio": fio.raw(),
        });
        let pooled = [50, 99].map(|percent| percentile(&mut pooled, percent));
        Self { ours: [ours, ours_p99], against: [against, against_p99], pooled, raw }
    }

    /// `store.get.latency.p50`.
    pub fn p50(&self) -> Figure {
        self.figure(("store.get.latency.p50", P50), 0)
    }

    /// `store.get.latency.p99`.
    pub fn p99(&self) -> Figure {
        self.figure(("store.get.latency.p99", P99), 1)
    }

    fn figure(&self, question: (&'static str, &'static str), which: usize) -> Figure {
        let (ours, against) = (&self.ours[which], &self.against[which]);
        let mut raw = self.raw.clone();
        raw["ours_rounds"] = json!(ours);
        raw["against_rounds"] = json!(against);
        raw["ours_pooled"] = json!(self.pooled[which]);
        Figure::new(question, (median(ours), median(against)), "ms", raw)
    }
}

/// The value that so many percent of some do not exceed.
fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() * percent).div_ceil(100) - 1]
}
