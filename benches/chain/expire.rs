// SPDX-License-Identifier: MIT OR Apache-2.0
//! A deal of 140,000 shards ends: how long until all are tombstoned and their bytes are given
//! back, against unlinking as many files of the same bytes?
//!
//! The store paces itself on purpose (so many things a second, so that puts go on), which the
//! baseline does not. Neither waits in the trash.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;
use supernode_benches::{Figure, Scale, timed};
use supernode_protocol::deal::{DealId, lease_of};
use supernode_store::{Durability, Store, StoreConfig};
use tokio::runtime::Runtime;

use crate::stock::{self, Recipe};

const SHARD_BYTES: u32 = 4096;
const WIDTH: u32 = 14;
const FILES_PER_DIRECTORY: u32 = 256;
/// Small enough that whole segments can go: at a GiB all shards would share one.
const SEGMENT_BYTES: u64 = 64 << 20;
/// The store looks for work every second: after so long without any there is none.
const QUIET: Duration = Duration::from_secs(4);
const QUESTION: &str = "shards of 4 KiB per second from the end of a deal until all are \
                        tombstoned and given back, against unlinking as many files";

/// `chain.expire.140k`.
pub fn expiry(scale: Scale) -> Figure {
    let stripe_count = stock::shard_count(scale.pick(140_000, 280)).div_ceil(WIDTH);
    let shards = stripe_count * WIDTH;
    let ending = end_deal(stripe_count);
    let unlinked = unlink_files(shards);
    let rate = |took: Duration| f64::from(shards) / took.as_secs_f64();
    let ours = rate(ending.tombstoned.max(ending.given_back));
    let raw = json!({
        "shards": shards, "shard_bytes": SHARD_BYTES, "segment_bytes_max": SEGMENT_BYTES,
        "end_deal_secs": ending.acknowledged.as_secs_f64(),
        "tombstoned_secs": ending.tombstoned.as_secs_f64(),
        "given_back_secs": ending.given_back.as_secs_f64(),
        "punched_bytes": ending.punched_bytes, "segments_unlinked": ending.segments_unlinked,
        "disk_bytes_before": ending.disk_bytes.0, "disk_bytes_after": ending.disk_bytes.1,
        "unlink_secs": unlinked.as_secs_f64(),
    });
    Figure::new(("chain.expire.140k", QUESTION), (ours, rate(unlinked)), "shards/s", raw)
}

/// What the end of a deal did, and when, counted from the word of the chain.
struct Ending {
    acknowledged: Duration,
    tombstoned: Duration,
    given_back: Duration,
    punched_bytes: u64,
    segments_unlinked: u64,
    disk_bytes: (u64, u64),
}

fn end_deal(stripe_count: u32) -> Ending {
    let directory = stock::directory();
    let path = directory.path();
    let runtime = Runtime::new().expect("threads");
    let recipe = Recipe { seed: 1, stripe_count, widths: (10, 4), shard_bytes: SHARD_BYTES };
    let lease = lease_of(&[0; 32], DealId(1));
    let config = StoreConfig {
        segment_bytes_max: SEGMENT_BYTES,
        trash_secs: 0,
        upload_idle_secs: 1 << 20,
        ..stock::filling(path)
    };
    let filled = stock::open(config.clone());
    runtime.block_on(async {
        stock::put(&filled, recipe, lease, 1 << 40).await;
        filled.close().await.expect("an orderly stop");
    });
    let before = disk_bytes(path);
    let store = stock::open(StoreConfig { durability: Durability::Batched, ..config });
    runtime.block_on(async {
        let started = Instant::now();
        store.end_deal(lease).await.expect("a deal");
        let acknowledged = started.elapsed();
        let (tombstoned, given_back) = watch(&store, started).await;
        let metrics = store.metrics();
        store.close().await.expect("an orderly stop");
        Ending {
            acknowledged,
            tombstoned,
            given_back,
            punched_bytes: metrics.reclaimed_bytes,
            segments_unlinked: metrics.reclaimed_segments,
            disk_bytes: (before, disk_bytes(path)),
        }
    })
}

/// Waits until the store has nothing left to free; returns when the last tombstone was written
/// and when the last bytes were given back.
async fn watch(store: &Store, started: Instant) -> (Duration, Duration) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let (mut tombstoned, mut given_back) = (Duration::ZERO, Duration::ZERO);
    let (mut tombstones, mut freed) = (0, (0, 0));
    loop {
        tick.tick().await;
        let (now, metrics) = (started.elapsed(), store.metrics());
        let usage = metrics.usage;
        if usage.tombstones > tombstones {
            tombstoned = now;
        }
        let fresh = (metrics.reclaimed_bytes, metrics.reclaimed_segments);
        if fresh != freed {
            given_back = now;
        }
        (tombstones, freed) = (usage.tombstones, fresh);
        let kept = usage.shards.live.count + usage.shards.trash.count;
        let dead = usage.shards.dead.count + usage.blocks.dead.count;
        // What is dead and still on disk has its tombstone.
        let is_done = kept == 0 && dead <= usage.tombstones;
        if is_done && now > tombstoned.max(given_back) + QUIET {
            return (tombstoned, given_back);
        }
    }
}

fn disk_bytes(path: &Path) -> u64 {
    let segments = stock::segments(path);
    segments.iter().map(|path| fs::metadata(path).expect("a segment").blocks() * 512).sum()
}

/// Writes files and unlinks them, each directory durably.
fn unlink_files(count: u32) -> Duration {
    let root = stock::directory();
    let directory = |number: u32| root.path().join(format!("{:04x}", number / FILES_PER_DIRECTORY));
    let bytes = [7; SHARD_BYTES as usize];
    let firsts = || (0..count).step_by(FILES_PER_DIRECTORY as usize);
    let files = |first: u32| first..count.min(first + FILES_PER_DIRECTORY);
    for first in firsts() {
        fs::create_dir(directory(first)).expect("a new directory");
        for number in files(first) {
            fs::write(directory(first).join(format!("{number:08x}")), bytes).expect("room");
        }
    }
    rustix::fs::syncfs(File::open(root.path()).expect("a directory")).expect("a working disk");
    let (took, ()) = timed(|| {
        for first in firsts() {
            let directory = directory(first);
            for number in files(first) {
                fs::remove_file(directory.join(format!("{number:08x}"))).expect("it is there");
            }
            File::open(directory).and_then(|it| it.sync_all()).expect("a working disk");
        }
    });
    took
}
