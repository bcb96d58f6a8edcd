// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does foyer's disk cache do with the same puts on the same disk?
//!
//! A cache need not outlive a power cut and syncs nothing, so the file system is synced once when
//! it has written everything.

use std::fs::File;

use foyer::{BlockEngineConfig, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder};
use serde_json::{Value, json};
use supernode_benches::{Figure, Scale, timed};
use tokio::runtime::Runtime;

use super::place::Place;
use super::put::{Load, figure};
use super::shards::Shards;

const QUESTION: &str = "durable put of 64 KiB shards, 64 in flight, hashed, against foyer writing \
                        all of them to its disk cache, and one sync, want >= 1.0";

/// `store.put.foyer`.
pub fn put(scale: Scale) -> Figure {
    let (load, place) = (Load::small(scale), Place::new());
    let shards = Shards::new(load.count, load.shard_bytes);
    let total = load.count * load.shard_bytes;
    let runtime = Runtime::new().expect("threads");
    let against = |_| {
        let directory = place.fresh();
        place.settle();
        let device = FsDeviceBuilder::new(directory.path()).with_capacity(4 * total).build();
        let engine = BlockEngineConfig::new(device.expect("an empty directory"))
            // Entries beyond these bounds would not be written at all.
            .with_buffer_pool_size(2 * total)
            .with_submit_queue_size_threshold(2 * total);
        let cache = HybridCacheBuilder::new().memory(2 * total).storage();
        let cache = runtime.block_on(cache.with_engine_config(engine).build());
        let cache: HybridCache<usize, Vec<u8>> = cache.expect("an empty directory");
        let (took, ()) = timed(|| {
            runtime.block_on(async {
                for number in 0..shards.count() {
                    let writer = cache.storage_writer(number).force();
                    writer.insert(shards.bytes(number).to_vec()).expect("forced");
                }
                cache.storage().wait().await;
            });
            let root = File::open(directory.path()).expect("a directory");
            rustix::fs::syncfs(root).expect("a working disk");
        });
        let written = cache.statistics().disk_write_bytes();
        assert!(written >= total, "foyer left entries out: {written} of {total} bytes");
        runtime.block_on(cache.close()).expect("an orderly stop");
        load.mib_per_sec(took)
    };
    let describe = |raw: &mut Value| raw["peer"] = json!("foyer, block engine");
    figure(("store.put.foyer", QUESTION), load, &place, against, describe)
}
