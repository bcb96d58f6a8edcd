// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does a durable put cost beside writing and syncing the same bytes?
//!
//! Each round has a new store, with the settings of a node but for the room that so many shards in
//! flight need. The time ends with the last acknowledgement, so all is on the disk.

use std::time::Duration;

use serde_json::{Value, json};
use supernode_benches::{Figure, Scale, interleaved, median, timed};
use supernode_store::{Durability, StoreConfig};
use tokio::runtime::Runtime;

use super::fio::{Job, Pattern};
use super::place::Place;
use super::shards::Shards;
use crate::stock;

const LARGE: &str = "durable put of 5 MiB shards, 16 in flight, hashed, against fio writing as \
                     much in 5 MiB blocks with a sync per 64 MiB, want >= 0.90";
const SMALL: &str = "durable put of 64 KiB shards, 64 in flight, hashed, against fio, one job, \
                     with a sync after each 64 KiB, want >= 5";
const MIB: f64 = (1 << 20) as f64;

/// What is put, and how.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Bytes of a shard.
    pub shard_bytes: usize,
    /// Shards.
    pub count: usize,
    /// Shards under way at a time.
    pub in_flight: usize,
    /// How often all of it is done.
    pub rounds: u32,
}

impl Load {
    /// 5 MiB shards.
    pub fn large(scale: Scale) -> Self {
        let (count, rounds) = scale.pick((204, 5), (40, 2));
        Self { shard_bytes: 5 << 20, count, in_flight: 16, rounds }
    }

    /// 64 KiB shards.
    pub fn small(scale: Scale) -> Self {
        let (count, rounds) = scale.pick((2048, 5), (512, 2));
        Self { shard_bytes: 64 << 10, count, in_flight: 64, rounds }
    }

    /// Bytes of all of them by a time.
    pub fn mib_per_sec(&self, took: Duration) -> f64 {
        (self.count * self.shard_bytes) as f64 / MIB / took.as_secs_f64()
    }
}

/// `store.put.5m`.
pub fn large(scale: Scale) -> Figure {
    let load = Load::large(scale);
    against_fio(("store.put.5m", LARGE), load, Pattern::Write { blocks_per_sync: 13 }, 16)
}

/// `store.put.64k`.
pub fn small(scale: Scale) -> Figure {
    let load = Load::small(scale);
    against_fio(("store.put.64k", SMALL), load, Pattern::Write { blocks_per_sync: 1 }, 1)
}

fn against_fio(
    question: (&'static str, &'static str),
    load: Load,
    pattern: Pattern,
    depth: u32,
) -> Figure {
    let place = Place::new();
    let fio = Job {
        directory: place.path(),
        pattern,
        block_bytes: load.shard_bytes as u64,
        block_count: load.count as u64,
        depth,
    };
    let fio = fio.tuned();
    let against = |_| {
        place.settle();
        fio.run().bytes_per_sec() / MIB
    };
    figure(question, load, &place, against, |raw| raw["fio"] = fio.raw())
}

/// The store under a load, against something else under the same.
pub fn figure(
    question: (&'static str, &'static str),
    load: Load,
    place: &Place,
    against: impl FnMut(u32) -> f64,
    describe: impl FnOnce(&mut Value),
) -> Figure {
    let runtime = Runtime::new().expect("threads");
    let shards = Shards::new(load.count, load.shard_bytes);
    let mut batches = Vec::new();
    let put = |_| {
        let directory = place.fresh();
        place.settle();
        let store = stock::open(StoreConfig {
            durability: Durability::Batched,
            buffer_bytes_max: (2 * load.in_flight * load.shard_bytes).max(64 << 20) as u64,
            ..stock::filling(directory.path())
        });
        let (took, ()) = timed(|| runtime.block_on(shards.put_all(&store, load.in_flight)));
        batches.push(store.metrics().batches);
        runtime.block_on(store.close()).expect("an orderly stop");
        load.mib_per_sec(took)
    };
    let (ours, against) = interleaved(load.rounds, put, against);
    let mut raw = json!({
        "shards": load.count, "shard_bytes": load.shard_bytes, "in_flight": load.in_flight,
        "batches_rounds": batches, "ours_rounds": ours, "against_rounds": against,
    });
    describe(&mut raw);
    Figure::new(question, (median(&ours), median(&against)), "MiB/s", raw)
}
