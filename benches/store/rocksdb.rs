// SPDX-License-Identifier: MIT OR Apache-2.0
//! What does RocksDB do with the same puts on the same disk?
//!
//! It is done with a put when its log has the bytes. That it copies them into a blob file later is
//! not timed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rocksdb::{DB, Options, WriteOptions};
use serde_json::{Value, json};
use supernode_benches::{Figure, Scale, timed};

use super::place::Place;
use super::put::{Load, figure};
use super::shards::Shards;

const QUESTION: &str = "durable put of 5 MiB shards, 16 in flight, hashed, against RocksDB with \
                        blob files and synced writes from 16 threads, want >= 1.5";

/// `store.put.rocksdb`.
pub fn put(scale: Scale) -> Figure {
    let (load, place) = (Load::large(scale), Place::new());
    let shards = Shards::new(load.count, load.shard_bytes);
    let against = |_| {
        let directory = place.fresh();
        place.settle();
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_enable_blob_files(true);
        let db = DB::open(&options, directory.path()).expect("an empty directory");
        let mut synced = WriteOptions::default();
        synced.set_sync(true);
        let next = AtomicUsize::new(0);
        let put = || {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= shards.count() {
                    return;
                }
                let (id, bytes) = (shards.id(number), shards.bytes(number));
                db.put_opt(id.as_bytes(), bytes, &synced).expect("room");
            }
        };
        let (took, ()) = timed(|| {
            thread::scope(|scope| (0..load.in_flight).for_each(|_| drop(scope.spawn(put))));
        });
        load.mib_per_sec(took)
    };
    let describe = |raw: &mut Value| raw["peer"] = json!("rocksdb, blob files");
    figure(("store.put.rocksdb", QUESTION), load, &place, against, describe)
}
