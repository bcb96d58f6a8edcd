// SPDX-License-Identifier: MIT OR Apache-2.0
//! Directories of every format ever released open for ever, and those of the future are refused
//! untouched.
//!
//! `fixtures/format-2` was written by [`write_the_fixture`], which stays to document how; it never
//! runs again for this format. That of format 1 had the same objects, and neither a span nor
//! anything that compaction writes.

use std::fs;
use std::path::{Path, PathBuf};

use supernode_store::StoreError;
use supernode_store::offline::{Source, compact, dump_map, fsck};
use supernode_store::segment::{SEGMENT_VERSION, SegmentHeader};

use super::support::{assert_readable, config, open, put};
use crate::sample::{Client, Object, Recipe, Terms, object};

fn fixture(format: u32) -> PathBuf {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_root.join("tests/fixtures").join(format!("format-{format}"))
}

fn objects() -> [Object; 2] {
    let zeros = Recipe { zeros: true, widths: (10, 4), ..Recipe::small(71) };
    [object(Recipe { group_count: 2, ..Recipe::small(70) }), object(zeros)]
}

/// Copies the segments, which is all there is to a fixture.
fn copy_segments(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a fixture").flatten() {
        if entry.path().extension().is_some_and(|name| name == "seg") {
            fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
        }
    }
}

/// Zeros in a shard that takes a segment of its own.
fn zeros(stripe_bytes: u64) -> Object {
    object(Recipe { zeros: true, widths: (10, 4), stripe_bytes, ..Recipe::small(73) })
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes the fixture of a new format, once"]
async fn write_the_fixture() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let store = open(config(path)).await.expect("a new store");
    let client = Client::new(1);
    for (number, object) in (1..).zip(objects()) {
        put(&store, &client, &object, Terms::pin(number, number)).await.expect("put");
        store.keep_span(object.cid, 0, vec![number; 64].into()).await.expect("held");
    }
    let gone = object(Recipe::small(72));
    put(&store, &client, &gone, Terms::pin(9, 9)).await.expect("put");
    store.release(client.id, Terms::pin(9, 9).lease).await.expect("its own lease");
    store.close().await.expect("an orderly stop");
    assert!(compact(path, |_| ()).expect("at rest").is_complete);
    // Two more segments; the first of them is sealed in good order and has a footer.
    let store = open(config(path)).await.expect("the same store");
    for (number, size) in [(3, 10 << 20), (4, 9 << 20)] {
        put(&store, &client, &zeros(size), Terms::pin(number, number)).await.expect("put");
    }
    store.close().await.expect("an orderly stop");
    let target = fixture(2);
    fs::create_dir_all(&target).expect("a directory in the checkout");
    copy_segments(path, &target);
    let lines = dump_map(path, Source::Log, true).expect("at rest");
    fs::write(target.join("map.txt"), lines.join("\n") + "\n").expect("writable");
}

/// Opens a fixture, and goes on with it.
async fn opens(format: u32, kinds: &[&str], footers: u64) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    copy_segments(&fixture(format), path);
    let expected = fs::read_to_string(fixture(format).join("map.txt")).expect("the map of then");
    let lines = dump_map(path, Source::Log, true).expect("at rest");
    assert_eq!(lines.join("\n") + "\n", expected);
    let report = fsck(path).expect("a check");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.footer_count, footers);
    for kind in kinds {
        assert!(report.records.contains_key(kind), "{kind} is not in {:?}", report.records);
    }
    let store = open(config(path)).await.expect("an old directory");
    for object in objects() {
        assert_readable(&store, &object).await;
    }
    let (client, new) = (Client::new(1), object(Recipe::small(74)));
    put(&store, &client, &new, Terms::pin(5, 5)).await.expect("put");
    store.close().await.expect("an orderly stop");
    assert!(fsck(path).expect("a check").is_clean());
    let store = open(config(path)).await.expect("the same store");
    for object in objects().iter().chain([&new]) {
        assert_readable(&store, object).await;
    }
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn format_1_opens() {
    opens(1, &["shard", "slot", "block", "commit", "lease", "clock"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_of_format_1_is_never_continued() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    copy_segments(&fixture(1), path);
    let old = fs::read(path.join("0000000001.seg")).expect("a segment");
    let store = open(config(path)).await.expect("an old directory");
    store.close().await.expect("an orderly stop");
    assert_eq!(fs::read(path.join("0000000001.seg")).expect("a segment"), old);
    let new = fs::read(path.join("0000000002.seg")).expect("the stop was written down");
    let header = SegmentHeader::decode(&new).expect("a whole header");
    assert_eq!((header.version, header.previous.footer), (SEGMENT_VERSION, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn format_2_opens() {
    opens(2, &["shard", "shard-copy", "block-copy", "restate", "clock"], 1).await;
}

/// Sets the version in both copies of the segment header, or in the first record's, with good
/// checksums: whole, and from the future.
fn age(path: &Path, offset: usize, at: usize, len: usize) {
    let mut bytes = fs::read(path).expect("a segment");
    bytes[offset + at] = 99;
    let crc = crc32c::crc32c(&bytes[offset..offset + len - 4]).to_le_bytes();
    bytes[offset + len - 4..offset + len].copy_from_slice(&crc);
    fs::write(path, bytes).expect("writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_future_is_refused_untouched() {
    for what in ["segment", "record"] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path();
        copy_segments(&fixture(1), path);
        let segment = path.join("0000000001.seg");
        if what == "segment" {
            age(&segment, 0, 8, 128);
            age(&segment, 4096, 8, 128);
        } else {
            age(&segment, 8192, 4, 96);
        }
        let before = fs::read(&segment).expect("a segment");
        let refused = open(config(path)).await.map(drop);
        assert!(matches!(refused, Err(StoreError::NewerFormat { .. })), "{what}: {refused:?}");
        let refused = dump_map(path, Source::Log, false);
        assert!(matches!(refused, Err(StoreError::NewerFormat { .. })), "{what}: {refused:?}");
        assert_eq!(fs::read(&segment).expect("a segment"), before, "{what}");
        let left: Vec<_> = fs::read_dir(path).expect("a directory").flatten().collect();
        let segments = left.iter().filter(|entry| entry.file_name() != "lock");
        assert!(segments.count() <= 2, "{what}: {left:?}");
    }
}
