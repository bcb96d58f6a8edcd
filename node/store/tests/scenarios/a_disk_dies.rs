// SPDX-License-Identifier: MIT OR Apache-2.0
//! A dead or vanished disk takes its records offline, and the store serves the rest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use supernode_protocol::ids::{LeaseId, Slot};
use supernode_protocol::lease::Expiry;
use supernode_store::{DrainState, Store, StoreConfig, StoreError};
use tokio::time::{interval, timeout};

use super::failing_disk::{Mood, open_two};
use super::freed_bytes_come_back::until;
use super::several_disks_are_one_store::{assert_whole, disks};
use super::support::{assert_readable, config, open, put, put_shard};
use crate::sample::{Client, Object, Recipe, Terms, object};

/// Puts objects of one group each.
async fn fill(store: &Store, client: &Client, numbers: std::ops::Range<u8>) -> Vec<Object> {
    let mut objects = Vec::new();
    for number in numbers {
        let object = object(Recipe::small(number.into()));
        put(store, client, &object, Terms::pin(number, number)).await.expect("room");
        objects.push(object);
    }
    objects
}

/// How many objects are there; of all others it is said that their disk is offline.
async fn count_served(store: &Store, objects: &[Object]) -> usize {
    let mut served = 0;
    for object in objects {
        let shard = object.groups[0].shards[0].1;
        match store.group(object.cid, 0).await {
            Ok(_) => {
                assert_readable(store, object).await;
                served += 1;
            }
            Err(StoreError::Offline { .. }) => {
                let read = store.shard(shard).await;
                assert!(matches!(read, Err(StoreError::Offline { .. })), "{read:?}");
                let asked = store.has_shard(shard).await;
                assert!(matches!(asked, Err(StoreError::Offline { .. })), "{asked:?}");
                let held = store.held(object.cid, 0).await;
                assert!(matches!(held, Err(StoreError::Offline { .. })), "{held:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    served
}

/// What can happen to a directory between two starts, and how it is undone.
struct Mishap {
    name: &'static str,
    befall: fn(&Path, &Path),
    undo: fn(&Path, &Path),
}

fn mishaps() -> [Mishap; 3] {
    let away = |disk: &Path, aside: &Path| fs::rename(disk, aside).expect("own directories");
    let back = |disk: &Path, aside: &Path| {
        // An empty mount point is all that may be there.
        let _ = fs::remove_dir(disk);
        fs::rename(aside, disk).expect("own directories");
    };
    [
        Mishap { name: "removed", befall: away, undo: back },
        Mishap {
            name: "not mounted",
            befall: |disk, aside| {
                fs::rename(disk, aside).expect("own directories");
                fs::create_dir(disk).expect("an own directory");
            },
            undo: back,
        },
        Mishap {
            name: "unreadable",
            befall: |disk, _| {
                fs::remove_file(disk.join("lock")).expect("a lock file");
                fs::create_dir(disk.join("lock")).expect("an own directory");
            },
            undo: |disk, _| fs::remove_dir(disk.join("lock")).expect("an own directory"),
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_not_there_at_the_start_is_waited_for() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = disks(directory.path(), &[1 << 30; 3]);
    let client = Client::new(1);
    let store = open(settings.clone()).await.expect("three new disks");
    let mut objects = fill(&store, &client, 0..60).await;
    store.close().await.expect("an orderly stop");
    let (disk, aside) = (&settings.disks[1].path, directory.path().join("aside"));
    for (Mishap { name, befall, undo }, first) in mishaps().into_iter().zip([60, 70, 80]) {
        befall(disk, &aside);
        let store = open(settings.clone()).await.expect("two disks are there");
        let states = store.disks();
        assert!(states[1].offline.is_some(), "{name}: {states:?}");
        assert!(states[0].offline.is_none() && states[2].offline.is_none(), "{name}: {states:?}");
        assert_eq!(store.capacity_bytes(), 2 << 30, "{name}");
        let served = count_served(&store, &objects).await;
        assert!((1..objects.len()).contains(&served), "{name}: {served}");
        objects.extend(fill(&store, &client, first..first + 10).await);
        assert_eq!(count_served(&store, &objects).await, served + 10, "{name}");
        let unknown = Terms::pin(250, 250).lease;
        let refused = store.release(client.id, unknown).await;
        assert!(matches!(refused, Err(StoreError::Offline { .. })), "{name}: {refused:?}");
        store.close().await.expect("an orderly stop");
        if name == "not mounted" {
            let count = fs::read_dir(disk).expect("it is there").count();
            assert_eq!(count, 0, "an empty mount point is no new disk");
        }
        undo(disk, &aside);
        let store = open(settings.clone()).await.expect("all disks are there");
        assert!(store.disks().iter().all(|disk| disk.offline.is_none()), "{name}");
        assert_eq!(count_served(&store, &objects).await, objects.len(), "{name}");
        store.close().await.expect("an orderly stop");
    }
    assert_whole(&settings);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_disk_there_is_no_store() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = disks(directory.path(), &[1 << 30; 2]);
    let store = open(settings.clone()).await.expect("two new disks");
    store.close().await.expect("an orderly stop");
    for disk in &settings.disks {
        fs::remove_dir_all(&disk.path).expect("an own directory");
    }
    let error = open(settings).await.map(drop).expect_err("no disk").to_string();
    assert!(error.contains("mount the disk and start again"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_are_known_by_what_is_on_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path();
    let settings = disks(root, &[1 << 30; 2]);
    let client = Client::new(1);
    let store = open(settings.clone()).await.expect("two new disks");
    let objects = fill(&store, &client, 0..20).await;
    store.close().await.expect("an orderly stop");

    // They change their mount points.
    let (a, b) = (&settings.disks[0].path, &settings.disks[1].path);
    swap(a, b);
    let store = open(settings.clone()).await.expect("the same two disks");
    assert_eq!(count_served(&store, &objects).await, 20);
    store.close().await.expect("an orderly stop");

    // One is named twice.
    std::os::unix::fs::symlink(a, root.join("d")).expect("an own directory");
    let mut twice = settings.clone();
    twice.disks[1].path = root.join("d");
    let error = open(twice).await.map(drop).expect_err("the same disk").to_string();
    assert!(error.contains("name it once"), "{error}");

    // One belongs to another node.
    let foreign = StoreConfig { node: Client::new(9).id, ..config(&root.join("e")) };
    let other = open(foreign).await.expect("another node's");
    let number = object(Recipe::small(99));
    put(&other, &client, &number, Terms::pin(99, 99)).await.expect("room");
    other.close().await.expect("an orderly stop");
    let mut mixed = settings;
    mixed.disks[1].path = root.join("e");
    let refused = open(mixed).await.map(drop);
    assert!(matches!(refused, Err(StoreError::ForeignNode { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_was_acknowledged_reaches_the_disk_that_was_away() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreConfig { trash_secs: 1, ..disks(directory.path(), &[1 << 30; 2]) };
    let store = open(settings.clone()).await.expect("two new disks");
    let client = Client::new(1);
    let mut objects = Vec::new();
    for number in 0..20 {
        let object = object(Recipe::small(number.into()));
        let terms = Terms { expiry: Expiry::RunningSeconds(60), ..Terms::pin(number + 10, 1) };
        put(&store, &client, &object, terms).await.expect("room");
        objects.push(object);
    }
    let (lease, day) = (Terms::pin(1, 1).lease, Expiry::RunningSeconds(86_400));
    store.close().await.expect("an orderly stop");
    let (disk, aside) = (&settings.disks[1].path, directory.path().join("aside"));
    fs::rename(disk, &aside).expect("own directories");
    let store = open(settings.clone()).await.expect("one is there");
    store.renew(client.id, lease, day).await.expect("its own lease");
    store.close().await.expect("an orderly stop");
    fs::rename(&aside, disk).expect("own directories");
    let store = open(settings.clone()).await.expect("both are there");
    // What is told of a lease is the earliest of its ends.
    let is_level = async || {
        let leases = store.leases_of(client.id, None, 100).await.expect("index");
        assert_eq!(leases.len(), objects.len());
        let is_long = |end: Expiry| matches!(end, Expiry::RunningSeconds(80_000..));
        leases.iter().all(|entry| is_long(entry.remaining))
    };
    let mut tick = interval(Duration::from_millis(10));
    let waiting = async {
        while !is_level().await {
            tick.tick().await;
        }
    };
    timeout(Duration::from_secs(30), waiting).await.expect("the longer one holds");
    store.close().await.expect("an orderly stop");
}

/// Two directories change their names.
fn swap(a: &Path, b: &Path) {
    let aside = a.with_extension("aside");
    fs::rename(a, &aside).expect("own directories");
    fs::rename(b, a).expect("own directories");
    fs::rename(&aside, b).expect("own directories");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_survivor_at_a_dead_disks_path_does_not_hide_the_loss() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = disks(directory.path(), &[1 << 30; 2]);
    let store = open(settings.clone()).await.expect("two new disks");
    let mut objects = fill(&store, &Client::new(1), 0..40).await;
    store.close().await.expect("an orderly stop");
    let (a, b) = (&settings.disks[0].path, &settings.disks[1].path);
    fs::rename(a, directory.path().join("dead")).expect("own directories");
    fs::rename(b, a).expect("own directories");
    fs::create_dir(b).expect("an empty mount point");
    for start in 0..3 {
        let store = open(settings.clone()).await.expect("one is there");
        let offline = store.disks().iter().filter(|disk| disk.offline.is_some()).count();
        assert!(offline >= 1, "start {start}: {:?}", store.disks());
        let served = count_served(&store, &objects).await;
        assert!((1..objects.len()).contains(&served), "start {start}: {served}");
        objects.extend(fill(&store, &Client::new(1), 50 + start..51 + start).await);
        store.close().await.expect("an orderly stop");
        let count = fs::read_dir(b).expect("it is there").count();
        assert_eq!(count, 0, "start {start}: an empty mount point is no new disk");
    }
    // The survivor is lost too, where it was last, and the dead one is back.
    fs::rename(a, directory.path().join("lost")).expect("own directories");
    fs::create_dir(a).expect("an empty mount point");
    fs::remove_dir(b).expect("an empty mount point");
    fs::rename(directory.path().join("dead"), b).expect("own directories");
    let store = open(settings.clone()).await.expect("one is there");
    let served = count_served(&store, &objects).await;
    assert!((1..objects.len()).contains(&served), "{served}");
    store.close().await.expect("an orderly stop");
    fs::remove_dir(a).expect("an empty mount point");
    fs::rename(directory.path().join("lost"), a).expect("own directories");
    let store = open(settings.clone()).await.expect("both are there");
    assert_eq!(count_served(&store, &objects).await, objects.len());
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_that_change_places_stay_drained() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreConfig { trash_secs: 1, ..disks(directory.path(), &[1 << 30; 2]) };
    let store = open(settings.clone()).await.expect("two new disks");
    let id = store.disks()[0].id.clone();
    store.drain(&id).await.expect("room");
    let state = |store: &Store| store.drain_status(&id).expect("it is there").state;
    until("the drain", &store, |store| state(store) == DrainState::Done).await;
    store.close().await.expect("an orderly stop");
    swap(&settings.disks[0].path, &settings.disks[1].path);
    let store = open(settings.clone()).await.expect("the same two disks");
    assert_ne!(state(&store), DrainState::Off);
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn news_of_other_nodes_deals_is_answered_while_a_disk_is_offline() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = disks(directory.path(), &[1 << 30; 2]);
    let store = open(settings.clone()).await.expect("two new disks");
    store.close().await.expect("an orderly stop");
    let dead = directory.path().join("dead");
    fs::rename(&settings.disks[1].path, dead).expect("own directories");
    let store = open(settings).await.expect("one is there");
    let end = store.deal_end(LeaseId::from_bytes([9; 16])).await;
    assert_eq!(end.expect("it is said at once"), None);
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gets_disks_keeps_what_it_had() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut settings = disks(directory.path(), &[1 << 30; 2]);
    let single = StoreConfig { disks: Vec::new(), ..settings.clone() };
    let client = Client::new(1);
    let store = open(single).await.expect("a new store");
    let objects = fill(&store, &client, 0..3).await;
    store.close().await.expect("an orderly stop");
    let refused = open(settings.clone()).await.map(drop);
    let Err(StoreError::Config { key: "disks", reason }) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("name") && reason.contains("data"), "{reason}");
    settings.disks[0].path.clone_from(&settings.path);
    let store = open(settings).await.expect("the data directory is one of the disks");
    assert_eq!(count_served(&store, &objects).await, 3);
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_goes_offline_and_comes_back_with_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (store, switches) = open_two(directory.path()).await.expect("two new disks");
    let client = Client::new(1);
    let mut objects = fill(&store, &client, 0..40).await;
    let before = store.usage();
    switches[1].set(Mood::Fails);
    objects.extend(fill(&store, &client, 40..80).await);
    assert!(store.disks()[1].offline.is_some(), "{:?}", store.disks());
    assert!(store.is_open());
    let served = count_served(&store, &objects).await;
    assert!((41..80).contains(&served), "all new ones, and some of the old: {served}");
    assert!(store.usage().live_groups < before.live_groups + 40);
    let metrics = store.metrics();
    assert_eq!(metrics.capacity_bytes, 1 << 30);
    store.close().await.expect("the other one stops in good order");
    drop(store);

    let (store, _) = open_two(directory.path()).await.expect("both work");
    assert_eq!(count_served(&store, &objects).await, 80, "nothing acknowledged is lost");
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_disk_is_not_given_up() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (store, switches) = open_two(directory.path()).await.expect("two new disks");
    let client = Client::new(1);
    fill(&store, &client, 0..4).await;
    switches.iter().for_each(|switch| switch.set(Mood::Fails));
    let shard = crate::sample::bytes_of(5000, 300);
    let upload = Terms::pin(90, 90).upload;
    for index in 0..20 {
        let refused = put_shard(&store, &client, upload, Slot { stripe: 0, index }, &shard).await;
        assert!(refused.is_err(), "nothing works");
    }
    let online = |store: &Store| store.disks().iter().filter(|it| it.offline.is_none()).count();
    assert!(online(&store) >= 1, "{:?}", store.disks());
    switches.iter().for_each(|switch| switch.set(Mood::Works));
    fill(&store, &client, 100..104).await;
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_disk_that_hangs_but_who_needs_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (store, switches) = open_two(directory.path()).await.expect("two new disks");
    let client = Client::new(1);
    let objects = fill(&store, &client, 0..20).await;
    let used = store.disks();
    switches[1].set(Mood::Hangs);
    // Half of these are for the disk that hangs, and wait.
    let puts: Vec<_> = (100..140_u8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move { fill(&store, &Client::new(1), number..number + 1).await })
        })
        .collect();
    until("puts elsewhere", &store, |store| {
        store.disks()[0].used_bytes > used[0].used_bytes
            && puts.iter().filter(|put| put.is_finished()).count() >= 5
    })
    .await;
    assert!(puts.iter().any(|put| !put.is_finished()), "some wait");
    let mut reads: Vec<_> = objects
        .iter()
        .map(|object| {
            let (store, shard) = (store.clone(), object.groups[0].shards[0].1);
            tokio::spawn(async move { store.shard(shard).await })
        })
        .collect();
    until("reads elsewhere", &store, |_| {
        reads.iter().filter(|read| read.is_finished()).count() >= 5
    })
    .await;
    assert!(store.metrics().disks.iter().all(|disk| disk.offline.is_none()), "not yet");
    switches[1].set(Mood::Works);
    for read in reads.drain(..) {
        read.await.expect("no panic").expect("it is here");
    }
    for put in puts {
        let objects = put.await.expect("put in the end");
        assert_eq!(count_served(&store, &objects).await, 1);
    }
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_spot_read_again_and_again_is_no_dead_disk() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (store, switches) = open_two(directory.path()).await.expect("two new disks");
    let client = Client::new(1);
    let object = object(Recipe { stripe_bytes: 200_000, ..Recipe::small(5) });
    put(&store, &client, &object, Terms::pin(1, 1)).await.expect("room");
    let on = store.disks().iter().position(|disk| disk.used_bytes > 0).expect("one of them");
    switches[on].set(Mood::BadSpot);
    for _ in 0..80 {
        let read = store.shard(object.groups[0].shards[0].1).await;
        assert!(matches!(read, Err(StoreError::Io { .. })), "{read:?}");
    }
    assert_eq!(store.disks()[on].offline, None);
    switches[on].set(Mood::Works);
    assert_readable(&store, &object).await;
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_disk_that_hangs() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (store, switches) = open_two(directory.path()).await.expect("two new disks");
    let objects = fill(&store, &Client::new(1), 0..20).await;
    switches[1].set(Mood::Hangs);
    let closed = timeout(Duration::from_secs(60), store.close()).await;
    switches[1].set(Mood::Works);
    let closed = closed.expect("the stop ends");
    assert!(matches!(closed, Err(StoreError::Offline { .. })), "{closed:?}");
    store.ended().await;
    drop(store);
    let (store, _) = open_two(directory.path()).await.expect("both work");
    assert_eq!(count_served(&store, &objects).await, 20, "nothing acknowledged is lost");
    store.close().await.expect("an orderly stop");
}
