// SPDX-License-Identifier: MIT OR Apache-2.0
//! Does a store that holds much answer and take as quickly as one that holds little?
//!
//! Shards are as small as there are, and nothing waits for the disk, which would hide the rest.
//! Time goes on until the index has followed: the store puts that off, but not for ever.

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use supernode_benches::{Figure, Scale, interleaved, median, timed};
use supernode_protocol::deal::{DealId, lease_of};
use supernode_store::Store;
use tokio::runtime::Runtime;

use super::place::Place;
use crate::stock::{self, Recipe};

const USAGE: &str = "the usage query with 140000 shards against that with 1000, want <= 1.2";
const GROW: &str = "10000 stripes (140000 shards) put and committed: the last tenth against the \
                    first, want <= 1.2";
/// Parts of a fill that are compared.
const PARTS: usize = 10;

/// `store.usage`.
pub fn usage(scale: Scale) -> Figure {
    let (stripes, rounds, queries) =
        scale.pick(([10_000, 72], 15, 1_000_000), ([720, 72], 3, 1000));
    let runtime = Runtime::new().expect("threads");
    let place = Place::new();
    let directories = [place.fresh(), place.fresh()];
    let [many, few] = [0, 1].map(|which: usize| {
        let store = stock::open(stock::filling(directories[which].path()));
        runtime.block_on(put(&store, 1, stripes[which]));
        store
    });
    let nanos = |store: &Store| {
        let (took, ()) = timed(|| {
            for _ in 0..queries {
                black_box(store.usage());
            }
        });
        took.as_secs_f64() * 1e9 / f64::from(queries)
    };
    let (ours, against) = interleaved(rounds, |_| nanos(&many), |_| nanos(&few));
    let shards = [&many, &few].map(|store| store.usage().shards.live.count);
    for store in [many, few] {
        runtime.block_on(store.close()).expect("an orderly stop");
    }
    let raw = json!({
        "shards": shards, "queries": queries, "ours_rounds": ours, "against_rounds": against,
    });
    Figure::new(("store.usage", USAGE), (median(&ours), median(&against)), "ns/query", raw)
}

/// `store.grow`.
pub fn grow(scale: Scale) -> Figure {
    let (stripes, rounds) = scale.pick((1000, 5), (100, 2));
    let runtime = Runtime::new().expect("threads");
    let place = Place::new();
    let fills: Vec<Vec<f64>> = (0..rounds)
        .map(|_| {
            let directory = place.fresh();
            place.settle();
            parts(&runtime, directory.path(), stripes)
        })
        .collect();
    let part = |number: usize| fills.iter().map(|parts| parts[number]).collect::<Vec<f64>>();
    let (first, last) = (part(0), part(PARTS - 1));
    let raw = json!({ "stripes_per_part": stripes, "shards_per_stripe": 14, "parts_secs": fills });
    Figure::new(("store.grow", GROW), (median(&last), median(&first)), "s/tenth", raw)
}

/// How long each part of a fill takes.
fn parts(runtime: &Runtime, path: &Path, stripes: u32) -> Vec<f64> {
    let store = stock::open(stock::filling(path));
    runtime.block_on(async {
        // The very first shards make files and threads.
        put(&store, 0, 1).await;
        let mut parts = Vec::new();
        let mut tick = tokio::time::interval(Duration::from_millis(1));
        for seed in 1..=PARTS as u64 {
            let started = std::time::Instant::now();
            put(&store, seed, stripes).await;
            while store.metrics().index_pending > 0 {
                tick.tick().await;
            }
            parts.push(started.elapsed().as_secs_f64());
        }
        store.close().await.expect("an orderly stop");
        parts
    })
}

/// Puts an object of so many stripes of 14 shards under a deal of its own.
pub async fn put(store: &Store, seed: u64, stripe_count: u32) {
    let recipe = Recipe { seed, stripe_count, widths: (10, 4), shard_bytes: 64 };
    stock::put(store, recipe, lease_of(&[0; 32], DealId(seed)), 1 << 40).await;
}
