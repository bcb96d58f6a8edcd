// SPDX-License-Identifier: MIT OR Apache-2.0
//! Put, commit, read, restart, read, release.

use supernode_protocol::ids::LeaseId;
use supernode_protocol::lease::Expiry;
use supernode_protocol::wire::ByteRange;
use supernode_store::{GroupEvent, StoreError};

use super::support::{assert_readable, config, open, put};
use crate::sample::{Client, Recipe, Terms, object};

#[tokio::test]
async fn an_object_of_two_groups_is_there_until_it_is_released() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let config = config(directory.path());
    let store = open(config.clone()).await.expect("a new store");
    let mut events = store.events();
    let client = Client::new(1);
    let recipe = Recipe { group_count: 2, stripe_count: 3, ..Recipe::small(1) };
    let object = object(Recipe { stripe_bytes: 400_000, ..recipe });
    let counts = put(&store, &client, &object, Terms::pin(1, 1)).await.expect("put");
    assert_eq!(counts, [9, 9]);
    assert!(matches!(events.recv().await, Ok(GroupEvent::Committed(held)) if held.group == 0));
    assert_readable(&store, &object).await;
    let usage = store.usage();
    assert_eq!((usage.shards.live.count, usage.live_slots, usage.upload_slots), (18, 18, 0));
    assert_eq!(usage.shards.live.bytes, 18 * 200_704);
    assert!(store.is_open());
    store.close().await.expect("an orderly stop");
    store.ended().await;
    assert!(!store.is_open(), "whoever watches it sees that it has ended");
    assert!(matches!(
        store.has_shard(object.groups[0].shards[0].1).await,
        Err(StoreError::Stopped { .. })
    ));

    let store = open(config).await.expect("the same store");
    assert!(store.metrics().index_rebuilds.is_empty(), "{:?}", store.metrics().index_rebuilds);
    assert_eq!(store.usage().shards, usage.shards);
    assert_readable(&store, &object).await;
    let group = store.group(object.cid, 1).await.expect("held");
    assert_eq!(group.root, object.root);
    assert_eq!(group.page.as_ref(), object.groups[1].page.as_ref().map(|(_, bytes)| bytes));
    assert_eq!(store.held(object.cid, 1).await.expect("index").len(), 9);
    let absent = store.held(object.cid, 7).await;
    assert!(matches!(absent, Err(StoreError::GroupNotFound { .. })), "{absent:?}");
    let leases = store.leases_of(client.id, None, 10).await.expect("index");
    assert_eq!(leases.len(), 2);
    assert_eq!(leases[1].object_bytes, object.size);
    assert!(matches!(leases[0].remaining, Expiry::RunningSeconds(secs) if secs > 86_000));
    let announced = store.announcements(Some((object.cid, 0)), 10).await.expect("index");
    assert_eq!(announced.len(), 1);

    let lease = LeaseId::from_bytes([1; 16]);
    let stranger = Client::new(2);
    let refused = store.release(stranger.id, lease).await;
    assert!(matches!(refused, Err(StoreError::NotOwner { .. })), "{refused:?}");
    store.release(client.id, lease).await.expect("its own lease");
    let gone = store.shard(object.groups[0].shards[0].1).await;
    assert!(matches!(gone, Err(StoreError::ShardNotFound { .. })), "{gone:?}");
    assert!(matches!(store.group(object.cid, 0).await, Err(StoreError::GroupNotFound { .. })));
    assert!(matches!(store.held(object.cid, 0).await, Err(StoreError::GroupNotFound { .. })));
    assert_eq!(store.usage().shards.trash.count, 18);
    store.close().await.expect("an orderly stop");
}

#[tokio::test]
async fn a_range_read_touches_its_groups_and_proves_them() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(config(directory.path())).await.expect("a new store");
    let client = Client::new(1);
    let object = object(Recipe { stripe_bytes: 2 << 20, ..Recipe::small(3) });
    put(&store, &client, &object, Terms::pin(1, 1)).await.expect("put");
    let (_, id, bytes) = &object.groups[0].shards[1];
    let before = store.metrics().read.bytes;
    let range = ByteRange { offset: 20_000, len: 10 };
    let read = store.shard_range(*id, range).await.expect("within the shard");
    assert_eq!((read.range.offset, read.range.len), (16_384, 16_384));
    assert_eq!(read.bytes, bytes.slice(16_384..32_768));
    assert!(store.metrics().read.bytes - before < 64 << 10, "only what is needed is read");
    supernode_protocol::tree::verify_range(
        id,
        read.shard_len,
        read.range.offset..read.range.offset + read.range.len,
        &read.proof,
        &read.bytes,
    )
    .expect("a receiver can verify it");
    store.shard(*id).await.expect("whole");
    assert_eq!(store.shard_range(*id, range).await.expect("from memory"), read);
    for (offset, len) in [(0, 0), (1 << 20, 1), (u64::MAX, 2), (0, (1 << 20) + 1)] {
        let refused = store.shard_range(*id, ByteRange { offset, len }).await;
        assert!(matches!(refused, Err(StoreError::BadRange { .. })), "{offset}+{len}");
    }
    store.close().await.expect("an orderly stop");
}
