// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bits rot in every part of a directory; the scrub finds what is damaged before somebody reads it,
//! says so, remembers it, and keeps to its pace.

use std::fs;
use std::path::{Path, PathBuf};

use supernode_protocol::ids::ShardId;
use supernode_store::offline::{Source, dump_map, fsck, rebuild_index, scan};
use supernode_store::record::{Body, Kind};
use supernode_store::segment::{FooterPlace, FoundRecord, SEGMENT_HEADER_BYTES, SegmentHeader};
use supernode_store::{ScrubCommand, ScrubState, ScrubStatus, Store, StoreConfig, Thing};

use super::freed_bytes_come_back::until;
use super::support::{assert_readable, config, open, put, put_shard};
use crate::sample::{Client, Object, Recipe, Terms, bytes_of, object};

/// Nothing is scrubbed unless asked, and then at once.
pub fn settings(path: &Path) -> StoreConfig {
    StoreConfig { scrub_interval_secs: 0, scrub_bytes_per_sec: 0, ..config(path) }
}

/// Waits until the scrub is as described.
async fn scrubbed(store: &Store, is_so: impl Fn(&ScrubStatus) -> bool) -> ScrubStatus {
    until("a scrub", store, |store| is_so(&store.scrub_status())).await;
    store.scrub_status()
}

pub async fn whole_pass(store: &Store) -> ScrubStatus {
    let passes = store.scrub_status().passes;
    store.scrub(ScrubCommand::Start);
    scrubbed(store, |status| status.passes > passes).await
}

fn segment(path: &Path, number: u32) -> PathBuf {
    path.join(format!("{number:010}.seg"))
}

pub fn flip(path: &Path, at: u64, bit: u32) {
    let mut bytes = fs::read(path).expect("a file of ours");
    bytes[usize::try_from(at).expect("a small file")] ^= 1 << (bit % 8);
    fs::write(path, bytes).expect("a file of ours");
}

fn records(path: &Path) -> Vec<FoundRecord> {
    let mut records = Vec::new();
    scan(path, |found| {
        records.push(found);
        Ok(())
    })
    .expect("whole segments");
    records
}

/// The footer of a segment that was sealed because it was full.
fn footer_of(path: &Path, number: u32) -> FooterPlace {
    let next = fs::read(segment(path, number + 1)).expect("it has a successor");
    let header = SegmentHeader::decode(&next[..SEGMENT_HEADER_BYTES]).expect("a whole header");
    assert_eq!(header.previous.number, number);
    header.previous.footer.expect("it was sealed in good order")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_footer_is_named_and_no_lost_data() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let kept = filled(path).await;
    let before = fsck(path).expect("a check");
    assert!(before.is_clean() && before.footer_count == 2, "{before:?}");
    assert_eq!(before.damaged_footers, [0; 0]);
    let lines = dump_map(path, Source::Log, true).expect("at rest");
    let footer = footer_of(path, 2);
    flip(&segment(path, 2), footer.offset + footer.len - 1, 0);
    let after = fsck(path).expect("a check");
    assert_eq!(after.damaged_footers, [2]);
    assert_eq!(after.footer_count, before.footer_count - 1);
    assert!(after.is_clean(), "nothing is lost: {after:?}");
    rebuild_index(path).expect("whole segments");
    assert_eq!(dump_map(path, Source::Index, true).expect("at rest"), lines);
    let store = open(settings(path)).await.expect("a whole store");
    assert_eq!((whole_pass(&store).await.damaged, store.metrics().quarantined), (1, 0));
    for object in &kept {
        assert_readable(&store, object).await;
    }
    store.close().await.expect("an orderly stop");
}

/// Objects under a pin, one of them let go and freed, and an upload, over several segments.
pub async fn filled(path: &Path) -> Vec<Object> {
    let store = open(StoreConfig { trash_secs: 0, ..settings(path) }).await.expect("a new store");
    let client = Client::new(1);
    let mut kept = Vec::new();
    for number in 1..=6_u8 {
        let recipe =
            Recipe { stripe_bytes: 30_000 * u64::from(number), ..Recipe::small(number.into()) };
        let object = object(Recipe { group_count: 2, ..recipe });
        put(&store, &client, &object, Terms::pin(number, number)).await.expect("there is room");
        kept.push(object);
    }
    let gone = kept.remove(2);
    store.release(client.id, Terms::pin(3, 3).lease).await.expect("its own lease");
    // 6 shards, a root and a page; before their tombstones a pass would read them too.
    until("what is released is freed", &store, |store| {
        let usage = store.usage();
        (usage.shards.live.count, usage.tombstones) == (30, 8)
    })
    .await;
    let slot = gone.groups[0].shards[0].0;
    let upload = Terms::pin(9, 9).upload;
    put_shard(&store, &client, upload, slot, &bytes_of(99, 70_000)).await.expect("there is room");
    store.close().await.expect("an orderly stop");
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_kept_is_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    filled(directory.path()).await;
    let store = open(settings(directory.path())).await.expect("a whole store");
    let read = store.metrics().read.bytes;
    let sound = whole_pass(&store).await;
    assert_eq!((sound.damaged, sound.unreadable), (0, 0), "{sound:?}");
    let usage = store.usage();
    assert_eq!(sound.verified, usage.shards.live.count + usage.blocks.live.count);
    assert_eq!(sound.verified_bytes, usage.shards.live.bytes + usage.blocks.live.bytes);
    assert!(store.metrics().read.bytes - read >= sound.verified_bytes, "from the disk");
    // The writer adds a record now and then; those of the pass were there when it began.
    assert!(sound.records > sound.verified && sound.records <= usage.records, "{sound:?}");
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sort_of_damage_is_found_told_and_remembered() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    let kept = filled(path).await;
    // A payload, a hash tree, a manifest, a commit's meta, headers of a commit, of a shard and of a
    // segment, a footer.
    let all = records(path);
    let of = |shard: ShardId| {
        let is_it = |found: &&FoundRecord| {
            found.header.kind == Kind::Shard && found.header.id == *shard.as_bytes()
        };
        all.iter().find(is_it).expect("it was put")
    };
    let shards: Vec<_> = kept.iter().map(|object| object.groups[0].shards[0].1).collect();
    let payload = of(shards[0]);
    let start = payload.header.shape.payload_start(payload.at.offset);
    flip(&segment(path, payload.at.segment), payload.at.offset + start + 5, 3);
    let tree = of(shards[4]);
    assert!(tree.header.shape.outboard_len > 0, "long enough for a tree");
    let tree_at = tree.at.offset + 96 + u64::from(tree.header.shape.meta_len) + 7;
    flip(&segment(path, tree.at.segment), tree_at, 1);
    let root = all.iter().find(|found| found.header.id == *kept[1].cid.as_bytes()).expect("a root");
    let start = root.header.shape.payload_start(root.at.offset);
    flip(&segment(path, root.at.segment), root.at.offset + start, 0);
    let commits: Vec<_> =
        all.iter().filter(|found| matches!(found.body, Body::Commit(_))).collect();
    flip(&segment(path, commits[3].at.segment), commits[3].at.offset + 100, 2);
    flip(&segment(path, commits[5].at.segment), commits[5].at.offset + 30, 2);
    let headless = of(shards[3]);
    flip(&segment(path, headless.at.segment), headless.at.offset + 40, 5);
    flip(&segment(path, 1), 4096 + 20, 2);
    let footer = footer_of(path, 1);
    flip(&segment(path, 1), footer.offset + footer.len / 2, 4);

    let store = open(settings(path)).await.expect("damage keeps no node down");
    let mut damage = store.damage();
    let found = whole_pass(&store).await;
    assert_eq!((found.damaged, found.unreadable), (8, 0), "{found:?}");
    assert_eq!(store.metrics().quarantined, 4);
    let mut told = Vec::new();
    while let Ok(thing) = damage.try_recv() {
        told.push(thing);
    }
    told.sort_unstable();
    let mut expected: Vec<_> = [0, 3, 4].map(|kept| Thing::Shard(shards[kept])).into();
    expected.push(Thing::Block(kept[1].cid));
    expected.sort_unstable();
    assert_eq!(told, expected);
    store.close().await.expect("an orderly stop");

    // The next start knows it without another pass.
    let store = open(settings(path)).await.expect("damage keeps no node down");
    until("it is remembered", &store, |store| store.metrics().quarantined == 4).await;
    assert_eq!(store.scrub_status(), found, "looking again is no pass");
    // Put again it is whole; what is damaged and dead is no damage any more.
    let (slot, _, bytes) = &kept[0].groups[0].shards[0];
    let upload = Terms::pin(20, 20).upload;
    put_shard(&store, &Client::new(1), upload, *slot, bytes).await.expect("there is room");
    let healed = whole_pass(&store).await;
    assert_eq!(store.metrics().quarantined, 3, "and it is missed no more");
    // It counts once, and not for the record that it had before.
    let context = format!("{healed:?} after {found:?}");
    assert_eq!((healed.damaged, healed.verified), (7, found.verified + 1), "{context}");
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrub_keeps_its_pace_pauses_and_goes_on_where_it_was() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    filled(path).await;
    let store = open(settings(path)).await.expect("a whole store");
    let whole = whole_pass(&store).await;
    store.close().await.expect("an orderly stop");

    // A day's work at this pace: what is read in the meantime is a record or two.
    let slow = StoreConfig { scrub_bytes_per_sec: 10, ..settings(path) };
    let store = open(slow.clone()).await.expect("a whole store");
    store.scrub(ScrubCommand::Start);
    let begun = scrubbed(&store, |status| status.records > 0).await;
    assert_eq!(begun.state, ScrubState::Running);
    assert_eq!(store.scrub(ScrubCommand::Pause).state, ScrubState::Paused);
    let paused = store.scrub_status();
    assert!(paused.records < whole.records, "{paused:?}");
    store.close().await.expect("closing does not wait for the pace");

    let store = open(settings(path)).await.expect("a whole store");
    assert_eq!(store.scrub_status(), paused, "paused is paused");
    assert_eq!(store.scrub(ScrubCommand::Resume).state, ScrubState::Running);
    let ended = scrubbed(&store, |status| status.passes == whole.passes + 1).await;
    let counts = |status: &ScrubStatus| (status.verified, status.verified_bytes, status.damaged);
    assert_eq!(counts(&ended), counts(&whole), "each record once");
    // Each start and stop adds a few.
    assert!((whole.records..whole.records * 2).contains(&ended.records), "{ended:?}");
    assert_eq!(ended.state, ScrubState::Waiting);
    store.close().await.expect("an orderly stop");

    let often = StoreConfig { scrub_interval_secs: 1, ..settings(path) };
    let store = open(often).await.expect("a whole store");
    let due = scrubbed(&store, |status| status.passes >= ended.passes + 2).await;
    assert!(due.started_secs > ended.started_secs, "by the running time: {due:?}");
    store.close().await.expect("an orderly stop");
}
