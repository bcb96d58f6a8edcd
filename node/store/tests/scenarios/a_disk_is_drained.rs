// SPDX-License-Identifier: MIT OR Apache-2.0
//! A disk is emptied while the store serves, and nothing is ever on no disk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use supernode_protocol::ids::{LeaseId, ShardId};
use supernode_protocol::lease::{Expiry, LeaseKind};
use supernode_store::disk::SimDisk;
use supernode_store::evicting::{Admission, ShardCache, ShardCacheConfig};
use supernode_store::index::{Index, MemoryIndex, OpenFailure};
use supernode_store::recovery::IndexSource;
use supernode_store::{
    DealLease, DrainState, Durability, GroupEvent, Place, PutBlock, Store, StoreConfig, StoreError,
};

use super::damage_is_never_served::rot;
use super::failing_disk::{Mood, open_two};
use super::freed_bytes_come_back::until;
use super::several_disks_are_one_store::{assert_whole, disks};
use super::support::{assert_readable, config, open, put, put_shard};
use crate::sample::{Client, Object, Recipe, Terms, bytes_of, object};

fn terms_of(number: u8) -> Terms {
    let pin = Terms::pin(number, number);
    let (kind, expiry) = match number % 4 {
        0 => (LeaseKind::Deal, Expiry::FinalisedHeight(1000 + u64::from(number))),
        1 => (LeaseKind::Cache, Expiry::Never),
        2 => (LeaseKind::Repair, Expiry::RunningSeconds(5000)),
        _ => (pin.kind, pin.expiry),
    };
    Terms { kind, expiry, ..pin }
}

/// Puts objects of two groups under leases of every kind.
async fn fill(store: &Store, client: &Client, numbers: std::ops::Range<u8>) -> Vec<Object> {
    let mut objects = Vec::new();
    for number in numbers {
        let object = object(Recipe { group_count: 2, ..Recipe::small(number.into()) });
        put(store, client, &object, terms_of(number)).await.expect("room");
        objects.push(object);
    }
    objects
}

fn settings(root: &Path) -> StoreConfig {
    StoreConfig { trash_secs: 1, upload_idle_secs: 10, ..disks(root, &[1 << 30; 3]) }
}

async fn drained(store: &Store, disk: usize) {
    let id = &store.disks()[disk].id;
    until("a drained disk", store, |store| {
        let status = store.drain_status(id).expect("it is there");
        assert!(status.error.is_none(), "{status:?}");
        status.state == DrainState::Done
    })
    .await;
    assert_eq!(store.disks()[disk].used_bytes, 0);
}

/// What a store says of everything it keeps, on whichever disk that is.
async fn account(store: &Store, client: &Client, objects: &[Object]) -> Vec<String> {
    let mut account = Vec::new();
    for entry in store.leases_of(client.id, None, 10_000).await.expect("index") {
        let (lease, kind, group, bytes) =
            (entry.lease, entry.kind, entry.group, entry.object_bytes);
        let ends = match entry.remaining {
            // Seconds pass meanwhile.
            Expiry::RunningSeconds(secs) => Expiry::RunningSeconds(secs.div_ceil(1000) * 1000),
            ends => ends,
        };
        account.push(format!("{lease} {kind:?} {} {group} {bytes} {ends:?}", entry.object));
    }
    for deal in store.deals(None, 10_000).await.expect("index") {
        // What is on two disks counts twice until it is moved.
        let DealLease { lease, owner, height, settled, object, .. } = deal;
        account.push(format!("{lease} {owner} {height} {settled} {object:?}"));
    }
    for (object, group) in objects.iter().flat_map(|object| [(object, 0), (object, 1)]) {
        assert_readable(store, object).await;
        let read = store.group(object.cid, group).await.expect("it is here");
        let held = store.held(object.cid, group).await.expect("it is here");
        let span = store.span(object.cid, group).await.expect("index");
        account.push(format!("{} {group} {held:?} {:?} {span:?}", object.cid, read.placement));
    }
    account
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_moved_as_it_is() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut settings = settings(directory.path());
    let store = open(settings.clone()).await.expect("three new disks");
    let client = Client::new(1);
    let objects = fill(&store, &client, 0..40).await;
    for (number, object) in (0..).zip(&objects).step_by(3) {
        store.place(object.placement(&client, 1, 7)).await.expect("it is here");
        store.keep_span(object.cid, 1, vec![number; 50].into()).await.expect("it is here");
        // A second lease of another owner, which covers what the first one does.
        let other = Client::new(2);
        let again = Terms { epoch: 9, ..Terms::pin(200 + number, 200 + number) };
        put(&store, &other, object, again).await.expect("room");
    }
    for number in (0..40).step_by(8) {
        store.move_deal(terms_of(number).lease, 500 + u64::from(number)).await.expect("a deal");
    }
    let released = fill(&store, &client, 40..44).await;
    for number in [41, 42, 43] {
        store.release(client.id, terms_of(number).lease).await.expect("its own lease");
    }
    drop(released);
    let before = account(&store, &client, &objects).await;
    let (groups, deals) = (store.usage().live_groups, store.deals(None, 10).await.expect("index"));
    let mut events = store.events();

    let id = store.disks()[1].id.clone();
    assert_eq!(store.drain_status(&id).expect("it is there").state, DrainState::Off);
    store.drain(&id).await.expect("there is room elsewhere");
    let late = fill(&store, &client, 44..48).await;
    drained(&store, 1).await;
    let after = account(&store, &client, &objects).await;
    assert!(after.len() > before.len(), "there are more leases by now");
    for line in &before {
        assert!(after.contains(line), "{line}\nis not in\n{}", after.join("\n"));
    }
    assert_eq!(store.usage().live_groups, groups + 8);
    assert_eq!(store.deals(None, 10).await.expect("index"), deals);
    store.release(client.id, terms_of(45).lease).await.expect("its own lease");
    let first_end = loop {
        match events.recv().await.expect("few events") {
            GroupEvent::Committed(_) => {}
            GroupEvent::Released(held) => break held.object,
        }
    };
    assert_eq!(first_end, late[1].cid, "what is moved has not ended");
    let after = account(&store, &client, &objects).await;
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);

    let gone = settings.disks.remove(1);
    std::fs::remove_dir_all(gone.path).expect("an own directory");
    let store = open(settings.clone()).await.expect("the disk is not needed");
    assert_eq!(account(&store, &client, &objects).await, after);
    account(&store, &client, &late[2..]).await;
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_notices_a_drain() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreConfig { cache_bytes_max: 0, ..settings(directory.path()) };
    let store = open(settings.clone()).await.expect("three new disks");
    let client = Client::new(1);
    let objects = Arc::new(fill(&store, &client, 0..60).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (store, objects) = (store.clone(), Arc::clone(&objects));
            let is_over = Arc::clone(&is_over);
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    for object in objects.iter() {
                        assert_readable(&store, object).await;
                        let held = store.held(object.cid, 1).await.expect("index");
                        assert_eq!(held.len(), 3, "all of the group");
                        assert!(store.has_shard(held[0].1).await.expect("index"));
                        let read = store.group(object.cid, 0).await.expect("it is here");
                        assert_eq!(read.root, object.root);
                    }
                }
            })
        })
        .collect();
    let writer = tokio::spawn({
        let store = store.clone();
        async move { fill(&store, &Client::new(3), 100..140).await }
    });
    // The chain and the owners have their say meanwhile, more than once.
    let changer = tokio::spawn({
        let store = store.clone();
        async move {
            for round in 1..=5 {
                for number in 0..60_u8 {
                    let lease = terms_of(number).lease;
                    match number % 4 {
                        0 => drop(store.move_deal(lease, 100 * round).await.expect("a deal")),
                        3 => {
                            let expiry = Expiry::RunningSeconds(100_000 * round);
                            store.renew(Client::new(1).id, lease, expiry).await.expect("its own");
                        }
                        _ => {}
                    }
                }
            }
        }
    });
    let id = store.disks()[1].id.clone();
    store.drain(&id).await.expect("there is room elsewhere");
    let written = writer.await.expect("no put fails");
    changer.await.expect("no change fails");
    drained(&store, 1).await;
    is_over.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.expect("no read fails");
    }
    account(&store, &client, &written).await;
    for deal in store.deals(None, 1000).await.expect("index") {
        let is_ours = deal.lease.as_bytes()[0] < 100;
        assert!(!is_ours || (deal.height, deal.settled) == (500, true), "{deal:?}");
        assert_eq!((deal.slots, deal.bytes), (6, 6 * 320), "{deal:?}");
    }
    for entry in store.leases_of(client.id, None, 1000).await.expect("index") {
        let Expiry::RunningSeconds(left) = entry.remaining else { continue };
        assert!(entry.kind != LeaseKind::Pin || left > 499_000, "{entry:?}");
    }
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_goes_on_after_a_restart_until_it_is_cancelled() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = settings(directory.path());
    let client = Client::new(1);
    // A group's shards take about a second.
    let slow = StoreConfig { drain_bytes_per_sec: 1000, ..settings.clone() };
    let store = open(slow).await.expect("three new disks");
    let objects = fill(&store, &client, 0..40).await;
    let id = store.disks()[1].id.clone();
    store.drain(&id).await.expect("there is room elsewhere");
    until("something moved", &store, |store| {
        store.drain_status(&id).expect("it is there").moved_bytes > 0
    })
    .await;
    let left = store.drain_status(&id).expect("it is there");
    assert_eq!(left.state, DrainState::Draining);
    assert!(left.left_groups > 0 && left.eta_secs.is_some(), "{left:?}");
    store.close().await.expect("an orderly stop");

    let store = open(settings.clone()).await.expect("the same disks");
    drained(&store, 1).await;
    fill(&store, &client, 40..60).await;
    assert_eq!(store.disks()[1].used_bytes, 0, "it takes nothing new");
    store.close().await.expect("an orderly stop");
    let store = open(settings.clone()).await.expect("the same disks");
    drained(&store, 1).await;
    let status = store.cancel_drain(&id).await.expect("it is there");
    assert_eq!(status.state, DrainState::Off);
    fill(&store, &client, 60..80).await;
    assert!(store.disks()[1].used_bytes > 0, "it is used again");
    account(&store, &client, &objects).await;
    store.close().await.expect("an orderly stop");
    let store = open(settings.clone()).await.expect("the same disks");
    assert_eq!(store.drain_status(&id).expect("it is there").state, DrainState::Off);
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_nowhere_to_go_is_not_drained() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(disks(directory.path(), &[1 << 20, 1 << 20])).await.expect("two new disks");
    let client = Client::new(1);
    fill(&store, &client, 0..10).await;
    let ids: Vec<_> = store.disks().into_iter().map(|disk| disk.id).collect();
    let refused = store.drain("nothing").await;
    assert!(matches!(refused, Err(StoreError::Drain { .. })), "{refused:?}");
    store.drain(&ids[0]).await.expect("there is room elsewhere");
    let refused = store.drain(&ids[1]).await;
    assert!(matches!(refused, Err(StoreError::Drain { .. })), "{refused:?}");
    store.close().await.expect("an orderly stop");
}

/// How many kept groups are on a disk.
fn left(store: &Store, disk: &str) -> u64 {
    store.drain_status(disk).expect("it is there").left_groups
}

#[tokio::test(flavor = "multi_thread")]
async fn the_power_may_go_at_any_moment_of_a_drain() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let client = Client::new(1);
    let (store, _) = open_two(directory.path()).await.expect("two new disks");
    let objects = fill(&store, &client, 0..60).await;
    let mut before = account(&store, &client, &objects).await;
    before.sort_unstable();
    store.close().await.expect("an orderly stop");
    drop(store);
    let drained = "0000000000000001";
    for cut in 0_u64.. {
        let (store, switches) = open_two(directory.path()).await.expect("what is durable is whole");
        let mut after = account(&store, &client, &objects).await;
        after.sort_unstable();
        assert_eq!(after, before, "after {cut} cuts");
        let first = left(&store, drained);
        store.drain(drained).await.expect("there is room elsewhere");
        let is_done = || store.drain_status(drained).is_ok_and(|it| it.state == DrainState::Done);
        until("progress", &store, |store| is_done() || left(store, drained) + 7 + cut <= first)
            .await;
        if is_done() {
            assert!(cut > 0, "it was cut before");
            store.close().await.expect("an orderly stop");
            break;
        }
        switches.iter().for_each(|switch| switch.set(Mood::Fails));
        let _ = store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_while_it_is_moved_has_ended() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = settings(directory.path());
    let store = open(settings.clone()).await.expect("three new disks");
    let client = Client::new(1);
    let objects = fill(&store, &client, 0..60).await;
    let id = store.disks()[1].id.clone();
    store.drain(&id).await.expect("there is room elsewhere");
    for number in (0..60_u8).rev().filter(|number| number % 3 == 0) {
        let lease: LeaseId = terms_of(number).lease;
        match terms_of(number).kind {
            LeaseKind::Deal => drop(store.end_deal(lease).await.expect("a deal")),
            _ => drop(store.release(client.id, lease).await.expect("its own lease")),
        }
    }
    drained(&store, 1).await;
    for (number, object) in objects.iter().enumerate() {
        match store.held(object.cid, 1).await {
            Ok(held) => assert!(held.len() == 3 && number % 3 != 0, "object {number}: {held:?}"),
            Err(StoreError::GroupNotFound { .. }) => assert_eq!(number % 3, 0, "object {number}"),
            Err(error) => panic!("object {number}: {error}"),
        }
    }
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);
}

/// An index in memory: a start makes it anew from the log.
struct NoIndex;

impl IndexSource for NoIndex {
    fn open(&self) -> Result<Arc<dyn Index>, OpenFailure> {
        Ok(Arc::new(MemoryIndex::default()))
    }

    fn discard(&self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A store that acknowledges before anything is on disk, on two simulated ones.
fn open_relaxed(disks: &[SimDisk; 2]) -> Store {
    let paths = ["a", "b"].map(Path::new);
    let relaxed = StoreConfig {
        durability: Durability::Relaxed,
        sync_interval_millis: 3_600_000,
        cache_bytes_max: 0,
        ..config(paths[0])
    };
    let place = |number: usize| Place {
        path: paths[number],
        capacity_bytes: 1 << 30,
        disk: Arc::new(disks[number].clone()),
        index: &NoIndex,
        lock: None,
    };
    Store::open_on_all(relaxed, vec![place(0), place(1)]).expect("what is durable is whole")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ended_on_one_disk_is_durable_on_another() {
    for seed in 0..12 {
        let disks = [SimDisk::new(seed), SimDisk::new(seed + 1000)];
        let client = Client::new(1);
        let store = open_relaxed(&disks);
        let objects = fill(&store, &client, 0..20).await;
        store.close().await.expect("all of it is on disk now");
        let store = open_relaxed(&disks);
        let drained = "0000000000000001";
        let first = left(&store, drained);
        store.drain(drained).await.expect("there is room elsewhere");
        until("progress", &store, |store| {
            left(store, drained) + 2 * (seed + 1) <= first.max(2) || left(store, drained) == 0
        })
        .await;
        // What is on the first of these no more is on the other one by then.
        let from = disks[1].crash();
        let to = disks[0].crash();
        store.close().await.expect("an orderly stop");
        let store = open_relaxed(&[to, from]);
        for object in &objects {
            assert_readable(&store, object).await;
            for group in 0..2 {
                let held = store.held(object.cid, group).await.expect("index");
                assert_eq!(held.len(), 3, "seed {seed}");
            }
        }
        store.close().await.expect("an orderly stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_released_before_waits_where_it_is_and_can_be_revived() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreConfig { trash_secs: 3600, ..settings(directory.path()) };
    let store = open(settings.clone()).await.expect("three new disks");
    let client = Client::new(1);
    let objects = fill(&store, &client, 0..100).await;
    for number in (0..100).filter(|number| number % 4 == 3) {
        store.release(client.id, terms_of(number).lease).await.expect("its own lease");
    }
    let trash = store.usage().trash_groups;
    let id = store.disks()[1].id.clone();
    let waiting = store.drain(&id).await.expect("there is room elsewhere").trash_groups;
    assert!(waiting > 0, "some of the trash is on it");
    // What was moved is freed there; the trash has its time.
    until("kept groups", &store, |store| {
        left(store, &id) == 0 && store.usage().trash_groups == trash
    })
    .await;
    let status = store.drain_status(&id).expect("it is there");
    assert_eq!((status.state, status.trash_groups), (DrainState::Draining, waiting));
    let again = Terms::pin(240, 240);
    put(&store, &client, &objects[3], again).await.expect("room");
    assert_readable(&store, &objects[3]).await;
    until("all kept groups", &store, |store| left(store, &id) == 0).await;
    assert_readable(&store, &objects[3]).await;
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_begins_where_another_one_moves_things_loses_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let slow = StoreConfig { drain_bytes_per_sec: 3000, ..settings(directory.path()) };
    let slow = StoreConfig { upload_idle_secs: 8, cache_bytes_max: 0, ..slow };
    let store = open(slow).await.expect("three new disks");
    let client = Client::new(1);
    let object = object(Recipe { stripe_count: 16, ..Recipe::small(1) });
    put(&store, &client, &object, Terms::pin(1, 1)).await.expect("room");
    let used = |store: &Store| -> Vec<usize> {
        let disks = store.disks().into_iter().enumerate();
        disks.filter(|(_, disk)| disk.used_bytes > 0).map(|(number, _)| number).collect()
    };
    let from = used(&store)[0];
    let ids: Vec<_> = store.disks().into_iter().map(|disk| disk.id).collect();
    store.drain(&ids[from]).await.expect("room");
    until("some of it is moved", &store, |store| {
        store.drain_status(&ids[from]).expect("it is there").moved_bytes > 2000
    })
    .await;
    let to = used(&store).into_iter().find(|disk| *disk != from).expect("something was moved");
    store.drain(&ids[to]).await.expect("room");
    until("both are drained", &store, |store| {
        let state = |disk: usize| store.drain_status(&ids[disk]).expect("it is there").state;
        (state(from), state(to)) == (DrainState::Done, DrainState::Done)
    })
    .await;
    assert_readable(&store, &object).await;
    store.close().await.expect("an orderly stop");
}

/// A shard that has rotted on one disk was put again, and is whole on the other; both have it in
/// the same slot.
async fn repaired_elsewhere(root: &Path) -> (Store, String, Object) {
    let client = Client::new(1);
    for seed in 0..40_u8 {
        let root = root.join(seed.to_string());
        let two = StoreConfig { trash_secs: 1, ..disks(&root, &[1 << 30; 2]) };
        let two = StoreConfig { upload_idle_secs: 8, cache_bytes_max: 0, ..two };
        let store = open(two.clone()).await.expect("two new disks");
        let object = object(Recipe { stripe_bytes: 20_000, ..Recipe::small(seed.into()) });
        put(&store, &client, &object, Terms::pin(1, 1)).await.expect("room");
        let bad = store.disks().iter().position(|disk| disk.used_bytes > 0).expect("it was put");
        store.close().await.expect("an orderly stop");
        let (slot, shard, bytes) = &object.groups[0].shards[1];
        rot(&two.disks[bad].path, bytes);
        let store = open(two).await.expect("damage keeps no store down");
        store.shard(*shard).await.expect_err("it has rotted");
        let terms = Terms::pin(2, 1);
        put_shard(&store, &client, terms.upload, *slot, bytes).await.expect("room");
        let good = &store.disks()[1 - bad];
        // Which disk it is drawn for depends on the upload.
        if good.used_bytes == 0 {
            store.close().await.expect("an orderly stop");
            continue;
        }
        let (cid, root) = (object.cid, object.root.clone());
        let block = PutBlock { caller: client.id, upload: terms.upload, cid, bytes: root };
        store.put_block(block).await.expect("room");
        store.commit(client.id, object.commit(&client, 0, terms)).await.expect("whole");
        let good = good.id.clone();
        return (store, good, object);
    }
    panic!("it was never drawn for the other disk");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_disk_has_is_read_before_it_counts() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (store, good, object) = repaired_elsewhere(directory.path()).await;
    assert_readable(&store, &object).await;
    store.drain(&good).await.expect("room");
    until("it is drained", &store, |store| {
        store.drain_status(&good).expect("it is there").state == DrainState::Done
    })
    .await;
    assert_readable(&store, &object).await;
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_moved_too() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreConfig { cache_bytes_max: 0, ..settings(directory.path()) };
    let store = open(settings.clone()).await.expect("three new disks");
    let room = ShardCacheConfig { bytes_max: 1 << 20, ..ShardCacheConfig::default() };
    let cache = ShardCache::open(store.clone(), room).await.expect("a new cache");
    let shards: Vec<_> = (0..60).map(|seed| bytes_of(9000 + seed, 3000)).collect();
    for bytes in &shards {
        let kept = cache.insert(ShardId::of(bytes), bytes.clone()).await.expect("a shard");
        assert_eq!(kept, Admission::Kept);
    }
    let before = store.disks();
    assert!(before.iter().all(|disk| disk.used_bytes > 0), "they are spread: {before:?}");
    store.drain(&before[1].id).await.expect("there is room elsewhere");
    for bytes in &shards[50..] {
        assert!(cache.remove(ShardId::of(bytes)).await.expect("it can be written"));
    }
    drained(&store, 1).await;
    for (number, bytes) in shards.iter().enumerate() {
        let found = cache.get(ShardId::of(bytes)).await;
        assert_eq!(found.is_some_and(|found| found.bytes == bytes), number < 50, "{number}");
    }
    assert_eq!(store.usage().upload_slots, 50);
    drop(cache);
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);
    let store = open(settings).await.expect("the same disks");
    let cache = ShardCache::open(store.clone(), room).await.expect("the same cache");
    assert_eq!(cache.stats().entries, 50);
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_may_be_cancelled_at_any_moment() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreConfig { cache_bytes_max: 0, ..settings(directory.path()) };
    let store = open(settings.clone()).await.expect("three new disks");
    let client = Client::new(1);
    let objects = fill(&store, &client, 0..60).await;
    for round in 0..12 {
        let id = store.disks()[round % 3].id.clone();
        let first = left(&store, &id);
        store.drain(&id).await.expect("there is room elsewhere");
        until("progress", &store, |store| left(store, &id) + 4 <= first || left(store, &id) == 0)
            .await;
        let status = store.cancel_drain(&id).await.expect("it is there");
        assert_eq!(status.state, DrainState::Off);
        for object in &objects {
            assert_readable(&store, object).await;
            for group in 0..2 {
                let held = store.held(object.cid, group).await.expect("index");
                assert_eq!(held.len(), 3, "round {round}");
            }
        }
    }
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);
}
