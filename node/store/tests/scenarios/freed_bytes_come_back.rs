// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was released and lay its time in the trash gives its disk blocks back, and old segments
//! that nothing needs are gone. What lives on beside it is untouched.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use supernode_store::offline::{Source, dump_map, fsck, rebuild_index, stats};
use supernode_store::{Store, StoreConfig};

use super::support::{assert_readable, config, open, put};
use crate::sample::{Client, Object, Recipe, Terms, object};

/// Bytes of disk that all segments take.
fn allocated(path: &Path) -> u64 {
    let entries = fs::read_dir(path).expect("a directory").flatten();
    let segments = entries.filter(|entry| entry.path().extension().is_some_and(|it| it == "seg"));
    segments.map(|entry| entry.metadata().expect("metadata").blocks() * 512).sum()
}

/// Whether these bytes stand anywhere in the segments.
pub fn is_on_disk(path: &Path, bytes: &[u8]) -> bool {
    let entries = fs::read_dir(path).expect("a directory").flatten();
    let segments = entries.filter(|entry| entry.path().extension().is_some_and(|it| it == "seg"));
    let holds = |content: Vec<u8>| content.windows(64).any(|window| window == &bytes[..64]);
    segments.map(|entry| fs::read(entry.path()).expect("a segment")).any(holds)
}

pub fn without_trash(path: &Path) -> StoreConfig {
    StoreConfig { trash_secs: 0, segment_bytes_max: 64 << 20, ..config(path) }
}

/// Waits for what the store does by itself every second.
pub async fn until(what: &str, store: &Store, done: impl Fn(&Store) -> bool) {
    let outcome = tokio::time::timeout(Duration::from_secs(60), async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while !done(store) {
            tick.tick().await;
        }
    });
    outcome.await.unwrap_or_else(|_| panic!("{what}: {:?}", store.metrics()));
}

/// 12 shards of 192 KiB.
fn large(seed: u64) -> Object {
    let recipe = Recipe { stripe_count: 4, stripe_bytes: 384 << 10, ..Recipe::small(seed) };
    object(recipe)
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_are_made_where_freed_shards_were() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let store = open(without_trash(path)).await.expect("a new store");
    let client = Client::new(1);
    let (gone, kept) = (large(1), large(2));
    let bytes = 12 * (192_u64 << 10);
    put(&store, &client, &gone, Terms::pin(1, 1)).await.expect("put");
    put(&store, &client, &kept, Terms::pin(2, 2)).await.expect("put");
    let before = allocated(path);
    assert!(before >= 2 * bytes);
    store.release(client.id, Terms::pin(1, 1).lease).await.expect("its own lease");
    until("holes", &store, |store| store.metrics().reclaimed_bytes >= bytes).await;

    assert!(allocated(path) + bytes <= before + (64 << 10), "{} of {before}", allocated(path));
    let usage = store.usage();
    assert_eq!((usage.shards.dead.count, usage.shards.dead.bytes), (0, 0));
    assert_eq!(usage.shards.live.bytes, bytes);
    for (_, _, bytes) in &gone.groups[0].shards {
        assert!(!is_on_disk(path, bytes), "a freed shard reads as zeros");
    }
    for (_, _, bytes) in &kept.groups[0].shards {
        assert!(is_on_disk(path, bytes));
    }
    assert_readable(&store, &kept).await;
    // The same bytes again are written again, elsewhere.
    put(&store, &client, &gone, Terms::pin(3, 3)).await.expect("put");
    assert_readable(&store, &gone).await;
    store.close().await.expect("an orderly stop");

    let report = fsck(path).expect("a check");
    assert!(report.is_clean(), "a hole is no damage: {report:?}");
    let map = dump_map(path, Source::Index, false).expect("at rest");
    assert_eq!(dump_map(path, Source::Log, false).expect("at rest"), map);
    rebuild_index(path).expect("at rest");
    let store = open(without_trash(path)).await.expect("the same store");
    assert_readable(&store, &kept).await;
    assert_readable(&store, &gone).await;
    assert_eq!(store.usage().shards.dead.bytes, 0, "known from the log");
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_segments_that_nothing_needs_are_unlinked() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let small = StoreConfig { segment_bytes_max: 1 << 20, ..without_trash(path) };
    let store = open(small.clone()).await.expect("a new store");
    let client = Client::new(1);
    let (gone, kept) = (large(1), large(2));
    put(&store, &client, &gone, Terms::pin(1, 1)).await.expect("put");
    put(&store, &client, &kept, Terms::pin(2, 2)).await.expect("put");
    assert!(path.join("0000000001.seg").exists() && path.join("0000000002.seg").exists());
    store.release(client.id, Terms::pin(1, 1).lease).await.expect("its own lease");
    until("segments", &store, |store| store.metrics().reclaimed_segments >= 2).await;

    assert!(!path.join("0000000001.seg").exists(), "wholly dead, the oldest");
    assert_readable(&store, &kept).await;
    store.close().await.expect("an orderly stop");
    let report = fsck(path).expect("a check");
    assert!(report.is_clean(), "missing segments are accounted for: {report:?}");
    let map = dump_map(path, Source::Index, false).expect("at rest");
    rebuild_index(path).expect("at rest");
    assert_eq!(dump_map(path, Source::Index, false).expect("at rest"), map);
    let store = open(small).await.expect("the same store");
    assert_readable(&store, &kept).await;
    // 12 shards and a root were freed; the last few share a segment with what is kept.
    assert!(store.usage().tombstones < 10, "they leave with what they stood on");
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_node_removes_what_the_log_calls_gone() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let small = StoreConfig { segment_bytes_max: 1 << 20, ..without_trash(path) };
    let store = open(small.clone()).await.expect("a new store");
    let client = Client::new(1);
    put(&store, &client, &large(1), Terms::pin(1, 1)).await.expect("put");
    put(&store, &client, &large(2), Terms::pin(2, 2)).await.expect("put");
    let first = path.join("0000000001.seg");
    let bytes = fs::read(&first).expect("a segment");
    store.release(client.id, Terms::pin(1, 1).lease).await.expect("its own lease");
    until("segments", &store, |store| store.metrics().reclaimed_segments >= 2).await;
    store.close().await.expect("an orderly stop");

    // As a crash between the log's word and the deed leaves it.
    fs::write(&first, bytes).expect("a segment");
    assert!(stats(path).expect("at rest").is_whole);
    let map = dump_map(path, Source::Index, false).expect("at rest");
    assert_eq!(dump_map(path, Source::Log, false).expect("at rest"), map);
    assert!(fsck(path).expect("a check").is_clean());
    rebuild_index(path).expect("at rest");
    assert!(first.exists(), "tools change no segment");
    let newest = fs::read_dir(path).expect("a directory").flatten().map(|entry| entry.path());
    let newest = newest.filter(|path| path.extension().is_some_and(|it| it == "seg")).max();
    let newest = newest.expect("a segment");
    let whole = fs::read(&newest).expect("a segment");
    fs::write(&newest, [vec![0; 8192], whole[8192..].to_vec()].concat()).expect("writable");
    assert!(!stats(path).expect("at rest").is_whole);
    fs::write(&newest, whole).expect("writable");
    let store = open(small).await.expect("the same store");
    until("its file", &store, |_| !first.exists()).await;
    assert_readable(&store, &large(2)).await;
    store.close().await.expect("an orderly stop");
}

#[tokio::test]
async fn only_a_node_removes_a_segment_that_was_never_used() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let small = StoreConfig { segment_bytes_max: 1 << 20, ..without_trash(path) };
    let store = open(small.clone()).await.expect("a new store");
    put(&store, &Client::new(1), &large(1), Terms::pin(1, 1)).await.expect("put");
    store.close().await.expect("an orderly stop");
    // As a crash before its header was written leaves it.
    let unused = path.join("0000000099.seg");
    fs::write(&unused, []).expect("a segment");

    stats(path).expect("at rest");
    dump_map(path, Source::Index, false).expect("at rest");
    assert!(fsck(path).expect("a check").is_clean());
    rebuild_index(path).expect("at rest");
    assert!(unused.exists(), "tools change no segment");

    let first = path.join("0000000001.seg");
    let whole = fs::read(&first).expect("a segment");
    fs::write(&first, [vec![0; 8192], whole[8192..].to_vec()].concat()).expect("writable");
    let store = open(small.clone()).await.expect("the same store");
    store.close().await.expect("an orderly stop");
    assert!(unused.exists(), "nothing is tidied up where something is damaged");
    fs::write(&first, whole).expect("writable");
    let store = open(small).await.expect("the same store");
    assert!(!unused.exists());
    assert_readable(&store, &large(1)).await;
    store.close().await.expect("an orderly stop");
}
