// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bytes that no hole gives back come back by compaction, while everything that lives is read, and
//! what is left is as it was: by a running store itself, and by the tool for one at rest.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use supernode_protocol::wire::ByteRange;
use supernode_store::offline::{Source, compact, dump_map, fsck, rebuild_index};
use supernode_store::{Store, StoreConfig};

use super::freed_bytes_come_back::{until, without_trash};
use super::support::{assert_readable, open, put, put_shard};
use crate::sample::{Client, Object, Recipe, Terms, object};

/// Objects that come and go, for each that stays.
const PASSING: u8 = 60;

/// 30 shards of 2 KiB: too small for a hole.
fn small(seed: u64) -> Object {
    let recipe = Recipe { stripe_count: 10, stripe_bytes: 4096, ..Recipe::small(seed) };
    object(recipe)
}

fn segment_bytes(path: &Path) -> u64 {
    let entries = fs::read_dir(path).expect("a directory").flatten();
    let segments = entries.filter(|entry| entry.path().extension().is_some_and(|it| it == "seg"));
    segments.map(|entry| entry.metadata().expect("metadata").len()).sum()
}

/// Two objects that stay, with a span and an open upload between many that come and go.
async fn live(store: &Store, client: &Client, staying: &[Object; 2]) {
    put(store, client, &staying[0], Terms::pin(1, 1)).await.expect("put");
    let span = vec![5; 300].into_boxed_slice();
    store.keep_span(staying[0].cid, 0, span.into()).await.expect("it is held");
    for number in 10..10 + PASSING {
        let passing = small(u64::from(number));
        put(store, client, &passing, Terms::pin(number, number)).await.expect("put");
        store.release(client.id, Terms::pin(number, number).lease).await.expect("its own lease");
        if number == 20 {
            put(store, client, &staying[1], Terms::pin(2, 2)).await.expect("put");
        }
    }
}

/// Reads all of some objects, whole and in part, until it is told to stop, and once at least.
async fn read_on(store: Store, objects: Arc<[Object; 2]>, stop: Arc<AtomicBool>) {
    loop {
        for object in &*objects {
            assert_readable(&store, object).await;
            store.group(object.cid, 0).await.expect("held");
            store.missing(object.cid, 0).await.expect("held");
            let (_, shard, bytes) = &object.groups[0].shards[3];
            let range = ByteRange { offset: 100, len: 200 };
            let part = store.shard_range(*shard, range).await.expect("held");
            assert_eq!(part.bytes, bytes, "one chunk group");
            store.prove(*shard, vec![0]).await.expect("held");
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_store_compacts_under_its_readers() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let config = StoreConfig {
        segment_bytes_max: 1 << 20,
        compact_waste_percent: 30,
        cache_bytes_max: 0,
        ..without_trash(path)
    };
    let store = open(config.clone()).await.expect("a new store");
    let client = Client::new(1);
    let staying = Arc::new([small(1), small(2)]);
    let stop = Arc::new(AtomicBool::new(false));
    live(&store, &client, &staying).await;
    let reading = read_on(store.clone(), Arc::clone(&staying), Arc::clone(&stop));
    let reading = tokio::spawn(reading);
    until("a round", &store, |store| {
        let metrics = store.metrics();
        metrics.compacted_bytes > 0 && metrics.usage.waste_bytes() < 2 << 20
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    reading.await.expect("every read is answered");
    let span = store.span(staying[0].cid, 0).await.expect("held").expect("kept");
    assert_eq!(span, vec![5; 300]);
    store.close().await.expect("an orderly stop");

    assert!(!path.join("0000000001.seg").exists(), "the oldest went");
    let report = fsck(path).expect("a check");
    assert!(report.is_clean(), "{report:?}");
    let map = dump_map(path, Source::Index, false).expect("at rest");
    assert_eq!(dump_map(path, Source::Log, false).expect("at rest"), map);
    rebuild_index(path).expect("at rest");
    let store = open(config).await.expect("the same store");
    for object in &*staying {
        assert_readable(&store, object).await;
    }
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_takes_what_a_crash_left() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let store = open(without_trash(path)).await.expect("a new store");
    put(&store, &Client::new(1), &small(1), Terms::pin(1, 1)).await.expect("put");
    store.close().await.expect("an orderly stop");
    // A segment that was begun and never used.
    fs::write(path.join("0000000002.seg"), []).expect("there is room");
    let report = compact(path, |_| ()).expect("at rest");
    assert!(report.is_complete, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tool_leaves_what_is_kept_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let config = StoreConfig { compact_waste_percent: 0, ..without_trash(path) };
    let store = open(config.clone()).await.expect("a new store");
    let client = Client::new(1);
    let staying = [small(1), small(2)];
    live(&store, &client, &staying).await;
    until("tombstones", &store, |store| store.usage().shards.live.count == 60).await;
    until("graves", &store, |store| store.usage().trash_groups == 0).await;
    let (slot, _, bytes) = &small(99).groups[0].shards[0];
    let upload = Terms::pin(99, 99).upload;
    put_shard(&store, &client, upload, *slot, bytes).await.expect("put");
    store.close().await.expect("an orderly stop");

    // What is dead gets its tombstone meanwhile.
    let is_left = |line: &String| !line.starts_with("tombstone ") && !line.ends_with(" dead");
    let map = |path| {
        let mut lines = dump_map(path, Source::Log, false).expect("at rest");
        lines.retain(is_left);
        lines
    };
    let (lines, size) = (map(path), segment_bytes(path));
    let mut slices = 0;
    let report = compact(path, |_| slices += 1).expect("at rest");
    assert!(report.is_whole && !report.is_complete, "an upload is open: {report:?}");
    assert!(slices > 2 && report.copied_bytes > 0);
    assert_eq!(map(path), lines);
    let store = open(config.clone()).await.expect("the same store");
    let lease = supernode_protocol::ids::LeaseId::from_bytes(*upload.as_bytes());
    store.release(client.id, lease).await.expect("its own upload");
    store.close().await.expect("an orderly stop");
    let report = compact(path, |_| ()).expect("at rest");
    assert!(report.is_complete, "{report:?}");
    assert!(segment_bytes(path) * 4 < size, "{} of {size}", segment_bytes(path));
    assert!(fsck(path).expect("a check").is_clean());
    let store = open(config).await.expect("the same store");
    for object in &staying {
        assert_readable(&store, object).await;
    }
    store.close().await.expect("an orderly stop");
}
