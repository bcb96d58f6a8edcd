// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whatever happens to `index/`, the store comes up with every shard readable, and the map is the
//! one that the log means.

use std::fs;
use std::path::{Path, PathBuf};

use supernode_protocol::ids::LeaseId;
use supernode_protocol::lease::Expiry;
use supernode_store::offline::{Source, dump_map, fsck};

use super::support::{assert_readable, config, open, put, put_shard};
use crate::sample::{Client, Object, Recipe, Terms, bytes_of, object};

/// Does something to a file of the index, given an older copy of it.
type Damage = fn(&Path, &Path);

const SEEDS: std::ops::Range<u64> = 10..16;

/// A stopped directory with objects, a released lease and an open upload.
async fn fill(path: &Path) -> Vec<Object> {
    let store = open(config(path)).await.expect("a new store");
    let client = Client::new(1);
    let mut objects = Vec::new();
    for (number, seed) in (1..).zip(SEEDS) {
        let object = object(Recipe { group_count: 2, ..Recipe::small(seed) });
        put(&store, &client, &object, Terms::pin(number, number)).await.expect("put");
        objects.push(object);
    }
    let zeros = object(Recipe { zeros: true, widths: (10, 4), ..Recipe::small(99) });
    put(&store, &client, &zeros, Terms::pin(50, 50)).await.expect("put");
    objects.push(zeros);
    let (slot, upload) = (objects[0].groups[0].shards[0].0, Terms::pin(60, 0).upload);
    put_shard(&store, &client, upload, slot, &bytes_of(7, 4096)).await.expect("put");
    let gone = objects.remove(0);
    store.release(client.id, LeaseId::from_bytes([1; 16])).await.expect("its own lease");
    assert!(store.group(gone.cid, 0).await.is_err());
    store.close().await.expect("an orderly stop");
    objects
}

fn dump(path: &Path, source: Source) -> Vec<String> {
    dump_map(path, source, true).expect("a directory at rest")
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn index_files(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.join("index")).expect("an index").flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// Opens, reads everything, closes; says whether the index had to be rebuilt.
async fn assert_whole(path: &Path, objects: &[Object], what: &str) -> bool {
    let store = open(config(path)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    for object in objects {
        assert_readable(&store, object).await;
    }
    let rebuilt = !store.metrics().index_rebuilds.is_empty();
    store.close().await.unwrap_or_else(|error| panic!("{what}: {error}"));
    rebuilt
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_survives_the_loss_of_everything_but_the_segments() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let objects = fill(path).await;
    let before = dump(path, Source::Index);
    assert_eq!(before, dump(path, Source::Log));
    assert!(before.iter().any(|line| line.contains(" trash ")), "{before:#?}");
    assert!(before[..before.len() - 1].is_sorted());
    for entry in fs::read_dir(path).expect("a directory").flatten() {
        if entry.path().is_dir() {
            fs::remove_dir_all(entry.path()).expect("removable");
        } else if entry.path().extension().is_none_or(|extension| extension != "seg") {
            fs::remove_file(entry.path()).expect("removable");
        }
    }
    assert_eq!(before, dump(path, Source::Index));
    assert!(!assert_whole(path, &objects, "after the loss").await, "the dump rebuilt it already");
    assert_eq!(before, dump(path, Source::Index));
    let report = fsck(path).expect("a check");
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.verified_count > 30, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_map_changes_with_a_put_and_with_a_lease() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let objects = fill(path).await;
    let first = dump(path, Source::Index);
    let client = Client::new(1);
    let store = open(config(path)).await.expect("the same store");
    let more = object(Recipe::small(1000));
    put(&store, &client, &more, Terms::pin(90, 90)).await.expect("put");
    store.close().await.expect("an orderly stop");
    let second = dump(path, Source::Index);
    assert_ne!(first.last(), second.last());
    let store = open(config(path)).await.expect("the same store");
    let lease = LeaseId::from_bytes([90; 16]);
    store.renew(client.id, lease, Expiry::RunningSeconds(7)).await.expect("its own lease");
    store.close().await.expect("an orderly stop");
    let third = dump(path, Source::Index);
    assert_ne!(second.last(), third.last());
    assert_eq!(third, dump(path, Source::Log));
    assert_whole(path, &objects, "in the end").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_to_any_file_of_the_index_costs_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (base, older) = (directory.path().join("base"), directory.path().join("older"));
    fs::create_dir(&base).expect("a temporary directory");
    let mut objects = fill(&base).await;
    copy(&base, &older);
    let store = open(config(&base)).await.expect("the same store");
    let newer = object(Recipe { stripe_count: 5, ..Recipe::small(500) });
    put(&store, &Client::new(2), &newer, Terms::pin(91, 91)).await.expect("put");
    store.close().await.expect("an orderly stop");
    objects.push(newer);
    let expected = dump(&base, Source::Log);
    let damages: [(&str, Damage); 7] = [
        ("deleted", |file, _| fs::remove_file(file).expect("removable")),
        ("emptied", |file, _| cut(file, |_| 0)),
        ("cut in half", |file, _| cut(file, |len| len / 2)),
        ("cut by a byte", |file, _| cut(file, |len| len.saturating_sub(1))),
        ("flipped in the middle", |file, _| flip(file, 2)),
        ("flipped early", |file, _| flip(file, 16)),
        ("an older copy", |file, older| {
            fs::copy(older, file).map(drop).unwrap_or_else(|_| cut(file, |_| 0));
        }),
    ];
    let mut rebuilds = 0;
    for file in index_files(&base) {
        let name = file.file_name().expect("a file").to_owned();
        for (damage, apply) in damages {
            let what = format!("{} {damage}", name.display());
            let path = directory.path().join("damaged");
            copy(&base, &path);
            apply(&path.join("index").join(&name), &older.join("index").join(&name));
            rebuilds += u32::from(assert_whole(&path, &objects, &what).await);
            assert_eq!(dump(&path, Source::Index), expected, "{what}");
            fs::remove_dir_all(&path).expect("removable");
        }
    }
    assert!(rebuilds >= 5, "only {rebuilds} of the damages were noticed: are they any?");
    // All of it at once: a snapshot of the index from before the last puts.
    fs::remove_dir_all(base.join("index")).expect("removable");
    copy(&older.join("index"), &base.join("index"));
    assert_whole(&base, &objects, "an older index").await;
    assert_eq!(dump(&base, Source::Index), expected);
}

fn cut(file: &Path, to: impl Fn(u64) -> u64) {
    let file = fs::OpenOptions::new().write(true).open(file).expect("a file");
    let len = file.metadata().expect("metadata").len();
    file.set_len(to(len)).expect("writable");
}

fn flip(file: &Path, part: usize) {
    let mut bytes = fs::read(file).expect("a file");
    let sector = (bytes.len() / part).min(bytes.len().saturating_sub(512));
    bytes.iter_mut().skip(sector).take(512).for_each(|byte| *byte ^= 0x55);
    fs::write(file, bytes).expect("writable");
}
