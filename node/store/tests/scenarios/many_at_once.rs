// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writers and readers beside each other.

use std::sync::Arc;
use std::time::Duration;

use supernode_protocol::ids::{ShardId, Slot, UploadId};
use supernode_store::offline::{Source, dump_map, fsck};
use supernode_store::{
    Durability, KindDurability, LeaseDurability, Store, StoreConfig, StoreError,
};

use super::support::{assert_readable, config, open, put, put_shard};
use crate::sample::{Client, Recipe, Terms, bytes_of, object};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_miss_what_was_acknowledged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path();
    // Small enough that segments rotate and the index follows while all this happens.
    let store = open(config(path)).await.expect("a new store");
    let tasks: Vec<_> = (1..=8_u8)
        .map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let client = Client::new(number);
                for round in 0..6_u8 {
                    let seed = u64::from(number) * 100 + u64::from(round);
                    let recipe = Recipe { stripe_bytes: 150_000, ..Recipe::small(seed) };
                    let object = object(recipe);
                    let terms = Terms::pin(number * 10 + round, number * 10 + round);
                    put(&store, &client, &object, terms).await.expect("put");
                    assert_readable(&store, &object).await;
                    assert_eq!(store.held(object.cid, 0).await.expect("index").len(), 3);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no reader was let down");
    }
    let metrics = store.metrics();
    assert_eq!(metrics.usage.live_slots, 8 * 6 * 3);
    assert!(metrics.batches < metrics.batch_records, "writers share batches");
    store.close().await.expect("an orderly stop");
    assert!(fsck(path).expect("a check").is_clean());
    let log = dump_map(path, Source::Log, true).expect("at rest");
    assert_eq!(log, dump_map(path, Source::Index, true).expect("at rest"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_of_one_shard_load_it_once() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let client = Client::new(1);
    let object = object(Recipe { stripe_bytes: 2 << 20, ..Recipe::small(1) });
    put(&store, &client, &object, Terms::pin(1, 1)).await.expect("put");
    let object = Arc::new(object);
    let before = store.metrics();
    let readers: Vec<_> = (0..32)
        .map(|_| {
            let (store, object) = (store.clone(), Arc::clone(&object));
            tokio::spawn(async move { store.shard(object.groups[0].shards[0].1).await })
        })
        .collect();
    for reader in readers {
        let read = reader.await.expect("no panic").expect("it is here");
        assert_eq!(read.bytes, object.groups[0].shards[0].2);
    }
    let after = store.metrics();
    assert_eq!(after.read.ios - before.read.ios, 1);
    assert_eq!((after.cache_misses, after.cache_hits), (1, 31));
    store.close().await.expect("an orderly stop");
}

/// Puts a shard while others ask for it all the time.
async fn put_under_readers(store: &Store, number: u16) {
    let bytes = bytes_of(u64::from(number), 1 << 20);
    let id = ShardId::of(&bytes);
    let reader = tokio::spawn({
        let store = store.clone();
        async move {
            loop {
                match store.shard(id).await {
                    Ok(shard) => return shard.bytes,
                    Err(StoreError::ShardNotFound { .. }) => tokio::task::yield_now().await,
                    Err(error) => panic!("it is whole, or not here yet: {error}"),
                }
            }
        }
    });
    let puts = [1, 2, 3].map(|client| {
        let (store, bytes) = (store.clone(), bytes.clone());
        let (upload, slot) =
            (UploadId::from_bytes([client; 16]), Slot { stripe: number.into(), index: 0 });
        tokio::spawn(async move {
            put_shard(&store, &Client::new(client), upload, slot, &bytes).await.expect("room");
            store.shard(id).await.expect("what is acknowledged can be read");
        })
    });
    for put in puts {
        put.await.expect("it was put and read");
    }
    assert_eq!(reader.await.expect("it was read"), bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_acknowledged_early_is_whole_for_every_reader() {
    let all = |durability| StoreConfig { durability, ..StoreConfig::default() };
    let cached = KindDurability::Only(Durability::Async);
    let durability_of = LeaseDurability { cache: cached, ..LeaseDurability::default() };
    let some = StoreConfig { durability_of, ..StoreConfig::default() };
    for StoreConfig { durability, durability_of, .. } in
        [all(Durability::Async), all(Durability::Relaxed), some]
    {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let early = StoreConfig { durability, durability_of, ..config(directory.path()) };
        let early = StoreConfig { cache_bytes_max: 0, segment_bytes_max: 1 << 30, ..early };
        let store = open(early).await.expect("a new store");
        for number in 0..20 {
            put_under_readers(&store, number).await;
        }
        assert_eq!((store.metrics().damaged, store.metrics().quarantined), (0, 0));
        store.close().await.expect("an orderly stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cache_lets_go_of_what_nobody_reads() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreConfig { cache_idle_secs: 1, ..config(directory.path()) };
    let store = open(settings).await.expect("a new store");
    let object = object(Recipe { stripe_bytes: 2 << 20, ..Recipe::small(1) });
    put(&store, &Client::new(1), &object, Terms::pin(1, 1)).await.expect("put");
    let [one, other, _] = &object.groups[0].shards[..] else { panic!("three shards") };
    store.shard(one.1).await.expect("it is here");
    let let_go = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        // What is read all the time stays; the rest goes with the housekeeping of some read.
        let mut had_both = false;
        while !had_both || store.metrics().cache_bytes > 2 << 20 {
            tick.tick().await;
            store.shard(other.1).await.expect("it is here");
            had_both |= store.metrics().cache_bytes > 2 << 20;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), let_go).await.expect("it lets go");
    assert_eq!(store.metrics().cache_misses, 2, "each was loaded once");
    store.shard(one.1).await.expect("it is here");
    assert_eq!(store.metrics().cache_misses, 3, "and one is loaded again");
    store.close().await.expect("an orderly stop");
}

#[tokio::test]
async fn shards_of_one_upload_and_stripe_do_not_overwrite_each_other() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let client = Client::new(1);
    let upload = UploadId::from_bytes([1; 16]);
    let shards: Vec<_> = (0..14).map(|index| bytes_of(index, 4096)).collect();
    for (index, bytes) in (0..).zip(&shards) {
        let slot = Slot { stripe: 0, index };
        put_shard(&store, &client, upload, slot, bytes).await.expect("put");
    }
    for bytes in &shards {
        let id = supernode_protocol::ids::ShardId::of(bytes);
        assert_eq!(store.shard(id).await.expect("it is here").bytes, bytes);
    }
    let usage = store.usage();
    assert_eq!((usage.shards.live.count, usage.upload_slots), (14, 14));
    let stranger = Client::new(2);
    let refused =
        put_shard(&store, &stranger, upload, Slot { stripe: 1, index: 0 }, &shards[0]).await;
    assert!(matches!(refused, Err(StoreError::NotOwner { .. })), "{refused:?}");
    store.close().await.expect("an orderly stop");
}

#[tokio::test]
async fn a_commit_must_fit_its_manifest() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreConfig { trash_secs: 0, ..config(directory.path()) };
    let store = open(settings).await.expect("a new store");
    let client = Client::new(1);
    let object = object(Recipe { stripe_count: 2, ..Recipe::small(1) });
    let terms = Terms::pin(1, 1);
    let commit = object.commit(&client, 0, terms);
    let early = store.commit(client.id, commit.clone()).await;
    assert!(matches!(early, Err(StoreError::BadCommit { .. })), "{early:?}");
    super::support::upload(&store, &client, &object, terms.upload).await.expect("put");
    let mut wrong = commit.clone();
    wrong.stripe_count = 1;
    let refused = store.commit(client.id, wrong).await;
    assert!(matches!(refused, Err(StoreError::BadCommit { .. })), "{refused:?}");
    let stranger = Client::new(2);
    let stolen = object.commit(&stranger, 0, terms);
    let refused = store.commit(stranger.id, stolen).await;
    assert!(matches!(refused, Err(StoreError::NotOwner { .. })), "{refused:?}");
    let slot = object.groups[0].shards[0].0;
    put_shard(&store, &client, terms.upload, slot, &bytes_of(99, 320)).await.expect("put");
    let refused = store.commit(client.id, commit.clone()).await;
    assert!(matches!(refused, Err(StoreError::BadCommit { .. })), "{refused:?}");
    put_shard(&store, &client, terms.upload, slot, &object.groups[0].shards[0].2)
        .await
        .expect("put");
    assert_eq!(store.commit(client.id, commit.clone()).await.expect("fits").1, 6);
    assert_eq!(store.commit(client.id, commit).await.expect("repeated").1, 6);
    store.close().await.expect("an orderly stop");
}
