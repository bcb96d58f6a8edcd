// SPDX-License-Identifier: MIT OR Apache-2.0
//! A store on several disks answers as one on a single disk does.

use std::path::Path;

use supernode_protocol::ids::{LeaseId, Slot, UploadId};
use supernode_protocol::lease::{Expiry, LeaseKind};
use supernode_store::offline::{Source, dump_map, fsck};
use supernode_store::{DiskConfig, GroupEvent, Store, StoreConfig, StoreError};

use super::support::{assert_readable, config, open, put, put_shard, upload};
use crate::sample::{Client, Object, Recipe, Terms, bytes_of, object};

/// A data directory `data`, and disks `a`, `b`, … beside it.
pub fn disks(root: &Path, capacities: &[u64]) -> StoreConfig {
    let disk = |(name, capacity_bytes): (char, &u64)| DiskConfig {
        path: root.join(name.to_string()),
        capacity_bytes: *capacity_bytes,
    };
    let disks = ('a'..).zip(capacities).map(disk).collect();
    StoreConfig { disks, ..config(&root.join("data")) }
}

/// Bytes that count as used on each disk.
fn used(store: &Store) -> Vec<u64> {
    store.disks().iter().map(|disk| disk.used_bytes).collect()
}

/// Every disk's directory is whole, and its index says what its log says.
pub fn assert_whole(config: &StoreConfig) {
    for DiskConfig { path, .. } in &config.disks {
        let report = fsck(path).expect("a check");
        assert!(report.is_clean(), "{}: {report:?}", path.display());
        let log = dump_map(path, Source::Log, true).expect("at rest");
        assert_eq!(log, dump_map(path, Source::Index, true).expect("at rest"));
    }
}

/// Two disks that take one shard of 1500 bytes each, and at most four of 320 beside it.
fn cramped(root: &Path) -> StoreConfig {
    disks(root, &[2900, 2900])
}

/// Uploads an object whose group of 6 shards of 320 bytes lies on both disks of [`cramped`].
async fn upload_to_both(store: &Store, client: &Client, kind: LeaseKind) -> (Object, Terms) {
    let filler = UploadId::from_bytes([255; 16]);
    for index in 0..2 {
        let (slot, bytes) = (Slot { stripe: 0, index }, bytes_of(1000 + u64::from(index), 1500));
        put_shard(store, client, filler, slot, &bytes).await.expect("room");
    }
    let object = object(Recipe { stripe_count: 2, ..Recipe::small(1) });
    let expiry = match kind {
        LeaseKind::Deal => Expiry::FinalisedHeight(500),
        _ => Expiry::RunningSeconds(600),
    };
    let terms = Terms { kind, expiry, ..Terms::pin(1, 1) };
    upload(store, client, &object, terms.upload).await.expect("room");
    store.release(client.id, LeaseId::from_bytes([255; 16])).await.expect("its own upload");
    let used = used(store);
    assert!(used.iter().all(|used| *used >= 640), "both disks: {used:?}");
    (object, terms)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_spread_by_free_bytes_and_found_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = disks(directory.path(), &[4 << 20, 8 << 20, 20 << 20]);
    let store = open(settings.clone()).await.expect("three new disks");
    assert_eq!(store.capacity_bytes(), 32 << 20);
    let client = Client::new(1);
    let mut objects = Vec::new();
    for number in 0..200_u8 {
        let object = object(Recipe { stripe_bytes: 40_000, ..Recipe::small(number.into()) });
        let terms = Terms::pin(number, number);
        assert_eq!(put(&store, &client, &object, terms).await.expect("room"), [3]);
        objects.push(object);
    }
    let used = used(&store);
    let all: u64 = used.iter().sum();
    for (used, capacity) in used.iter().zip([4, 8, 20]) {
        let expected = all * capacity / 32;
        assert!(used.abs_diff(expected) < all / 6, "{used} of {all}, expected {expected}");
    }
    let usage = store.usage();
    assert_eq!(usage.shards.live.bytes + usage.blocks.live.bytes, all);
    assert_eq!((usage.live_slots, usage.live_groups, usage.upload_slots), (600, 200, 0));
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);

    let store = open(settings).await.expect("the same disks");
    assert_eq!(store.usage(), supernode_store::Usage { ..usage_at_rest(usage, &store) });
    let mut listed = Vec::new();
    while let Ok(page) = store.leases_of(client.id, listed.last().copied(), 7).await
        && !page.is_empty()
    {
        listed.extend(page.iter().map(|entry| (entry.lease, entry.object, entry.group)));
    }
    assert_eq!(listed.len(), 200);
    assert!(listed.is_sorted());
    for object in &objects {
        assert_readable(&store, object).await;
        assert_eq!(store.group(object.cid, 0).await.expect("it is here").root, object.root);
    }
    store.close().await.expect("an orderly stop");
}

/// An orderly stop writes a record of its own on each disk.
fn usage_at_rest(usage: supernode_store::Usage, store: &Store) -> supernode_store::Usage {
    let now = store.usage();
    supernode_store::Usage { records: now.records, log_bytes: now.log_bytes, ..usage }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_on_two_disks_is_one_group() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = StoreConfig { trash_secs: 0, ..cramped(directory.path()) };
    let store = open(settings.clone()).await.expect("two new disks");
    let mut events = store.events();
    let client = Client::new(1);
    let (object, terms) = upload_to_both(&store, &client, LeaseKind::Pin).await;
    let commit = object.commit(&client, 0, terms);
    assert_eq!(store.commit(client.id, commit.clone()).await.expect("it fits").1, 6);
    assert_eq!(store.commit(client.id, commit).await.expect("repeated").1, 6);
    let held = store.held(object.cid, 0).await.expect("index");
    assert_eq!(held.len(), 6);
    assert_readable(&store, &object).await;
    assert_eq!(store.leases_of(client.id, None, 10).await.expect("index").len(), 1);
    assert_eq!(store.announcements(None, 10).await.expect("index").len(), 1);
    assert_eq!(store.missing(object.cid, 0).await.expect("it is here"), []);

    let newer = object.placement(&client, 0, 5);
    store.place(newer.clone()).await.expect("it is here");
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);
    let store = open(settings.clone()).await.expect("the same disks");
    assert_eq!(store.group(object.cid, 0).await.expect("it is here").placement, newer);
    assert_readable(&store, &object).await;
    assert!(matches!(events.recv().await, Ok(GroupEvent::Committed(held)) if held.group == 0));

    let stranger = store.release(Client::new(2).id, terms.lease).await;
    assert!(matches!(stranger, Err(StoreError::NotOwner { .. })), "{stranger:?}");
    let expiry = Expiry::RunningSeconds(1000);
    store.renew(client.id, terms.lease, expiry).await.expect("its own lease");
    let mut events = store.events();
    store.release(client.id, terms.lease).await.expect("its own lease");
    assert!(matches!(events.recv().await, Ok(GroupEvent::Released(held)) if held.group == 0));
    let again = store.release(client.id, terms.lease).await;
    assert!(matches!(again, Err(StoreError::LeaseNotFound { .. })), "{again:?}");
    let gone = store.group(object.cid, 0).await;
    assert!(matches!(gone, Err(StoreError::GroupNotFound { .. })), "{gone:?}");
    store.close().await.expect("an orderly stop");
    assert_whole(&settings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deal_on_two_disks_is_one_deal() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(cramped(directory.path())).await.expect("two new disks");
    let client = Client::new(1);
    let (object, terms) = upload_to_both(&store, &client, LeaseKind::Deal).await;
    store.commit(client.id, object.commit(&client, 0, terms)).await.expect("it fits");
    store.keep_span(object.cid, 0, vec![7; 99].into()).await.expect("it is here");
    let lease = terms.lease;

    let deals = store.deals(None, 10).await.expect("index");
    let [deal] = &deals[..] else { panic!("one deal: {deals:?}") };
    assert_eq!((deal.slots, deal.bytes, deal.height, deal.settled), (6, 6 * 320, 500, false));
    assert_eq!(store.groups_of(lease, object.cid).await.expect("index"), [0]);
    for (slot, shard, _) in &object.groups[0].shards {
        let here = store.slot(lease, object.cid, *slot).await.expect("index").expect("it is here");
        assert_eq!(here.shard, *shard);
        store.prove(*shard, vec![0]).await.expect("it is here");
    }
    assert_eq!(store.span(object.cid, 0).await.expect("index").expect("kept").len(), 99);
    assert_eq!(store.deals_due(499, None, 10).await.expect("index"), []);
    assert!(store.move_deal(lease, 300).await.expect("a deal"));
    assert!(!store.move_deal(lease, 300).await.expect("a deal"), "said already, on both");
    assert_eq!(store.deal_end(lease).await.expect("index"), Some(300));
    assert_eq!(store.deals_due(300, None, 10).await.expect("index").len(), 1);
    let other = crate::sample::object(Recipe::small(2));
    upload(&store, &client, &other, UploadId::from_bytes([252; 16])).await.expect("room");
    let other =
        other.commit(&client, 0, Terms { upload: UploadId::from_bytes([252; 16]), ..terms });
    let refused = store.commit(client.id, other).await;
    assert!(matches!(refused, Err(StoreError::BadCommit { .. })), "{refused:?}");
    store.end_deal(lease).await.expect("a deal");
    assert_eq!(store.deals(None, 10).await.expect("index"), []);
    assert_eq!(store.usage().live_groups, 0);
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_put_again_replaces_what_was_there() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(cramped(directory.path())).await.expect("two new disks");
    let client = Client::new(1);
    let (object, terms) = upload_to_both(&store, &client, LeaseKind::Pin).await;
    for (slot, ..) in &object.groups[0].shards {
        put_shard(&store, &client, terms.upload, *slot, &bytes_of(99, 300)).await.expect("room");
    }
    let commit = object.commit(&client, 0, terms);
    let refused = store.commit(client.id, commit.clone()).await;
    assert!(matches!(refused, Err(StoreError::BadCommit { .. })), "{refused:?}");
    upload(&store, &client, &object, terms.upload).await.expect("room");
    assert_eq!(store.commit(client.id, commit).await.expect("it fits").1, 6);
    let stranger = Client::new(2);
    for stripe in [0, 64, 128, 192] {
        let slot = Slot { stripe, index: 200 };
        let refused = put_shard(&store, &stranger, terms.upload, slot, b"other").await;
        assert!(refused.is_ok(), "the upload is used up: {refused:?}");
        let refused = put_shard(&store, &client, terms.upload, slot, b"another").await;
        assert!(matches!(refused, Err(StoreError::NotOwner { .. })), "{refused:?}");
    }
    store.close().await.expect("an orderly stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_disk_refuses_another_takes_until_all_are_full() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(disks(directory.path(), &[2000, 2000, 0])).await.expect("three new disks");
    let client = Client::new(1);
    let upload = UploadId::from_bytes([1; 16]);
    let mut put = 0_u16;
    let refused = loop {
        let (slot, bytes) = (Slot { stripe: 0, index: put }, bytes_of(put.into(), 300));
        match put_shard(&store, &client, upload, slot, &bytes).await {
            Ok(_) => put += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    assert_eq!((put, used(&store)), (12, vec![1800, 1800, 0]));
    store.close().await.expect("an orderly stop");
}
